"""Transformations around transformations."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch

from ...tree import PyTree, flatten, unflatten
from ...tree.mismatch import match
from ..base import GradientTransformation, with_extra_args_support

__all__ = ["MaskedNode", "MaskedState", "masked"]


class MaskedNode(NamedTuple):
    """What lies in a masked tree where a leaf was taken out: a tree without leaves."""


class MaskedState(NamedTuple):
    """The state of a transformation that sees only some leaves."""

    inner_state: Any


def masked(
    inner: GradientTransformation,
    mask: PyTree | Callable[[PyTree], PyTree],
    *,
    outside: Literal["unchanged", "zero"],
) -> GradientTransformation:
    """Apply a transformation to the leaves at True; the updates of the others stay as they are, or become zero.

    Optax leaves them as they are, which for an optimizer adds whole gradients to the parameters: so `outside` must be
    given, "unchanged" within a chain, "zero" for what is to stay as it is. Better still, take frozen parameters out
    with `tree.split` before differentiating, which spares their gradients.

    Args:
        inner: sees trees in which `MaskedNode()` stands for the leaves at False.
        mask: a tree of booleans like the parameters, in which a boolean may also stand for a whole subtree, or a
            function from a tree to such a mask.
        outside: what becomes of the updates at False.

    Raises:
        ValueError: the mask has another structure, or `outside` is neither word.

    >>> import torch
    >>> from funcnet.optim import scale
    >>> rule = masked(scale(2.0), {"w": True, "b": False}, outside="unchanged")
    >>> params = {"w": torch.ones(1), "b": torch.ones(1)}
    >>> rule.update(params, rule.init(params), params)[0]
    {'w': tensor([2.]), 'b': tensor([1.])}
    """
    if outside not in ("unchanged", "zero"):
        raise ValueError(
            f'outside is {outside!r}, and must be "unchanged" or "zero": what the updates at False become.'
        )
    link = with_extra_args_support(inner)

    def init(params: PyTree) -> MaskedState:
        return MaskedState(inner_state=link.init(taken(params, chosen(mask, params))))

    def update(updates: PyTree, state: MaskedState, params: PyTree = None, **extra: Any) -> tuple[PyTree, MaskedState]:
        keep = chosen(mask, updates)
        values, treedef = flatten(updates)
        weights = params
        if params is not None:
            weights = taken(unflatten(treedef, match(params, updates, "params", "updates")), keep)
        new, inner_state = link.update(taken(updates, keep), state.inner_state, weights, **extra)
        changed = iter(flatten(new)[0])
        merged = [
            next(changed) if kept else value if outside == "unchanged" else torch.zeros_like(value)
            for kept, value in zip(keep, values, strict=True)
        ]
        return unflatten(treedef, merged), MaskedState(inner_state=inner_state)

    return GradientTransformation(init, update)


def chosen(mask: PyTree | Callable[[PyTree], PyTree], tree: PyTree) -> list[bool]:
    """The mask's boolean for every leaf of a tree, in the order of its leaves."""
    found: list[bool] = []
    _expand(mask(tree) if callable(mask) else mask, tree, "", found)
    return found


def taken(tree: PyTree, keep: list[bool]) -> PyTree:
    """The tree with `MaskedNode()` in the place of the leaves that are not kept."""
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
