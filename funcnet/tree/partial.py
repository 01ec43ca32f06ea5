"""Trees in which None stands for a missing leaf, or for a whole subtree of such."""

from typing import Any

from .. import _compat
from .mapping import map
from .mismatch import match
from .structure import PyTree

__all__ = ["partial_leaves"]


class _Missing:
    def __repr__(self) -> str:
        return "None"


_MISSING = _Missing()


def partial_leaves(got: PyTree, want: PyTree, what: str, against: str) -> list[Any]:
    """The leaves of `got` in the order of `want`, with None for each that `got` leaves out.

    Raises `TreeMismatchError` where the structures differ in more than that; shapes may differ.

    >>> partial_leaves({"b": None, "a": 1}, {"a": 0, "b": (0, 0)}, "gradients", "params")
    [1, None, None]
    """
    return [None if leaf is _MISSING else leaf for leaf in match(_filled(got, want), want, what, against, shape=False)]


def _filled(got: PyTree, want: PyTree) -> PyTree:
    if got is None:
        return map(lambda _: _MISSING, want)
    if isinstance(got, dict) and isinstance(want, dict):
        return {key: _filled(value, want[key]) if key in want else value for key, value in got.items()}
    node = _compat.tree_node(got)
    if node is None or type(got) is not type(want):
        return got
    (children, context), (wanted, _) = node.flatten_fn(got), node.flatten_fn(want)
    if len(children) != len(wanted):
        return got
    return node.unflatten_fn([_filled(child, other) for child, other in zip(children, wanted, strict=True)], context)
