"""Let a function mode see inside torch's own Python functions.

torch hands a mode the whole of `F.multi_head_attention_forward` or `nn.init.kaiming_uniform_` as one call, and switches
the mode off while it runs, so that the draws inside would come from the global generator. A function is reopened by
a copy whose "does anyone override me?" test answers no: called with the mode on again, it runs its own body, and
every call in that body reaches the mode.
"""

import types
from collections.abc import Callable, Iterable
from typing import Any

import torch

__all__ = ["Overlay", "mentioning", "reopened", "rescoped"]

_TESTS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


def _no(*args: object) -> bool:
    return False


class Overlay:
    """A module with some attributes replaced."""

    def __init__(self, module: types.ModuleType, **replaced: object) -> None:
        """Take the module, and what stands in place of its attributes."""
        self._module = module
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> object:
        """The module's own."""
        return getattr(self._module, name)


_tests: dict[str, object] = dict.fromkeys(_TESTS, _no)
# torch.nn.init asks through the module rather than by an imported name.
_torch = Overlay(torch, overrides=Overlay(torch.overrides, **_tests))


def rescoped(func: types.FunctionType, **replaced: object) -> types.FunctionType:
    """A copy of a function that finds other values under some of its global names."""
    scope = {**func.__globals__, **replaced}
    # A named scope is looked up by torch.compile in the module of that name, where nothing is replaced.
    del scope["__name__"]
    copy = types.FunctionType(func.__code__, scope, func.__name__, func.__defaults__, func.__closure__)
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy


def reopened(func: types.FunctionType) -> Callable[..., Any]:
    """A replacement for `func` that runs its body with the mode on."""
    copy = rescoped(func, **_tests, torch=_torch)

    def replacement(mode: Any, /, *args: Any, **kwargs: Any) -> Any:
        with mode:
            return copy(*args, **kwargs)

    return replacement


def mentioning(module: types.ModuleType, names: Iterable[str]) -> dict[str, types.FunctionType]:
    """The functions of `module` that ask the mode, and mention one of `names` or a function that does so."""
    functions = {name: f for name, f in vars(module).items() if isinstance(f, types.FunctionType)}
    known, grew = set(names), True
    while grew:
        new = {name for name, f in functions.items() if name not in known and not known.isdisjoint(f.__code__.co_names)}
        known |= new
        grew = bool(new)
    return {
        name: f for name, f in functions.items() if name in known and not set(_TESTS).isdisjoint(f.__code__.co_names)
    }
