"""Flattening to a structure that is already known: what `tree.flatten` does, at a fraction of its cost a call.

A compiled step is called with the same tree thousands of times. A reader made once for its structure takes the
leaves out, and finds out on the way whether the structure still holds.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import NoneType
from typing import Any

from funcnet import tree
from funcnet.tree import TreeDef

__all__ = ["MismatchError", "make_builder", "make_reader"]

Reader = Callable[[Any, list[Any]], None]
Builder = Callable[[Iterator[Any]], Any]


class MismatchError(Exception):
    """A tree did not have the structure that a reader was made for."""


def make_reader(treedef: TreeDef) -> Reader:
    """A function that appends the leaves of a tree to a list, or raises `MismatchError`.

    >>> found = []
    >>> make_reader(tree.structure({"a": 1, "b": (2, 3)}))({"a": 4, "b": (5, 6)}, found)
    >>> found
    [4, 5, 6]
    """
    kind = treedef.kind
    if kind is None:
        return _read_leaf
    if kind is NoneType:
        return _read_none
    flat = all(child.kind is None for child in treedef.children)
    if kind in (dict, OrderedDict):
        return _dict_reader(treedef, flat)
    if kind in (tuple, list) or (issubclass(kind, tuple) and hasattr(kind, "_fields")):
        return _sequence_reader(treedef, flat)
    return _registered_reader(treedef)


def _read_leaf(value: Any, found: list[Any]) -> None:
    found.append(value)


def _read_none(value: Any, found: list[Any]) -> None:
    if value is not None:
        raise MismatchError


def _dict_reader(treedef: TreeDef, flat: bool) -> Reader:
    kind: Any = treedef.kind  # any type of dict; as `type`, comparing with it would narrow the value to object
    keys = tuple(treedef.context)  # whose order counts: what is made of all leaves follows it
    if flat:

        def read_flat(value: Any, found: list[Any]) -> None:
            if type(value) is not kind or tuple(value) != keys:
                raise MismatchError
            found.extend(value.values())

        return read_flat
    readers = [make_reader(child) for child in treedef.children]

    def read(value: Any, found: list[Any]) -> None:
        if type(value) is not kind or tuple(value) != keys:
            raise MismatchError
        for child, reader in zip(value.values(), readers, strict=True):
            reader(child, found)

    return read


def _sequence_reader(treedef: TreeDef, flat: bool) -> Reader:
    kind: Any = treedef.kind  # as in _dict_reader
    size = len(treedef.children)
    readers = [make_reader(child) for child in treedef.children]

    def read(value: Any, found: list[Any]) -> None:
        if type(value) is not kind or len(value) != size:
            raise MismatchError
        if flat:
            found.extend(value)
        else:
            for child, reader in zip(value, readers, strict=True):
                reader(child, found)

    return read


def _registered_reader(treedef: TreeDef) -> Reader:
    def read(value: Any, found: list[Any]) -> None:
        leaves, structure = tree.flatten(value)
        if structure != treedef:
            raise MismatchError
        found.extend(leaves)

    return read


def make_builder(treedef: TreeDef) -> Builder:
    """A function that puts the leaves of an iterator back into the structure.

    >>> make_builder(tree.structure({"a": 1, "b": (2, None)}))(iter([7, 8]))
    {'a': 7, 'b': (8, None)}
    """
    kind = treedef.kind
    if kind is None:
        return next
    if kind is NoneType:
        return lambda leaves: None
    builders = [make_builder(child) for child in treedef.children]
    if kind is dict:
        keys = tuple(treedef.context)
        if all(child.kind is None for child in treedef.children):
            return lambda leaves: dict(zip(keys, leaves, strict=False))  # the keys come first, and end it
        return lambda leaves: {key: build(leaves) for key, build in zip(keys, builders, strict=True)}
    if kind is tuple:
        return lambda leaves: tuple([build(leaves) for build in builders])
    if kind is list:
        return lambda leaves: [build(leaves) for build in builders]
    node, context = treedef.node, treedef.context
    return lambda leaves: node.unflatten_fn([build(leaves) for build in builders], context)
