"""Trees opened one level at a time, with steps that know more than a position: what names are looked up in."""

from dataclasses import dataclass
from typing import Any, TypeAlias

from ... import _compat

__all__ = [
    "DictKey",
    "GetAttrKey",
    "NamedTupleKey",
    "Path",
    "SequenceKey",
    "Step",
    "class_name",
    "listed",
    "name_of",
    "opened",
    "rebuilt",
]


@dataclass(frozen=True)
class NamedTupleKey:
    """The step of a path into the field of a NamedTuple."""

    tuple_name: str
    """the NamedTuple's"""
    name: str
    """the field's"""

    def __str__(self) -> str:
        """As in `ScaleByAdamState.count`."""
        return f"{self.tuple_name}.{self.name}"


@dataclass(frozen=True)
class DictKey:
    """The step of a path into a dict."""

    key: Any

    def __str__(self) -> str:
        """As in `['learning_rate']`."""
        return f"[{self.key!r}]"


@dataclass(frozen=True)
class SequenceKey:
    """The step of a path into a list or a tuple."""

    idx: int

    def __str__(self) -> str:
        """As in `[0]`."""
        return f"[{self.idx}]"


@dataclass(frozen=True)
class GetAttrKey:
    """The step of a path into the field of a dataclass."""

    name: str

    def __str__(self) -> str:
        """As in `.params`."""
        return f".{self.name}"


Step: TypeAlias = NamedTupleKey | DictKey | SequenceKey | GetAttrKey
Path: TypeAlias = tuple[Step, ...]


def opened(node: Any) -> list[tuple[Step, Any]]:
    """The children of a node, each with the step that leads to it; none where it is a leaf."""
    kind = _compat.tree_node(node)
    if kind is None:
        return []
    steps: list[Step]
    if class_name(node) is not None:
        steps = [NamedTupleKey(type(node).__name__, field) for field in node._fields]
    elif isinstance(node, dict):
        steps = [DictKey(key) for key in node]
    elif isinstance(node, list | tuple):
        steps = [SequenceKey(i) for i in range(len(node))]
    else:
        steps = [GetAttrKey(name) for name, _ in _compat.tree_children(kind, node)]
    return list(zip(steps, kind.flatten_fn(node)[0], strict=True))


def rebuilt(node: Any, children: list[Any]) -> Any:
    """The node with other children."""
    kind = _compat.tree_node(node)
    return node if kind is None else kind.unflatten_fn(children, kind.flatten_fn(node)[1])


def class_name(node: Any) -> str | None:
    """The name of a NamedTuple's class."""
    return type(node).__name__ if isinstance(node, tuple) and hasattr(node, "_fields") else None


def name_of(step: Step) -> Any:
    """What a step is found by; None for a position."""
    return step.key if isinstance(step, DictKey) else getattr(step, "name", None)


def listed(paths: list[Path]) -> str:
    """Paths as messages show them."""
    return ", ".join("".join(str(step) for step in path) or "its root" for path in paths)
