"""A user's own step, named on the command line."""

from collections.abc import Callable
from typing import Any

import torch

from funcnet import specs, tree
from funcnet.bench.subject import Running, Subject, Way, bytes_of
from funcnet.jit import jit

__all__ = ["own_step"]


def own_step(text: str, device: torch.device) -> Subject:
    """The step that `package.module:make_step` makes, eager and compiled.

    `make_step()` returns `(step, *args)`: a pure function and what it is called with. Where the first of its results
    has the structure of its first argument, as in `(ts, batch) -> (ts, metrics)`, each call takes the result of the
    one before, and the memory may be donated.

    Raises:
        SpecError: nothing can be imported by this name, or what it returns is no step.
    """
    make = specs.function(text)
    with specs.failing(text, "cannot be made"):
        made = make()
    if not (isinstance(made, tuple) and made and callable(made[0])):
        raise specs.SpecError(f"{text!r} returns a {type(made).__name__}. It should return (step, *args).")
    step, *args = made
    args = [tree.map(lambda leaf: leaf.to(device) if isinstance(leaf, torch.Tensor) else leaf, arg) for arg in args]
    with specs.failing(text, "fails on its arguments"):
        result = step(*tree.map(_copied, args))
    carried = bool(args) and isinstance(result, tuple) and bool(result) and _alike(result[0], args[0])

    def compiled(**options: Any) -> Way:
        return Way(lambda: _running(jit(step, **options), args, carried), compiled=True)

    ways = {"eager": Way(lambda: _running(step, args, carried)), "compiled": compiled()}
    if carried:
        ways["compiled, donating"] = compiled(donate=0)
    if device.type == "cuda":
        ways["compiled, graphs"] = compiled(donate=0 if carried else (), mode="reduce-overhead")
    return Subject(text, ways, ("eager",), settings={"carries its first argument": carried}, device=device)


def _running(step: Callable[..., Any], args: list[Any], carried: bool) -> Running:
    held = tree.map(_copied, args)

    def call() -> Any:
        result = step(*held)
        if carried:
            held[0], *rest = result
            return rest
        return result

    return Running(call, lambda: bytes_of(held))


def _copied(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, torch.Tensor) else leaf


def _alike(new: Any, old: Any) -> bool:
    (left, structure), (right, other) = tree.flatten(new), tree.flatten(old)
    tensors = [isinstance(leaf, torch.Tensor) for leaf in left]
    return (
        structure == other
        and any(tensors)
        and all(
            isinstance(b, torch.Tensor) == is_tensor and (not is_tensor or (a.shape, a.dtype) == (b.shape, b.dtype))
            for a, b, is_tensor in zip(left, right, tensors, strict=True)
        )
    )
