"""Values found by name in the state of an optimizer, to read or to replace."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NoReturn, TypeAlias

from ...tree import PyTree, UnknownNameError
from .paths import Path, class_name, listed, name_of, opened, rebuilt

__all__ = ["AmbiguousNameError", "get", "get_all_with_path", "set"]

Filter: TypeAlias = Callable[[Path, Any], bool]


class AmbiguousNameError(KeyError):
    """A name that a tree has more than once."""

    __str__ = UnknownNameError.__str__


def get_all_with_path(tree: PyTree, key: Any, filtering: Filter | None = None) -> list[tuple[Path, Any]]:
    """All values of a name, with their paths; the outermost first.

    Args:
        tree: such as the state of an optimizer.
        key: the key of a dict, the field of a NamedTuple or a dataclass, or the name of a NamedTuple's class.
        filtering: `filtering(path, value)` tells which values to keep. A path is a tuple of steps, with jax's names
            and attributes: `NamedTupleKey(tuple_name, name)`, `DictKey(key)`, `SequenceKey(idx)`, `GetAttrKey(name)`.

    >>> from funcnet import optim
    >>> state = optim.chain(optim.adam(0.1), optim.scale_by_schedule(lambda count: 0.5)).init({"w": torch.ones(1)})
    >>> [("".join(str(step) for step in path), value) for path, value in get_all_with_path(state, "count")]
    [('[0][0]ScaleByAdamState.count', tensor(0, dtype=torch.int32)), \
('[1]ScaleByScheduleState.count', tensor(0, dtype=torch.int32))]
    """
    outer, inner = _found(tree, key, ())
    return [(path, value) for path, value in outer + inner if filtering is None or filtering(path, value)]


def get(tree: PyTree, key: Any, default: Any = None, filtering: Filter | None = None) -> Any:
    """The value of a name, or `default` where there is none; the arguments are those of `get_all_with_path`.

    Raises `AmbiguousNameError` (a `KeyError`) where there are several.

    >>> from funcnet import optim
    >>> get(optim.adam(0.1).init({"w": torch.ones(1)}), "nu")
    {'w': tensor([0.])}
    """
    found = get_all_with_path(tree, key, filtering)
    if len(found) > 1:
        raise AmbiguousNameError(
            f"get found {len(found)} values of {key!r}: {listed([path for path, _ in found])}. Take all with "
            "get_all_with_path, or one with filtering=lambda path, value: ..., which path[-1].tuple_name or the type "
            "of the value may tell apart."
        )
    return found[0][1] if found else default


def set(tree: PyTree, filtering: Filter | None = None, /, **kwargs: Any) -> PyTree:
    """The tree with other values of these names, wherever they are.

    `filtering` and what counts as a name are as in `get_all_with_path`. Optax passes over names that lie, behind a
    tuple or a list, within the value of a NamedTuple that has the name as well; here all are replaced.

    Raises `UnknownNameError` (a `KeyError`) for a name that the tree has not, or that `filtering` leaves nowhere.

    >>> from funcnet import optim
    >>> state = optim.adam(0.1).init({"w": torch.ones(1)})
    >>> get(set(state, count=torch.tensor(7)), "count")
    tensor(7)
    """
    for key in kwargs:
        if not get_all_with_path(tree, key, filtering):
            _refuse(tree, key)

    def passes(path: Path, value: Any) -> bool:
        return filtering is None or filtering(path, value)

    def replaced(node: Any, path: Path) -> Any:
        name = class_name(node)
        if name in kwargs and passes(path, node):
            return kwargs[name]
        new = []
        for step, child in opened(node):
            own, key = (*path, step), name_of(step)
            new.append(kwargs[key] if key in kwargs and passes(own, child) else replaced(child, own))
        return rebuilt(node, new)

    return replaced(tree, ())


def _found(node: Any, key: Any, path: Path) -> tuple[list[tuple[Path, Any]], list[tuple[Path, Any]]]:
    """The values of a name that lie within no other node that has it, and the rest."""
    children = [((*path, step), child) for step, child in opened(node)]
    named = [(own, child) for own, child in children if name_of(own[-1]) == key]
    if class_name(node) == key:
        named = [(path, node)]
    found = [_found(child, key, own) for own, child in children]
    if named:
        return named, [match for outer, inner in found for match in outer + inner]
    return [match for outer, _ in found for match in outer], [match for _, inner in found for match in inner]


def _refuse(tree: PyTree, key: str) -> NoReturn:
    paths = [path for path, _ in get_all_with_path(tree, key)]
    if paths:
        raise UnknownNameError(f"set found {key!r} at {listed(paths)}, and filtering passes none of them.")
    names = list(dict.fromkeys(str(name) for name in _names(tree)))
    near = get_close_matches(key, names, 3, 0.6) or names
    raise UnknownNameError(f"set found no {key!r} in the tree, which has {', '.join(near[:10]) or 'no names'}.")


def _names(node: Any) -> list[Any]:
    """Every name in a tree."""
    own = [class_name(node)] + [name_of(step) for step, _ in opened(node)]
    return [n for n in own if n is not None] + [n for _, child in opened(node) for n in _names(child)]
