"""Let a function mode see inside torch's own Python functions.

torch hands a mode the whole of `F.multi_head_attention_forward` or `nn.init.kaiming_uniform_` as one call, and switches
the mode off while it runs, so that the draws inside would come from the global generator. A function is reopened by
a copy whose "does anyone override me?" test answers no: called with the mode on again, it runs its own body, and
every call in that body reaches the mode: through the mode's own stack, or, where that is known to be the same, by a
copy that calls the replacements itself and leaves the mode off (see `aside`).
"""

import types
from collections.abc import Callable, Iterable
from typing import Any

import torch

from funcnet.random.aside import TESTS, Overlay, aside, call_aside, rescoped

__all__ = ["mentioning", "reopened"]


def _no(*args: object) -> bool:
    return False


_tests: dict[str, object] = dict.fromkeys(TESTS, _no)
# torch.nn.init asks through the module rather than by an imported name.
_torch = Overlay(torch, overrides=Overlay(torch.overrides, **_tests))


def reopened(func: types.FunctionType) -> Callable[..., Any]:
    """A replacement for `func` that runs its body so that every call in it reaches the mode."""
    copy = rescoped(func, **_tests, torch=_torch)

    def replacement(mode: Any, /, *args: Any, **kwargs: Any) -> Any:
        ours = None if torch.compiler.is_compiling() else aside(copy, mode.__class__)
        if ours is None:
            with mode:
                return copy(*args, **kwargs)
        return call_aside(mode, ours, args, kwargs)

    return replacement


def mentioning(module: types.ModuleType, names: Iterable[str]) -> dict[str, types.FunctionType]:
    """The functions of `module` that ask the mode, and mention one of `names` or a function that does so."""
    functions = {name: f for name, f in vars(module).items() if isinstance(f, types.FunctionType)}
    known, grew = set(names), True
    while grew:
        new = {name for name, f in functions.items() if name not in known and not known.isdisjoint(f.__code__.co_names)}
        known |= new
        grew = bool(new)
    return {name: f for name, f in functions.items() if name in known and not TESTS.isdisjoint(f.__code__.co_names)}
