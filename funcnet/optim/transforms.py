"""The links that most chains share: scaling, learning rates, weight decay, clipping."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from ..tree import PyTree, flatten, global_norm, map, unflatten
from ..tree.mismatch import match
from . import fast
from .base import (
    EmptyState,
    GradientTransformation,
    Scalar,
    ScalarOrSchedule,
    Schedule,
    identity,
    increment,
    init_empty,
    is_schedule,
    scalar,
    scaled,
    value_at,
    zero_count,
)
from .wrappers import masked

__all__ = [
    "ScaleByScheduleState",
    "WeightDecaySchedule",
    "add_decayed_weights",
    "clip_by_global_norm",
    "scale",
    "scale_by_learning_rate",
    "scale_by_schedule",
]


class ScaleByScheduleState(NamedTuple):
    """How many updates a schedule has served."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""


class WeightDecaySchedule(NamedTuple):
    """How many updates a schedule of weight decay has served."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""


def scale(step_size: Scalar) -> GradientTransformation:
    r"""Multiply every update by one number, $u \leftarrow s u$.

    Raises `ValueError` for a `step_size` with axes, `TypeError` for what is no number.

    >>> scale(-0.5).update({"w": torch.ones(2)}, EmptyState(), {"w": torch.zeros(2)})[0]
    {'w': tensor([-0.5000, -0.5000])}
    """
    scalar(step_size, "step_size")
    return GradientTransformation(
        init_empty, lambda updates, state, params, **extra: (scaled(updates, step_size), state)
    )


def scale_by_schedule(step_size_fn: Schedule) -> GradientTransformation:
    r"""Multiply the updates by a function of the step count, $u_t \leftarrow s(t) u_t$ with $t = 0, 1, \ldots$

    >>> halving = scale_by_schedule(lambda count: 0.5**count)
    >>> state = halving.init({"w": torch.ones(1)})
    >>> for _ in range(3):
    ...     updates, state = halving.update({"w": torch.ones(1)}, state, {"w": torch.ones(1)})
    >>> updates["w"], state.count
    (tensor([0.2500]), tensor(3, dtype=torch.int32))
    """

    def init(params: PyTree) -> ScaleByScheduleState:
        return ScaleByScheduleState(count=zero_count(params))

    def update(
        updates: PyTree, state: ScaleByScheduleState, params: PyTree, **extra: Any
    ) -> tuple[PyTree, ScaleByScheduleState]:
        step_size = value_at(step_size_fn, state.count, "step_size_fn")
        return scaled(updates, step_size), ScaleByScheduleState(count=increment(state.count))

    return GradientTransformation(init, update)


def scale_by_learning_rate(
    learning_rate: ScalarOrSchedule | None = None, *, flip_sign: bool = True
) -> GradientTransformation:
    """Multiply the updates by minus the learning rate: a number, a 0-dim tensor, or a schedule. None changes nothing.

    With `flip_sign=False` it is not negated. The state counts steps for a schedule, and is empty for a constant.

    >>> scale_by_learning_rate(0.1).update({"w": torch.ones(1)}, EmptyState(), {"w": torch.ones(1)})[0]
    {'w': tensor([-0.1000])}
    """
    if learning_rate is None:
        return identity()
    sign = -1 if flip_sign else 1
    if is_schedule(learning_rate, "learning_rate"):
        schedule = learning_rate
        return scale_by_schedule(lambda count: sign * schedule(count))
    return scale(sign * learning_rate)


def add_decayed_weights(
    weight_decay: ScalarOrSchedule = 0.0, mask: PyTree | Callable[[PyTree], PyTree] | None = None
) -> GradientTransformation:
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

    def update(updates: PyTree, state: Any, params: PyTree, **extra: Any) -> tuple[PyTree, Any]:
        if not scheduled:
            return _decayed(updates, params, constant), state
        decay = value_at(schedule, state.count, "weight_decay")
        return _decayed(updates, params, decay), WeightDecaySchedule(count=increment(state.count))

    rule = GradientTransformation(init, update)
    return rule if mask is None else masked(rule, mask)


def _decayed(updates: PyTree, params: PyTree, decay: Scalar) -> PyTree:
    values, treedef = flatten(updates)
    weights = match(params, updates, "params", "updates")
    if (
        fast.usable(values, weights)
        and fast.is_constant(decay)
        and not isinstance(number := fast.number(decay), Tensor)
    ):
        return unflatten(treedef, fast.add(values, weights, number))
    return unflatten(treedef, [(u + decay * p).to(u.dtype) for u, p in zip(values, weights, strict=True)])


def clip_by_global_norm(max_norm: Scalar) -> GradientTransformation:
    r"""Shorten the updates, taken as one vector, to at most `max_norm`: $u \leftarrow u \min(1, c / \lVert u \rVert)$.

    Updates shorter than `max_norm` come back unchanged to the bit; non-finite updates stay non-finite (Pascanu et al.,
    arXiv:1211.5063). The norm is taken in float32 for half-precision leaves.

    >>> updates, _ = clip_by_global_norm(1.0).update({"w": torch.tensor([3.0, 4.0])}, EmptyState(), None)
    >>> updates["w"]
    tensor([0.6000, 0.8000])
    """
    scalar(max_norm, "max_norm")

    def update(updates: PyTree, state: EmptyState, params: PyTree, **extra: Any) -> tuple[PyTree, EmptyState]:
        norm = global_norm(updates)
        short = norm < max_norm
        # `where` selects, so neither the quotient's value nor its gradient enters where nothing is clipped; the inner
        # one keeps that unused gradient finite where the norm is zero.
        length = torch.where(short, torch.ones_like(norm), norm)

        def clipped(leaf: Tensor) -> Tensor:
            return torch.where(short, leaf, (leaf / length * max_norm).to(leaf.dtype))

        return map(clipped, updates), state

    return GradientTransformation(init_empty, update)
