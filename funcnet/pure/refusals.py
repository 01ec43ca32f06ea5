"""What a call of a model is refused with: which tensor, in which submodule, and what to write instead."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from funcnet import _compat, tree
from funcnet.pure.calls import innermost
from funcnet.pure.mode import MissingKeyError, PureMode
from funcnet.pure.skeleton import Body, Skeleton
from funcnet.pure.writes import versions, written_through_data

__all__ = ["check_call", "locate", "refuse_tensors", "refuse_writing", "settled"]


def check_call(
    constructor: Callable[..., nn.Module], name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Raise `TypeError` where a constructor cannot be called with these arguments."""
    try:
        signature = inspect.signature(constructor)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"Model({name}, ...) cannot call {name}{signature}: {error}.") from None


def refuse_writing(
    model: str,
    before: Sequence[int],
    values: Mapping[str, Tensor],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    mode: PureMode,
) -> None:
    """Raise `RuntimeError` for the tensors whose versions are no longer what they were `before` the call."""
    inputs = [*tree.leaves_with_path(tuple(args)), *tree.leaves_with_path(dict(kwargs))]
    names = [*map(repr, values), *(f"its argument {path}" for path, _ in inputs)]
    tensors = [*values.values(), *(leaf for _, leaf in inputs)]
    counts = zip(before, versions(tensors), strict=True) if before else [(0, 0)] * len(tensors)
    wrote = [
        name
        for name, tensor, (a, b) in zip(names, tensors, counts, strict=True)
        if a != b or written_through_data(mode, tensor)
    ]
    raise RuntimeError(
        f"{model} wrote into {', '.join(wrote[:5])} in place, so the caller's tensor is changed, and the same "
        f"call would give another result now. Compute out of place (w * 0.5, relu without inplace=True), keep what "
        f"changes in a buffer, which comes back as new state, or pass a copy."
    )


def settled(model: str, news: Mapping[str, Tensor], level: int) -> dict[str, Tensor]:
    """New state without the wrappers of transforms that the call opened and that are over.

    Raises `RuntimeError` for what a `vmap` of these has mapped; `level` is that of the call.
    """
    if not _compat.any_wrapped(news.values()):
        return dict(news)
    new = {name: _compat.without_dead(value) for name, value in news.items()}
    mapped = [name for name, value in new.items() if _compat.level_of(value) > level]
    if mapped:
        raise RuntimeError(
            f"{model} updates {', '.join(map(repr, mapped[:5]))} inside a vmap that it opens itself, where each "
            f"element has a value of its own and the state has place for one. Return what the update needs from the "
            f"vmapped function, and update outside of it; or write BatchNorm without running statistics "
            f"(track_running_stats=False)."
        )
    return new


def refuse_tensors(model: str, skeleton: Skeleton, params: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise `TreeMismatchError` for tensors that are not those of the skeleton."""
    both = sorted(params.keys() & state.keys())
    if both:
        raise tree.TreeMismatchError(
            f"{both[0]!r} is in params and in state{f' (and {len(both) - 1} more)' if len(both) > 1 else ''}: each "
            f"tensor of {model} belongs to one of them. Write tree.split and tree.merge to move leaves."
        )
    leaves = skeleton.leaves
    # What was moved to the other dict is judged where it is; the rest where it belongs.
    want_params = {n: f.like for n, f in leaves.items() if n in params or (f.trainable and n not in state)}
    want_state = {n: f.like for n, f in leaves.items() if n not in want_params}
    tree.check_like(params, want_params, what="params", against=model)
    tree.check_like(state, want_state, what="state", against=model)
    tree.check_like(params, want_params, what="params", against=model, dtype=True)
    tree.check_like(state, want_state, what="state", against=model, dtype=True)


def locate(error: Exception, body: Body, model: str, train: bool) -> None:
    """Say in an error which submodule it arose in; a missing key is raised anew, with the call to write."""
    path = innermost(error.__traceback__, body)
    where = model
    if path:
        where = f"submodule {path!r} ({type(body.module.get_submodule(path)).__name__}) of {model}"
    if isinstance(error, MissingKeyError):
        how = "train=True, " if train else ""
        raise MissingKeyError(
            f"{where} {error}. Write model.apply(params, state, x, {how}key=random.key(0))."
        ) from None
    error.add_note(f"raised in {where}")
