"""What a pytree is: opening one into leaves, naming the leaves by path, and closing it again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, TypeAlias, TypeVar

from torch import Tensor

from .. import _compat

__all__ = [
    "PyTree",
    "TreeDef",
    "flatten",
    "leaves",
    "leaves_with_path",
    "paths",
    "register_dataclass",
    "structure",
    "unflatten",
]

T = TypeVar("T")
PyTree: TypeAlias = Any
"""Nested dicts, lists, tuples, NamedTuples and registered dataclasses. None is a tree without leaves."""


@dataclass(frozen=True, slots=True)
class TreeDef:
    """A tree without its leaves: hashable, and equal to another where both order their leaves alike.

    The order of dict keys counts, since it is the order of the leaves.
    """

    kind: type | None  # None marks a leaf, NoneType an empty subtree
    context: Any = field(
        hash=False, repr=False
    )  # what the registry needs to rebuild the node: keys, default factory ...
    children: tuple["TreeDef", ...]
    node: Any = field(compare=False, hash=False, repr=False)  # the registry's entry for this node
    num_leaves: int = field(compare=False)


_LEAF = TreeDef(None, None, (), None, 1)
_NONE = TreeDef(NoneType, None, (), None, 0)


def flatten(tree: PyTree) -> tuple[list[Any], TreeDef]:
    """Take a tree apart into its leaves and its structure.

    Leaves come in the tree's own order: that of dict *insertion* (jax sorts the keys), position, field.
    Tensors, arrays, numbers and anything that is not registered are leaves; None is none.

    >>> flatten({"b": 1, "a": (2, None)})[0]
    [1, 2]
    """
    found: list[Any] = []
    return found, _open(tree, found)


def _open(tree: PyTree, found: list[Any]) -> TreeDef:
    if isinstance(tree, Tensor):  # the common case, without the registry
        found.append(tree)
        return _LEAF
    if tree is None:
        # torch's registry takes None for a leaf; a missing bias or an absent mask must not reach arithmetic.
        return _NONE
    node = _compat.tree_node(tree)
    if node is None:
        found.append(tree)
        return _LEAF
    before = len(found)
    children, context = node.flatten_fn(tree)
    definitions = []
    for child in children:
        if isinstance(child, Tensor):  # most children are, and a call costs more than all the rest
            found.append(child)
            definitions.append(_LEAF)
        else:
            definitions.append(_open(child, found))
    return TreeDef(type(tree), context, tuple(definitions), node, len(found) - before)


def unflatten(treedef: TreeDef, leaves: Iterable[Any]) -> PyTree:
    """Put leaves back into a structure: the inverse of `flatten`.

    Raises `ValueError` where the number of leaves differs.

    >>> values, treedef = flatten({"b": 1, "a": (2, None)})
    >>> unflatten(treedef, [10 * v for v in values])
    {'b': 10, 'a': (20, None)}
    """
    values = list(leaves)
    if len(values) != treedef.num_leaves:
        raise ValueError(
            f"unflatten got {len(values)} leaves for a structure of {treedef.num_leaves}: hand it the structure that "
            "flatten returned with these leaves, as in `leaves, treedef = tree.flatten(x)`."
        )
    return _close(treedef, values, 0)


def _close(treedef: TreeDef, values: Sequence[Any], start: int) -> PyTree:
    if treedef.kind is None:
        return values[start]
    if treedef.kind is NoneType:
        return None
    children = []
    for child in treedef.children:
        children.append(values[start] if child is _LEAF else _close(child, values, start))
        start += child.num_leaves
    return treedef.node.unflatten_fn(children, treedef.context)


def structure(tree: PyTree) -> TreeDef:
    """The structure of a tree, to compare or to `unflatten` into.

    >>> structure({"a": 1}) == structure({"a": 2.0}), structure((1,)) == structure([1])
    (True, False)
    """
    return flatten(tree)[1]


def _gather(tree: PyTree, found: list[Any]) -> None:
    kind = type(tree)
    if kind is dict:  # the registry would answer the same, in three times the time
        for child in tree.values():
            if isinstance(child, Tensor):
                found.append(child)
            else:
                _gather(child, found)
    elif tree is not None:
        node = _compat.tree_node(tree)
        if node is None:
            found.append(tree)
        else:
            for child in node.flatten_fn(tree)[0]:
                _gather(child, found)


def leaves(tree: PyTree) -> list[Any]:
    """The leaves of a tree, in the order of `flatten`.

    >>> leaves({"b": 1, "a": (2, None)})
    [1, 2]
    """
    found: list[Any] = []
    _gather(tree, found)
    return found


def leaves_with_path(tree: PyTree) -> list[tuple[str, Any]]:
    """The leaves with their paths: dict keys, positions and field names joined by dots. A lone leaf's path is empty.

    >>> leaves_with_path({"layer": {"weight": 1, "bias": None}, "heads": (2, 3)})
    [('layer.weight', 1), ('heads.0', 2), ('heads.1', 3)]
    """
    found: list[tuple[str, Any]] = []
    _walk(tree, "", found)
    return found


def _walk(tree: PyTree, path: str, found: list[tuple[str, Any]]) -> None:
    if tree is None:
        return
    node = _compat.tree_node(tree)
    if node is None:
        found.append((path, tree))
        return
    for name, child in _compat.tree_children(node, tree):
        _walk(child, f"{path}.{name}" if path else name, found)


def paths(tree: PyTree) -> list[str]:
    """The path of every leaf, in the order of `leaves`.

    >>> paths({"layer": {"weight": 1, "bias": 2}})
    ['layer.weight', 'layer.bias']
    """
    return [path for path, _ in leaves_with_path(tree)]


def register_dataclass(cls: type[T], *, drop: Sequence[str] = ()) -> type[T]:
    """Make a dataclass a tree, here and in `torch.func`, `torch.compile` and `torch.export` alike.

    Fields named in `drop` are not carried: a rebuilt object has their defaults. Use it as a decorator.

    >>> @register_dataclass
    ... @dataclass
    ... class Point:
    ...     x: float
    ...     y: float
    >>> paths(Point(1.0, 2.0))
    ['x', 'y']
    """
    _compat.register_dataclass(cls, list(drop))
    return cls
