"""The structure of a tree as JSON, and back without importing or running anything that a file names.

A node is null for None, `"*"` for a tensor, and else an object: `{"value": 3}` for a number or string,
`{"kind": "dict", "items": [[key, node], ...]}` for a container, with `"type": "module:qualname"` for a class.
"""

import dataclasses
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import _compat
from .errors import CheckpointError
from .tensorfile import stored
from .text import plain, restored

__all__ = ["PLACE", "check_tensor", "describe", "leaves_of", "name_of", "rebuild"]

_TENSOR = "*"
_BUILTIN: dict[type, str] = {dict: "dict", OrderedDict: "OrderedDict", list: "list", tuple: "tuple"}
_ADVICE = "Pass like=, a tree of the same structure, as in load(folder, like=ts)"


PLACE = object()
"""Stands for a tensor among the leaves of a described tree."""


def describe(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """The node of a tree, and its tensors by path.

    Raises `TypeError` for a leaf that no file can hold, and `ValueError` where two leaves have one path.
    """
    tensors: dict[str, Tensor] = {}
    seen: set[str] = set()
    return _describe(tree, "", tensors, seen), tensors


def _describe(tree: Any, path: str, tensors: dict[str, Tensor], seen: set[str]) -> Any:
    if tree is None:
        return None
    node = _compat.tree_node(tree)
    if node is not None:
        found = [
            (name, _describe(child, f"{path}.{name}" if path else name, tensors, seen))
            for name, child in _compat.tree_children(node, tree)
        ]
        return _container(tree, path, found)
    if path in seen:
        raise ValueError(
            f"two leaves have the path {path!r}, as 'a.b' and 'b' under 'a' would: rename one, so that it can be found."
        )
    seen.add(path)
    if isinstance(tree, Tensor):
        check_tensor(tree, path)
        tensors[path] = tree
        return _TENSOR
    return {"value": _number(tree, path)}


def _container(tree: Any, path: str, found: list[tuple[str, Any]]) -> Any:
    kind = _BUILTIN.get(type(tree))
    if isinstance(tree, dict):
        for key in tree:
            if kind is not None and type(key) not in (str, int, bool):
                raise TypeError(
                    f"{path!r} has the key {key!r}, a {type(key).__name__}: a checkpoint holds dicts whose keys are "
                    "strings or integers."
                )
        if kind is not None:
            return {"kind": kind, "items": [[key, node] for key, (_, node) in zip(tree, found, strict=True)]}
    if kind is not None:
        return {"kind": kind, "items": [node for _, node in found]}
    kind = "named" if isinstance(tree, tuple) else "object"
    if kind == "object" and dataclasses.is_dataclass(tree):
        # The registry leaves out fields that are None, whose default may be another.
        given = {name for name, _ in found}
        absent = [f.name for f in dataclasses.fields(tree) if f.name not in given]
        found += [(name, None) for name in absent if getattr(tree, name, 0) is None]
    return {"kind": kind, "type": name_of(type(tree)), "items": [[name, node] for name, node in found]}


def name_of(kind: type) -> str:
    """A class as a manifest names it."""
    return f"{kind.__module__}:{kind.__qualname__}"


def _number(value: Any, path: str) -> Any:
    if type(value) in (bool, int, float, str):
        return plain(value, repr(path))
    raise TypeError(
        f"{path!r} is {value!r}, a {type(value).__name__}: a checkpoint holds tensors, numbers and strings. Write "
        "torch.as_tensor(array) for an array, and keep functions and objects out of the tree."
    )


def check_tensor(tensor: Tensor, path: str) -> None:
    """Raise `TypeError` unless the tensor is an ordinary one, whose values can be read and written to a file."""
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        shape = tuple(tensor.shape)  # a donated tensor raises its own error here
        raise TypeError(
            f"{path!r} is a {type(tensor).__name__} of shape {shape}: a checkpoint holds ordinary tensors. Write "
            "tensor.full_tensor() for a DTensor, and save outside of tracing and fake modes."
        )
    if _compat.level_of(tensor) > 0:
        raise TypeError(f"{path!r} belongs to a torch.func transform: save outside of grad and vmap.")
    if tensor.is_meta:
        raise TypeError(f"{path!r} is on the meta device and has no values: make it first, as in model.init(key).")
    if tensor.layout != torch.strided or tensor.is_nested:
        raise TypeError(f"{path!r} is sparse or nested: a checkpoint holds dense tensors; write tensor.to_dense().")
    if stored(tensor.dtype, tensor.shape) is None:
        raise TypeError(
            f"{path!r} is {tensor.dtype}, which a safetensors file cannot hold: write tensor.int_repr(), and its "
            "scales beside it."
        )


def leaves_of(node: Any, path: str, file: Path) -> Iterator[tuple[str, Any]]:
    """The leaves of a node with their paths, `PLACE` for a tensor's place; `CheckpointError` for what is no node."""
    match node:
        case None:
            return
        case "*":
            yield path, PLACE
        case {"value": value}:
            value = restored(value)
            if type(value) not in (bool, int, float, str):
                raise CheckpointError(f"{file}: the leaf {path!r} is no number or string.")
            yield path, value
        case {"kind": str(kind), "items": [*items]}:
            for name, child in _named(kind, items, path, file):
                yield from leaves_of(child, f"{path}.{name}" if path else str(name), file)
        case _:
            raise CheckpointError(f"{file}: the tree has no valid node at {path!r}.")


def _named(kind: str, items: Sequence[Any], path: str, file: Path) -> list[tuple[Any, Any]]:
    if kind in ("list", "tuple"):
        return list(enumerate(items))
    if kind not in ("dict", "OrderedDict", "named", "object"):
        raise CheckpointError(f"{file}: {path!r} is of the unknown kind {kind!r}.")
    keys = (str, int) if kind in ("dict", "OrderedDict") else (str,)
    pairs = []
    for item in items:
        if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], keys):
            raise CheckpointError(f"{file}: {path!r}, a {kind}, has an item that is no pair of a name and a node.")
        pairs.append((item[0], item[1]))
    if len(dict(pairs)) != len(pairs):
        raise CheckpointError(f"{file}: {path!r}, a {kind}, has a name twice.")
    return pairs


def rebuild(node: Any, path: str, leaves: dict[str, Any], types: dict[str, type], file: Path) -> Any:
    """The tree of a node that `leaves_of` has checked, with these leaves by path.

    Classes are those in `types`, and those of funcnet that are imported already.
    """
    if node is None:
        return None
    if node == _TENSOR or "value" in node:  # as leaves_of decides, whatever else is there
        return leaves[path]
    kind = node["kind"]
    pairs = [
        (name, rebuild(child, f"{path}.{name}" if path else str(name), leaves, types, file))
        for name, child in _named(kind, node["items"], path, file)
    ]
    match kind:
        case "dict":
            return dict(pairs)
        case "OrderedDict":
            return OrderedDict(pairs)
        case "list":
            return [child for _, child in pairs]
        case "tuple":
            return tuple(child for _, child in pairs)
    cls = _class(node.get("type"), path, types, file)
    names = [name for name, _ in pairs]
    if kind == "named" and list(getattr(cls, "_fields", ())) == names and issubclass(cls, tuple):
        return cls(*(child for _, child in pairs))
    if kind == "object" and _takes(cls, set(names)):
        return cls(**dict(pairs))
    raise CheckpointError(f"{file}: {path!r} has the fields {names}, which {node.get('type')} lacks. {_ADVICE}.")


def _takes(cls: type, names: set[str]) -> bool:
    """Whether a class is a dataclass that is a tree, and is made from these fields."""
    if not dataclasses.is_dataclass(cls) or _compat.tree_node(object.__new__(cls)) is None:
        return False
    fields = [f for f in dataclasses.fields(cls) if f.init]
    needed = {f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING}
    return needed <= names <= {f.name for f in fields}


def _class(name: Any, path: str, types: dict[str, type], file: Path) -> type:
    if not isinstance(name, str):
        raise CheckpointError(f"{file}: {path!r} names no class.")
    if name in types:
        return types[name]
    module, _, qualname = name.partition(":")
    if module.split(".")[0] == "funcnet" and module in sys.modules:
        # Through the dicts: attribute access could run a module's own __getattr__, which may import.
        found: Any = sys.modules[module]
        for part in qualname.split("."):
            found = vars(found).get(part) if isinstance(found, type) or found is sys.modules[module] else None
        if isinstance(found, type) and name_of(found) == name:
            return found
    raise CheckpointError(
        f"{file}: {path!r} is a {name}, and nothing is imported because a file says so. {_ADVICE}, or allow the class: "
        f"load(folder, types=({qualname.rpartition('.')[2]},))."
    )
