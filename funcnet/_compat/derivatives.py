"""Which derivatives are asked of a function of some tensors, read from the transforms that surround the call."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch._C import _functorch

from funcnet._compat.forward import forward_mode, has_tangent


class Asked(NamedTuple):
    """What is asked of some tensors."""

    levels: frozenset[int]  # the levels of reverse mode that differentiate with respect to one of them
    forward: bool  # whether one of them may carry a tangent
    batched: bool  # whether `vmap` gave one of them a hidden dimension
    transformed: bool  # whether a torch.func transform surrounds the call at all

    @property
    def reverse(self) -> int:
        """How many levels of reverse mode."""
        return len(self.levels)


class _Announced(threading.local):
    """Whether a derivative is to come of which no transform around the call tells."""

    again = False


_announced = _Announced()


@contextmanager
def differentiated_again() -> Iterator[None]:
    """Have what runs in this block stay differentiable once more than its surroundings tell.

    The pullback that `vjp` returns may itself be differentiated, later.
    """
    before, _announced.again = _announced.again, True
    try:
        yield
    finally:
        _announced.again = before


_PLAIN, _LATER = 0, -1  # torch.autograd outside all transforms, and a level to come

_NOTHING = Asked(frozenset(), False, False, False)
_GRADIENT = Asked(frozenset({_PLAIN}), False, False, False)


def asked_of(*tensors: torch.Tensor) -> Asked:
    """Which derivatives are asked of a function of these tensors.

    A transform's wrapper says which level it belongs to, and the stack of interpreters what kind of level that is. In a
    wrapper of forward mode a tangent cannot be told from none, so there `forward` errs on the side of yes. Inside
    `torch.compile` the answer is that of plain code. The names used are checked on 2.15.0.
    """
    if torch.compiler.is_compiling():
        return _NOTHING
    stack = _functorch.get_interpreter_stack()
    if stack is None:
        reverse = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        dual = forward_mode() and any(map(has_tangent, tensors))
        if not dual:
            return _GRADIENT if reverse else _NOTHING
        return Asked(frozenset({_PLAIN} if reverse else ()), True, False, False)
    kinds = {interpreter.level(): interpreter.key().name for interpreter in stack}
    levels = {_LATER} if _announced.again else set()
    # Plain forward mode outside torch.func.jvp shows in no wrapper.
    forward = "Jvp" not in kinds.values() and forward_mode()
    batched = False
    for tensor in tensors:
        while _functorch.is_functorch_wrapped_tensor(tensor):
            level = _functorch.maybe_get_level(tensor)
            kind = kinds.get(level)  # none for the wrapper of a transform that has ended
            batched = batched or kind == "Vmap"
            forward = forward or kind == "Jvp"
            if kind == "Grad" and tensor.requires_grad:
                levels.add(level)
            tensor = _functorch.get_unwrapped(tensor)
        if tensor.requires_grad:
            levels.add(_PLAIN)
    return Asked(frozenset(levels), forward, batched, True)


def first_order() -> bool:
    """Whether nothing but one derivative in reverse can be asked of a call, or no one can tell: see `asked_of`."""
    outside = _functorch.peek_interpreter_stack() is None and not forward_mode()
    return outside or torch.compiler.is_compiling()
