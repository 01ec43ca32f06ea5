"""Whether modules are equal but for the values of their tensors, and if not, where they first differ."""

import functools
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["Difference", "difference"]


class Difference(NamedTuple):
    """The first place, by path from the modules, at which two of them differ, and what is there."""

    path: str
    mine: str
    theirs: str


_Seen = set[tuple[int, int]]

_HOOKS = frozenset(name for name in vars(nn.Module()) if name.endswith("hooks"))
# What a module keeps of itself that is compared by other means, or says nothing of what it computes.
_APART = _HOOKS | {"_parameters", "_buffers", "_modules", "training"}
_CONTAINERS = (list, tuple, set, frozenset)


def difference(mine: nn.Module, theirs: nn.Module) -> Difference | None:
    """The first difference of two modules: in class, submodules, attributes, hooks, shapes and dtypes of tensors."""
    return next(_modules(mine, theirs, "", set()), None)


def _modules(mine: nn.Module, theirs: nn.Module, path: str, seen: _Seen) -> Iterator[Difference]:
    kinds = [parametrize.type_before_parametrizations(module) for module in (mine, theirs)]
    if kinds[0] is not kinds[1]:
        yield Difference(path, kinds[0].__qualname__, kinds[1].__qualname__)
        return
    yield from _mappings(mine._modules, theirs._modules, path, seen)
    for kind in ("_parameters", "_buffers"):
        yield from _mappings(getattr(mine, kind), getattr(theirs, kind), path, seen)
    own, others = ({k: v for k, v in vars(module).items() if k not in _APART} for module in (mine, theirs))
    yield from _mappings(own, others, path, seen)
    for name in sorted(_HOOKS & vars(mine).keys()):  # each is kept under a number of its own
        yield from _sequences([*vars(mine)[name].values()], [*vars(theirs)[name].values()], _at(path, name), seen)


def _at(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _mappings(mine: Mapping[Any, Any], theirs: Mapping[Any, Any], path: str, seen: _Seen) -> Iterator[Difference]:
    for key in {**mine, **theirs}:
        if key not in mine or key not in theirs:
            has = ("there", "missing") if key in mine else ("missing", "there")
            yield Difference(_at(path, key), *has)
        else:
            yield from _values(mine[key], theirs[key], _at(path, key), seen)


def _sequences(mine: Sequence[Any], theirs: Sequence[Any], path: str, seen: _Seen) -> Iterator[Difference]:
    if len(mine) != len(theirs):
        yield Difference(path, f"of length {len(mine)}", f"of length {len(theirs)}")
    for place, pair in enumerate(zip(mine, theirs, strict=False)):
        yield from _values(*pair, _at(path, place), seen)


def _values(mine: Any, theirs: Any, path: str, seen: _Seen) -> Iterator[Difference]:
    """The differences of two attributes, of whatever kind."""
    if mine is theirs or (id(mine), id(theirs)) in seen:
        return
    seen.add((id(mine), id(theirs)))
    if isinstance(mine, nn.Module) and isinstance(theirs, nn.Module):
        yield from _modules(mine, theirs, path, seen)
    elif isinstance(mine, Tensor) and isinstance(theirs, Tensor):
        if _words(mine) != _words(theirs):
            yield Difference(path, _words(mine), _words(theirs))
    elif type(mine) is not type(theirs):
        yield Difference(path, _words(mine), _words(theirs))
    elif isinstance(mine, Mapping):
        yield from _mappings(mine, theirs, path, seen)
    elif isinstance(mine, (list, tuple)):
        yield from _sequences(mine, theirs, path, seen)
    elif not _same(mine, theirs):
        parts = _parts(mine), _parts(theirs)
        if not parts[0]:
            yield Difference(path, _words(mine), _words(theirs))
        yield from _mappings(*parts, path, seen)


def _words(value: Any) -> str:
    """An attribute in words; those of tensors are equal where the tensors are equal but for their values."""
    if not isinstance(value, Tensor):
        return type(value).__name__ if isinstance(value, nn.Module) else repr(value)
    kind = "a parameter" if isinstance(value, nn.Parameter) else "a tensor"
    frozen = ", frozen" if isinstance(value, nn.Parameter) and not value.requires_grad else ""
    return f"{kind} of shape {tuple(value.shape)} and {value.dtype}{frozen}"


def _same(mine: Any, theirs: Any) -> bool:
    """Whether two values of one type say that they are equal."""
    try:
        equal = mine == theirs
        return bool(equal.all() if hasattr(equal, "all") else equal)  # an array's answer is an array
    except Exception:  # a comparison of someone else's may raise anything, and then says nothing
        return False


def _parts(value: Any) -> dict[str, Any]:
    """What makes up a value that has no equality of its own: of a function its code and all that it holds."""
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return {"__code__": value.__code__, "__defaults__": value.__defaults__, "__closure__": cells}
    if isinstance(value, types.MethodType):
        return {"__func__": value.__func__, "__self__": value.__self__}
    if isinstance(value, functools.partial):
        return {"func": value.func, "args": value.args, "keywords": value.keywords}
    return getattr(value, "__dict__", {})
