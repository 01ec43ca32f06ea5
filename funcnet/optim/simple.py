"""Transformations that remember nothing, leaf by leaf."""

from collections.abc import Callable
from typing import Any

import torch

from ..tree import PyTree, flatten, map, unflatten
from ..tree.mismatch import match
from .base import GradientTransformation, stateless

__all__ = ["set_to_zero", "stateless_with_tree_map"]


def set_to_zero() -> GradientTransformation:
    """Make every update zero, so that what it is chained or partitioned to stays as it is.

    >>> set_to_zero().update({"w": torch.ones(2)}, ())[0]
    {'w': tensor([0., 0.])}
    """
    return stateless(lambda updates, params: map(torch.zeros_like, updates))


def stateless_with_tree_map(f: Callable[[Any, Any], Any]) -> GradientTransformation:
    """The transformation of a function of one leaf, `f(g, p) -> g`; `p` is None where no parameters are given.

    Raises `TreeMismatchError` where the updates do not match the parameters.

    >>> rule = stateless_with_tree_map(lambda g, p: g * p)
    >>> rule.update({"w": torch.ones(1)}, rule.init(None), {"w": torch.tensor([3.0])})[0]
    {'w': tensor([3.])}
    """

    def over_leaves(updates: PyTree, params: PyTree) -> PyTree:
        if params is None:
            return map(lambda g: f(g, None), updates)
        values, treedef = flatten(updates)
        weights = match(params, updates, "params", "updates")
        return unflatten(treedef, [f(g, p) for g, p in zip(values, weights, strict=True)])

    return stateless(over_leaves)
