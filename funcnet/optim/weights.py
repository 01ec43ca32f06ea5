"""Rules that look at the parameters' values: weight decay, and steps in proportion to them."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, cast

import torch

from ..tree import PyTree, flatten, unflatten
from ..tree.mismatch import match
from . import fast
from .base import EmptyState, GradientTransformation, needed, stateless
from .leafwise import each
from .numerics import safe_norm, safe_root_mean_squares
from .values import Scalar, ScalarOrSchedule, Schedule, increment, is_schedule, scalar, value_at, zero_count
from .wrappers.masking import masked

__all__ = [
    "AddDecayedWeightsState",
    "MaskOrFn",
    "WeightDecaySchedule",
    "add_decayed_weights",
    "scale_by_param_block_norm",
    "scale_by_param_block_rms",
]

AddDecayedWeightsState = EmptyState

MaskOrFn: TypeAlias = PyTree | Callable[[PyTree], PyTree] | None
"""Which leaves: a tree of booleans, of which one may stand for a subtree, or a function from the parameters to one."""


class WeightDecaySchedule(NamedTuple):
    """How many updates a schedule of weight decay has served."""

    count: torch.Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""


def add_decayed_weights(weight_decay: ScalarOrSchedule = 0.0, mask: MaskOrFn = None) -> GradientTransformation:
    r"""Add the parameters to the updates, $u \leftarrow u + \lambda \theta$ (Loshchilov and Hutter, arXiv:1711.05101).

    `weight_decay` may be a schedule. `mask` is a tree of booleans like the parameters (or a prefix of it), or a
    function from the parameters to one: only leaves at True decay. Raises `TreeMismatchError` where the updates do not
    match the parameters.

    >>> rule = add_decayed_weights(0.1, mask={"w": True, "b": False})
    >>> params = {"w": torch.ones(1), "b": torch.ones(1)}
    >>> rule.update({"w": torch.zeros(1), "b": torch.zeros(1)}, rule.init(params), params)[0]
    {'w': tensor([0.1000]), 'b': tensor([0.])}
    """
    scheduled = is_schedule(weight_decay, "weight_decay")
    constant, schedule = cast(Scalar, weight_decay), cast(Schedule, weight_decay)  # one of them, as `scheduled` tells

    def init(params: PyTree) -> WeightDecaySchedule | EmptyState:
        return WeightDecaySchedule(count=zero_count(params)) if scheduled else EmptyState()

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]:
        if not scheduled:
            return _decayed(updates, params, constant), state
        decay = value_at(schedule, state.count, "weight_decay")
        return _decayed(updates, params, decay), WeightDecaySchedule(count=increment(state.count))

    rule = GradientTransformation(init, update)
    return rule if mask is None else masked(rule, mask, outside="unchanged")


def _decayed(updates: PyTree, params: PyTree, decay: Scalar) -> PyTree:
    values, treedef = flatten(updates)
    weights = match(needed(params, "add_decayed_weights"), updates, "params", "updates")
    if (
        fast.usable(values, weights)
        and fast.is_constant(decay)
        and not isinstance(number := fast.number(decay), torch.Tensor)
    ):
        return unflatten(treedef, fast.add(values, weights, number))
    return unflatten(treedef, [(u + decay * p).to(u.dtype) for u, p in zip(values, weights, strict=True)])


def scale_by_param_block_norm(min_scale: Scalar = 1e-3) -> GradientTransformation:
    r"""Multiply each leaf's update by the leaf's length, $u = g \max(\lVert \theta \rVert, c)$.

    >>> rule = scale_by_param_block_norm()
    >>> rule.update({"w": torch.tensor([1.0, 2.0])}, rule.init(None), {"w": torch.tensor([3.0, 4.0])})[0]
    {'w': tensor([ 5., 10.])}
    """
    scalar(min_scale, "min_scale")

    def update(updates: PyTree, params: PyTree) -> PyTree:
        weights = needed(params, "scale_by_param_block_norm")
        return each(lambda g, p: g * safe_norm(p, min_scale), updates, weights, alone=True)[0]

    return stateless(update)


def scale_by_param_block_rms(min_scale: Scalar = 1e-3) -> GradientTransformation:
    r"""Multiply each leaf's update by the leaf's root mean square, or by `min_scale` where that is more.

    >>> rule = scale_by_param_block_rms()
    >>> rule.update({"w": torch.tensor([1.0, 2.0])}, rule.init(None), {"w": torch.tensor([3.0, -3.0])})[0]
    {'w': tensor([3., 6.])}
    """
    scalar(min_scale, "min_scale")

    def update(updates: PyTree, params: PyTree) -> PyTree:
        weights = needed(params, "scale_by_param_block_rms")
        return each(lambda g, p: g * safe_root_mean_squares(p, min_scale), updates, weights, alone=True)[0]

    return stateless(update)
