"""Torch's own Python code with a keyed mode off the stack, where it calls the mode's replacements itself.

A mode costs about 3 us for each torch function and each look at a shape, and nothing in the body of
`F.multi_head_attention_forward` concerns it but two calls of sixty. A copy of such a body that finds the replacements
under the functions' names gives the same results, and the function modes below see the same calls.
"""

import functools
import threading
import types
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

from torch import Tensor

__all__ = ["TESTS", "Overlay", "aside", "call_aside", "rescoped"]

TESTS = frozenset({"has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"})
_CALLED = (types.FunctionType, types.BuiltinFunctionType)


class Overlay:
    """A module with some attributes replaced."""

    def __init__(self, module: "types.ModuleType | Overlay", **replaced: object) -> None:
        """Take the module, and what stands in place of its attributes."""
        self._module = module
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> object:
        """The module's own."""
        return getattr(self._module, name)


def rescoped(func: types.FunctionType, **replaced: object) -> types.FunctionType:
    """A copy of a function that finds other values under some of its global names."""
    scope = {**func.__globals__, **replaced}
    # A named scope is looked up by torch.compile in the module of that name, where nothing is replaced.
    scope.pop("__name__", None)
    copy = types.FunctionType(func.__code__, scope, func.__name__, func.__defaults__, func.__closure__)
    copy.__kwdefaults__, copy.__module__ = func.__kwdefaults__, func.__module__
    return copy


class _Aside(threading.local):
    """The mode that is off the stack in this thread, and answers all the same."""

    mode: Any = None


_aside = _Aside()


def call_aside(mode: Any, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Call what `aside` made, while `mode` is off the stack; what it meets of the mode's table the mode answers."""
    before, _aside.mode = _aside.mode, mode
    try:
        return function(*args, **kwargs)
    finally:
        _aside.mode = before


@functools.cache
def aside(function: types.FunctionType, kind: Hashable) -> types.FunctionType | None:
    """A copy of one of torch's functions for `call_aside` with a mode of some kind, which has the class's table.

    Returns:
        The copy, the function itself where it calls nothing of the table, or None where that cannot be told (it calls
        a method that is in the table, such as `Tensor.uniform_`) and where the kind is to see every call.
    """
    mode: Any = kind
    return None if mode.watching else _copy(function, mode.table, ())


def _copy(
    function: types.FunctionType, table: Mapping[Any, Any], path: tuple[types.FunctionType, ...]
) -> types.FunctionType | None:
    names = set(_names(function.__code__))
    if any(f.__name__ in names and getattr(Tensor, f.__name__, None) is f for f in table):
        return None
    path = (*path, function)
    try:
        found = {
            name: _replaced(function.__globals__[name], names, table, path)
            for name in names & function.__globals__.keys()
        }
        held = [cell.cell_contents for cell in function.__closure__ or ()]
        if any(_replaced(value, names, table, path) is not value for value in held):
            return None
    except LookupError:
        return None
    replaced = {name: value for name, value in found.items() if value is not function.__globals__[name]}
    return rescoped(function, **replaced) if replaced else function


def _names(code: types.CodeType) -> Iterator[str]:
    """The names that a function looks up in its globals or on something, those of functions inside it too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _replaced(value: Any, names: set[str], table: Mapping[Any, Any], path: tuple[types.FunctionType, ...]) -> Any:
    """What stands for a global of one of torch's functions; the value itself where nothing in it is replaced.

    Raises:
        LookupError: it is a function that has no copy.
    """
    if isinstance(value, (types.ModuleType, Overlay)):
        mine = {name: getattr(value, name) for name in names if isinstance(getattr(value, name, None), _CALLED)}
        found = {name: _replaced(function, names, table, path) for name, function in mine.items()}
        found = {name: function for name, function in found.items() if function is not mine[name]}
        return Overlay(value, **found) if found else value
    if not isinstance(value, _CALLED):
        return value
    if value in table:
        return _answered(table[value])
    if not isinstance(value, types.FunctionType) or value in path or not _open(value):
        return value
    copy = _copy(value, table, path)
    if copy is None:
        raise LookupError
    return copy


def _open(function: types.FunctionType) -> bool:
    """Whether a mode sees inside a function of torch's; what asks for modes is handed to them as one call."""
    return (function.__module__ or "").startswith("torch") and TESTS.isdisjoint(function.__code__.co_names)


def _answered(replacement: Callable[..., Any]) -> Callable[..., Any]:
    def answer(*args: Any, **kwargs: Any) -> Any:
        return replacement(_aside.mode, *args, **kwargs)

    return answer
