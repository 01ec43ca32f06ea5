"""Transformations around transformations."""

from collections.abc import Callable
from types import UnionType
from typing import Any, Literal, NamedTuple

import torch

from ...tree import PyTree, flatten, structure, unflatten
from ...tree.mismatch import match
from ..arguments import stateful
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
    mask_compatible_extra_args: bool = False,
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
        mask_compatible_extra_args: whether `inner` sees further keywords that are trees like the updates (a Hessian's
            diagonal) without the leaves at False, too.

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
        own = taken_extra(extra, updates, keep) if mask_compatible_extra_args else extra
        seen = taken(updates, keep)
        new, inner_state = link.update(seen, state.inner_state, weights, **own)
        changed = iter(match(new, seen, "the new updates", "updates", shape=False))  # which may be in another order
        merged = [
            next(changed) if kept else value if outside == "unchanged" else torch.zeros_like(value)
            for kept, value in zip(keep, values, strict=True)
        ]
        return unflatten(treedef, merged), MaskedState(inner_state=inner_state)

    return stateful(MaskedState, init, update)


def chosen(mask: PyTree | Callable[[PyTree], PyTree], tree: PyTree) -> list[bool]:
    """The mask's boolean for every leaf of a tree, in the order of its leaves."""
    return spread(mask, tree, bool, "mask")


def spread(prefix: PyTree | Callable[[PyTree], PyTree], tree: PyTree, kind: type | UnionType, what: str) -> list[Any]:
    """For every leaf of a tree, what stands at its place or above it in a tree of values of some kind.

    Instead of that tree a function may be given that makes it. A tree without leaves asks nothing of it: `map_params`
    hands one to `init`.
    """
    found: list[Any] = []
    if flatten(tree)[0]:
        _expand(prefix(tree) if callable(prefix) else prefix, tree, "", kind, what, found)
    return found


def taken(tree: PyTree, keep: list[bool]) -> PyTree:
    """The tree with `MaskedNode()` in the place of the leaves that are not kept."""
    values, treedef = flatten(tree)
    return unflatten(treedef, [value if kept else MaskedNode() for kept, value in zip(keep, values, strict=True)])


def taken_extra(extra: dict[str, Any], updates: PyTree, keep: list[bool]) -> dict[str, Any]:
    """Further keywords of `update`, those that are trees like the updates without the leaves that are not kept."""
    like = structure(updates)
    return {name: taken(value, keep) if structure(value) == like else value for name, value in extra.items()}


def _expand(prefix: PyTree, tree: PyTree, path: str, kind: type | UnionType, what: str, found: list[Any]) -> None:
    if isinstance(prefix, kind):
        found.extend([prefix] * len(flatten(tree)[0]))
        return
    if isinstance(prefix, dict) and isinstance(tree, dict) and prefix.keys() == tree.keys():
        for key, child in tree.items():
            _expand(prefix[key], child, f"{path}.{key}" if path else str(key), kind, what, found)
        return
    if isinstance(prefix, list | tuple) and isinstance(tree, list | tuple) and len(prefix) == len(tree):
        for i, (one, child) in enumerate(zip(prefix, tree, strict=True)):
            _expand(one, child, f"{path}.{i}" if path else str(i), kind, what, found)
        return
    if prefix is None and tree is None:
        return
    where = repr(path) if path else "its root"
    raise ValueError(
        f"The {what} does not fit the parameters at {where}: it has {_described(prefix)}, they have "
        f"{_described(tree)}. Make it from the parameters: {_HOW[what]}, or one for a whole subtree."
    )


_HOW = {
    "mask": "tree.map(lambda p: p.ndim > 1, params), of True and False, not tensors",
    "tree of labels": "optim.labels_by_name({'*.bias': 'plain', '*.weight': 'decayed'}), of strings",
    "tree of dimension numbers": "tree.map(lambda p: MuonDimensionNumbers() if p.ndim == 2 else None, params)",
}


def _described(value: Any) -> str:
    if isinstance(value, dict):
        return "the keys " + ", ".join(repr(key) for key in list(value)[:5])
    return f"a {type(value).__name__}"
