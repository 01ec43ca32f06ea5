"""What a module's forward leaves behind in its attributes: taken back, so that the next call does not see it."""

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from itertools import chain
from operator import is_
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

__all__ = ["Attributes"]

_DICTS = ("__dict__", "_parameters", "_buffers", "_modules")
_CONTAINERS = (dict, OrderedDict, list, set, deque)
# Whose attributes are no memory of a forward's.
_OPAQUE = (Tensor, nn.Module, type, FunctionType, MethodType, ModuleType)


class Attributes:
    """The attributes of a module and its submodules as they were."""

    def __init__(self, module: nn.Module, bookkeeping: frozenset[str]) -> None:
        """Remember them; `bookkeeping` names what every module has."""
        owners = [getattr(submodule, kind) for submodule in module.modules() for kind in _DICTS]
        self._before = [(owner, tuple(owner), tuple(owner.values())) for owner in owners]
        self._owners, self._sizes = owners, [len(owner) for owner in owners]
        self._values = [value for owner in owners for value in owner.values()]
        own = [v for m in module.modules() for k, v in vars(m).items() if k not in bookkeeping]
        self._containers = [(c, _content(c)) for c in _containers(own, set())]

    def restore(self) -> bool:
        """Put every attribute back; False where a list, dict or object was written, which may be in use elsewhere."""
        # All in one go first, since nearly always nothing is left.
        found = chain.from_iterable(map(dict.values, self._owners))
        if list(map(len, self._owners)) != self._sizes or not all(map(is_, found, self._values)):
            for owner, names, values in self._before:
                if len(owner) != len(values) or not all(map(is_, owner.values(), values)):
                    owner.clear()
                    owner.update(zip(names, values, strict=True))
        return all(_same(_content(container), content) for container, content in self._containers)


def _containers(values: Iterable[Any], seen: set[int]) -> Iterator[Any]:
    """The builtin containers among some values, the attributes of plain objects, and those inside them."""
    for value in values:
        held: Any = value if type(value) in _CONTAINERS else getattr(value, "__dict__", None)
        if type(held) in _CONTAINERS and not isinstance(value, _OPAQUE) and id(value) not in seen:
            seen.add(id(value))
            yield held
            yield from _containers(held.values() if isinstance(held, dict) else held, seen)


def _content(container: Any) -> tuple[Any, ...]:
    return (*container, *container.values()) if isinstance(container, dict) else tuple(container)


def _same(now: tuple[Any, ...], before: tuple[Any, ...]) -> bool:
    return len(now) == len(before) and all(map(is_, now, before))
