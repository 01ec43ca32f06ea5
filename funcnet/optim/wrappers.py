"""Transformations around transformations."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ..tree import PyTree, flatten, unflatten
from ..tree.mismatch import match
from .base import GradientTransformation

__all__ = ["MaskedNode", "MaskedState", "masked"]


class MaskedNode(NamedTuple):
    """What lies in a masked tree where a leaf was taken out: a tree without leaves."""


class MaskedState(NamedTuple):
    """The state of a transformation that sees only some leaves."""

    inner_state: Any


def masked(inner: GradientTransformation, mask: PyTree | Callable[[PyTree], PyTree]) -> GradientTransformation:
    """Apply a transformation to the leaves at True, and leave the others as they are.

    `mask` is a tree of booleans like the parameters, in which a boolean may also stand for a whole subtree, or a
    function from a tree to such a mask. Raises `ValueError` where the mask has another structure.

    Masked leaves still get their own gradients as updates: to freeze parameters, take them out with `tree.split`
    before differentiating.

    >>> import torch
    >>> from funcnet.optim import scale
    >>> rule = masked(scale(2.0), {"w": True, "b": False})
    >>> params = {"w": torch.ones(1), "b": torch.ones(1)}
    >>> rule.update(params, rule.init(params), params)[0]
    {'w': tensor([2.]), 'b': tensor([1.])}
    """

    def chosen(tree: PyTree) -> list[bool]:
        given = mask(tree) if callable(mask) else mask
        found: list[bool] = []
        _expand(given, tree, "", found)
        return found

    def init(params: PyTree) -> MaskedState:
        return MaskedState(inner_state=inner.init(_taken(params, chosen(params))))

    def update(updates: PyTree, state: MaskedState, params: PyTree, **extra: Any) -> tuple[PyTree, MaskedState]:
        keep = chosen(updates)
        values, treedef = flatten(updates)
        weights = unflatten(treedef, match(params, updates, "params", "updates"))
        new, inner_state = inner.update(_taken(updates, keep), state.inner_state, _taken(weights, keep), **extra)
        changed = iter(flatten(new)[0])
        merged = [next(changed) if kept else value for kept, value in zip(keep, values, strict=True)]
        return unflatten(treedef, merged), MaskedState(inner_state=inner_state)

    return GradientTransformation(init, update)


def _taken(tree: PyTree, keep: list[bool]) -> PyTree:
    values, treedef = flatten(tree)
    return unflatten(treedef, [value if kept else MaskedNode() for kept, value in zip(keep, values, strict=True)])


def _expand(mask: PyTree, tree: PyTree, path: str, found: list[bool]) -> None:
    """The mask's boolean for every leaf of the tree, in the order of its leaves."""
    if isinstance(mask, bool):
        found.extend([mask] * len(flatten(tree)[0]))
        return
    if isinstance(mask, dict) and isinstance(tree, dict) and mask.keys() == tree.keys():
        for key, child in tree.items():
            _expand(mask[key], child, f"{path}.{key}" if path else str(key), found)
        return
    if isinstance(mask, list | tuple) and isinstance(tree, list | tuple) and len(mask) == len(tree):
        for i, (one, child) in enumerate(zip(mask, tree, strict=True)):
            _expand(one, child, f"{path}.{i}" if path else str(i), found)
        return
    if mask is None and tree is None:
        return
    where = repr(path) if path else "its root"
    raise ValueError(
        f"The mask does not fit the parameters at {where}: it has {_described(mask)}, they have {_described(tree)}. "
        "Make it from the parameters: tree.map(lambda p: p.ndim > 1, params), or one boolean for a whole subtree."
    )


def _described(value: Any) -> str:
    if isinstance(value, dict):
        return "the keys " + ", ".join(repr(key) for key in list(value)[:5])
    return f"a {type(value).__name__}"
