"""Updates times one number: a constant, a schedule, a learning rate."""

from typing import Any, NamedTuple

import torch

from ..tree import PyTree
from .arguments import stateful
from .base import Advancing, EmptyState, GradientTransformation, identity, stateless
from .leafwise import scaled, stepped
from .values import Scalar, ScalarOrSchedule, Schedule, increment, is_schedule, scalar, value_at, zero_count

__all__ = ["ScaleByScheduleState", "ScaleState", "scale", "scale_by_learning_rate", "scale_by_schedule"]

ScaleState = EmptyState


class ScaleByScheduleState(NamedTuple):
    """How many updates a schedule has served."""

    count: torch.Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""


def scale(step_size: Scalar) -> GradientTransformation:
    r"""Multiply every update by one number, $u \leftarrow s u$.

    Raises `ValueError` for a `step_size` with axes, `TypeError` for what is no number.

    >>> scale(-0.5).update({"w": torch.ones(2)}, (), {"w": torch.zeros(2)})[0]
    {'w': tensor([-0.5000, -0.5000])}
    """
    scalar(step_size, "step_size")
    rule = stateless(lambda updates, params: scaled(updates, step_size))

    def advancing(
        updates: PyTree, state: EmptyState, params: PyTree, donate: bool, **extra: Any
    ) -> tuple[PyTree, EmptyState]:
        return stepped(params, updates, step_size, donate), state

    return Advancing.of(rule, advancing)


def scale_by_schedule(step_size_fn: Schedule) -> GradientTransformation:
    r"""Multiply the updates by a function of the step count, $u_t \leftarrow s(t) u_t$ with $t = 0, 1, \ldots$

    >>> halving = scale_by_schedule(lambda count: 0.5**count)
    >>> state = halving.init({"w": torch.ones(1)})
    >>> for _ in range(3):
    ...     updates, state = halving.update({"w": torch.ones(1)}, state, {"w": torch.ones(1)})
    >>> updates["w"], state.count
    (tensor([0.2500]), tensor(3, dtype=torch.int32))
    """
    is_schedule(step_size_fn, "step_size_fn")

    def init(params: PyTree) -> ScaleByScheduleState:
        return ScaleByScheduleState(count=zero_count(params))

    def update(
        updates: PyTree, state: ScaleByScheduleState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleByScheduleState]:
        step_size = value_at(step_size_fn, state.count, "step_size_fn")
        return scaled(updates, step_size), ScaleByScheduleState(count=increment(state.count))

    def advancing(
        updates: PyTree, state: ScaleByScheduleState, params: PyTree, donate: bool, **extra: Any
    ) -> tuple[PyTree, ScaleByScheduleState]:
        step_size = value_at(step_size_fn, state.count, "step_size_fn")
        return stepped(params, updates, step_size, donate), ScaleByScheduleState(count=increment(state.count))

    return Advancing.of(stateful(ScaleByScheduleState, init, update), advancing)


def scale_by_learning_rate(
    learning_rate: ScalarOrSchedule | None = None, *, flip_sign: bool = True
) -> GradientTransformation:
    """Multiply the updates by minus the learning rate: a number, a 0-dim tensor, or a schedule. None changes nothing.

    With `flip_sign=False` it is not negated. The state counts steps for a schedule, and is empty for a constant.

    >>> scale_by_learning_rate(0.1).update({"w": torch.ones(1)}, (), {"w": torch.ones(1)})[0]
    {'w': tensor([-0.1000])}
    """
    if learning_rate is None:
        return identity()
    sign = -1 if flip_sign else 1
    if is_schedule(learning_rate, "learning_rate"):
        schedule = learning_rate
        return scale_by_schedule(lambda count: sign * schedule(count))
    return scale(sign * learning_rate)
