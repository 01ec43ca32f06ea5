"""One level of torch.func's transforms at a time: what `autograd.Function` hides, for rules that differ by level.

Every name is checked on 2.15.0, and has been there since 2.1.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch._C import _functorch
from torch._functorch.pyfunctorch import coerce_cinterpreter
from torch._functorch.utils import enable_single_level_autograd_function
from torch._functorch.vmap import restore_vmap
from torch.autograd import forward_ad

_duals: Any = forward_ad  # torch leaves it unannotated

# What a rule for one level subclasses: its `apply` does not look at the transforms around.
SingleLevelFunction: Any = cast(Any, torch.autograd.function)._SingleLevelFunction


class Level(NamedTuple):
    """One transform around a call."""

    number: int  # 1 for the outermost, 0 for plain torch.autograd
    kind: str  # "Grad", "Jvp" or "Vmap"
    records: bool  # whether reverse mode records at this level
    size: int  # of the mapped axis
    randomness: str  # what vmap does with torch's own generator


def levels() -> list[Level]:
    """The transforms around this call, the innermost first, and last plain torch.autograd."""
    found = []
    records = torch.is_grad_enabled()
    for interpreter in reversed(_functorch.get_interpreter_stack() or []):
        level: Any = coerce_cinterpreter(interpreter)
        kind = interpreter.key().name
        size, randomness = (level.batch_size(), level.randomness()) if kind == "Vmap" else (0, "error")
        found.append(Level(interpreter.level(), kind, records, size, randomness))
        if kind == "Grad":  # no_grad holds down to the next such level, which has its own
            records = level.prev_grad_mode()
    return [*found, Level(0, "Grad", records, 0, "error")]


def alive(tensor: Tensor) -> Tensor:
    """The tensor without the wrappers of transforms that have ended."""
    return _functorch.unwrap_if_dead(tensor)


def inner(tensor: Tensor, number: int) -> Tensor:
    """The tensor without the wrapper that differentiation at a level put around it."""
    return _functorch._unwrap_for_grad(tensor, number) if number else _detached(tensor)


def outer(tensor: Tensor, number: int) -> Tensor:
    """A tensor that differentiation at a level may mark as a result."""
    return _functorch._wrap_for_grad(tensor, number) if number else _detached(tensor)


def _detached(tensor: Tensor) -> Tensor:
    with _under(0):
        return tensor.detach()


def mapped_axis(tensor: Tensor, number: int) -> tuple[Tensor, int | None]:
    """The tensor with its hidden axis of the `vmap` at a level laid open, and where that is."""
    return _functorch._unwrap_batched(tensor, number)


def hide_axis(tensor: Tensor, number: int) -> Tensor:
    """The inverse: hide the first axis, as of the `vmap` at a level."""
    return _functorch._add_batch_dim(tensor, 0, number)


def mapped(
    f: Callable[..., tuple[Tensor, ...]], dims: Sequence[int | None], level: Level
) -> Callable[..., tuple[tuple[Tensor, ...], tuple[int | None, ...]]]:
    """A function of flat tensors under a `vmap` like that of a level, which also tells where its results have the axis.

    In a result that does not depend on the mapped arguments the axis is None.
    """
    return restore_vmap(f, tuple(dims), level.size, level.randomness)


def attach(function: Any, *args: Any) -> Any:
    """Apply a subclass of `SingleLevelFunction`, whose arguments say by their wrappers at which level."""
    with enable_single_level_autograd_function():
        return function.apply(*args)


@contextmanager
def _under(number: int) -> Iterator[None]:
    """Take the transforms inside a level off the stack. No function of a user may run there."""
    taken = []
    try:
        while (_functorch.maybe_current_level() or 0) > number:
            taken.append(_functorch.pop_dynamic_layer_stack())
        yield
    finally:
        while taken:
            _functorch.push_dynamic_layer_stack(taken.pop())


def split_dual(tensor: Tensor, number: int) -> tuple[Tensor, Tensor | None]:
    """The primal and the tangent, if there is one, that forward mode at a level gave a tensor, both from below it."""
    if _duals._current_level < 0:
        return tensor, None
    with _under(number):
        primal, tangent = _duals.unpack_dual(tensor)
    if number == 0 or tangent is None:
        return primal, tangent
    return inner(tensor, number), inner(tangent, number)


def join_dual(primal: Tensor, tangent: Tensor, number: int) -> Tensor:
    """The inverse."""
    if number:
        primal, tangent = outer(primal, number), outer(tangent, number)
    with _under(number):
        dual: Tensor = _duals.make_dual(primal, tangent)
    return dual
