"""torch's pytree registry."""

from collections import namedtuple
from typing import Any, cast

from torch.utils import _pytree

# Torch's key is the function itself. Looked up once: torch.compile knows no dict keyed by it.
_NAMED_TUPLE = _pytree.SUPPORTED_NODES[cast(type, namedtuple)]


def tree_node(value: Any) -> _pytree.NodeDef | None:
    """How torch's pytree registry opens and closes `value`, or None where `value` is a leaf.

    `SUPPORTED_NODES` maps a type to its flatten and unflatten functions; every NamedTuple shares the entry of
    `namedtuple`. The registry is the one that `torch.func`, `torch.compile` and `torch.export` use, so a type
    registered for them is a tree for us. Checked on 2.15.0.
    """
    node = _pytree.SUPPORTED_NODES.get(type(value))
    if node is None and isinstance(value, tuple) and getattr(type(value), "_fields", None) is not None:
        return _NAMED_TUPLE
    return node


def tree_children(node: _pytree.NodeDef, value: Any) -> list[tuple[str, Any]]:
    """The named children of `value`: dict key, field name or position. Checked on 2.15.0."""
    if node.flatten_with_keys_fn is None:
        return [(str(i), child) for i, child in enumerate(node.flatten_fn(value)[0])]
    pairs, _ = node.flatten_with_keys_fn(value)
    return [(_entry_name(entry), child) for entry, child in pairs]


def _entry_name(entry: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def register_dataclass(cls: type, drop_field_names: list[str]) -> None:
    """Register a dataclass in torch's pytree registry, less the named fields. Checked on 2.15.0."""
    _pytree.register_dataclass(cls, drop_field_names=drop_field_names)
