"""Forward mode, of which torch keeps one for the whole process: one thread at a time.

Its depth (`forward_ad._current_level`, and torch.func's `JVP_NESTING`) is a global of a module, and to leave the
outermost level takes the tangents of all threads away.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._C import _functorch
from torch.autograd import forward_ad

from funcnet._compat.levels import level_of
from funcnet._compat.watching import backward_node

# Who also wants the lock of tracing (`compiler.py`) takes this one first: two orders would be a deadlock.
FORWARD = threading.RLock()


class _Level:
    """Which thread opened the levels that are open: None where that was not done by `forward_alone`."""

    owner: int | None = None


@contextmanager
def forward_alone() -> Iterator[None]:
    """Let no other thread of funcnet's into forward mode in this block, whose call enters it.

    Autograd's engine has threads of its own for other devices, which know the transforms of their caller, and for which
    the caller waits: these never wait for it. Checked on 2.15.0.
    """
    if torch.compiler.is_compiling() or "Jvp" in _kinds() or _of_engine():
        yield  # which the compiler does not trace, or which the outermost call has seen to
        return
    with FORWARD:
        before, _Level.owner = _Level.owner, threading.get_ident()
        try:
            yield
        finally:
            _Level.owner = before


def forward_mode() -> bool:
    """Whether torch's own forward mode (`forward_ad.dual_level`) surrounds this call. Checked on 2.15.0.

    A level that a user opened by torch's own means is taken for one around this call, in whatever thread that was.
    """
    return forward_ad._current_level >= 0 and (_Level.owner in (None, threading.get_ident()) or _of_engine())


def bare_forward_mode() -> bool:
    """Whether a level of `torch.autograd.forward_ad` is open that is none of torch.func. Checked on 2.15.0."""
    return forward_mode() and "Jvp" not in _kinds()


def has_tangent(tensor: torch.Tensor) -> bool:
    """Whether `torch.autograd.forward_ad` carries a derivative with this tensor. Checked on 2.15.0."""
    if not forward_mode() or level_of(tensor) > 0:
        return False
    unpack: Any = forward_ad.unpack_dual  # torch leaves it unannotated
    return unpack(tensor).tangent is not None


def _kinds() -> list[str]:
    return [interpreter.key().name for interpreter in _functorch.get_interpreter_stack() or ()]


def _of_engine() -> bool:
    """Whether this is a thread of autograd's engine: one that Python has not started, in which a backward runs."""
    return isinstance(threading.current_thread(), threading._DummyThread) and backward_node() is not None
