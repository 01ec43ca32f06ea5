"""Schedules that others are made of: a constant, lines and powers, and one after another.

A schedule takes an int32 0-dim tensor (a Python integer works too), the first step's being 0, and returns a number or a
0-dim tensor. Lengths are counted in steps. Values may be 0-dim tensors, to be vmapped over or differentiated.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..arguments import function
from ..values import Scalar, Schedule, scalar
from .lengths import duration, number_of_steps

__all__ = ["constant_schedule", "join_schedules", "linear_schedule", "polynomial_schedule"]


def constant_schedule(value: Scalar) -> Schedule:
    """The same value at every step.

    >>> constant_schedule(0.1)(torch.tensor(7))
    0.1
    """
    scalar(value, "value")
    return lambda count: value


def polynomial_schedule(
    init_value: Scalar, end_value: Scalar, power: Scalar, transition_steps: int, transition_begin: int = 0
) -> Schedule:
    r"""From one value to another along a power, $(a - b) (1 - \min(1, \max(0, t - t_0) / n))^p + b$.

    It stays at `init_value` for `transition_begin` steps, and at `end_value` from `transition_begin + transition_steps`
    on. A negative `transition_begin` is 0, as in optax. Raises `TypeError` for values that are no numbers or 0-dim
    tensors, and `ValueError` where `transition_steps` is not positive, for which optax stays at `init_value`.

    >>> [polynomial_schedule(1.0, 0.0, 2, 4)(t).item() for t in range(6)]
    [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]
    """
    scalar(init_value, "init_value"), scalar(end_value, "end_value"), scalar(power, "power")
    duration(transition_steps, "transition_steps", "polynomial_schedule")
    number_of_steps(transition_begin, "transition_begin")
    begin = max(transition_begin, 0)

    def schedule(count: Tensor) -> Tensor:
        remaining = 1 - (torch.as_tensor(count) - begin).clamp(0, transition_steps) / transition_steps
        return (init_value - end_value) * remaining**power + end_value

    return schedule


def linear_schedule(
    init_value: Scalar, end_value: Scalar, transition_steps: int, transition_begin: int = 0
) -> Schedule:
    r"""From one value to another in a straight line, $a + (b - a) \min(1, \max(0, t - t_0) / n)$.

    It is `polynomial_schedule` with a `power` of 1, which tells the rest.

    >>> [linear_schedule(0.0, 1.0, 4)(t).item() for t in range(6)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """
    duration(transition_steps, "transition_steps", "linear_schedule")
    return polynomial_schedule(init_value, end_value, 1, transition_steps, transition_begin)


def join_schedules(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """One schedule after another: the next begins, at its own step 0, at each boundary.

    Raises `ValueError` unless there is one boundary less than schedules, none negative, in ascending order.

    >>> schedule = join_schedules([constant_schedule(1.0), linear_schedule(0.0, 1.0, 2)], [3])
    >>> [schedule(t).item() for t in range(6)]
    [1.0, 1.0, 1.0, 0.0, 0.5, 1.0]
    """
    schedules, boundaries = tuple(schedules), tuple(boundaries)
    for n, part in enumerate(schedules):
        function(part, f"schedules[{n}]", "optim.constant_schedule(0.1)")
    for n, boundary in enumerate(boundaries):
        number_of_steps(boundary, f"boundaries[{n}]")
    if len(boundaries) != len(schedules) - 1:
        raise ValueError(
            f"join_schedules got {len(schedules)} schedules and {len(boundaries)} boundaries, and needs one boundary "
            "between each two: join_schedules([warmup, decay], [1000])."
        )
    if list(boundaries) != sorted(boundaries) or any(boundary < 0 for boundary in boundaries):
        raise ValueError(
            f"join_schedules got boundaries={list(boundaries)}, and needs steps of the whole, none negative, in "
            "ascending order: phases of 100 and 200 steps end at [100, 300]."
        )

    def schedule(count: Tensor) -> Tensor:
        step = torch.as_tensor(count)
        value = torch.as_tensor(schedules[0](step))
        for boundary, following in zip(boundaries, schedules[1:], strict=True):
            value = torch.where(step < boundary, value, following(step - boundary))
        return value

    return schedule
