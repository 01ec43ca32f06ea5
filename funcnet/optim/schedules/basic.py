"""Functions of the step count: learning rates that change.

A schedule takes an int32 0-dim tensor (a Python integer works too), the first step's being 0, and returns a number or a
0-dim tensor. Lengths are counted in steps. Values may be 0-dim tensors, to be vmapped over or differentiated.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..values import Scalar, Schedule

__all__ = [
    "constant_schedule",
    "cosine_decay_schedule",
    "join_schedules",
    "linear_schedule",
    "warmup_cosine_decay_schedule",
]


def constant_schedule(value: Scalar) -> Schedule:
    """The same value at every step.

    >>> constant_schedule(0.1)(torch.tensor(7))
    0.1
    """
    return lambda count: value


def linear_schedule(
    init_value: Scalar, end_value: Scalar, transition_steps: int, transition_begin: int = 0
) -> Schedule:
    r"""From one value to another in a straight line, $a + (b - a) \min(1, \max(0, t - t_0) / n)$.

    It stays at `init_value` for `transition_begin` steps, and at `end_value` from `transition_begin + transition_steps`
    on. A `transition_steps` of 0 or less gives the constant `init_value`, as in optax.

    >>> [round(linear_schedule(0.0, 1.0, 4)(t).item(), 2) for t in range(6)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """
    if transition_steps <= 0:
        return constant_schedule(init_value)
    begin = max(transition_begin, 0)

    def schedule(count: Tensor) -> Tensor:
        remaining = 1 - (torch.as_tensor(count) - begin).clamp(0, transition_steps) / transition_steps
        return (init_value - end_value) * remaining + end_value

    return schedule


def cosine_decay_schedule(
    init_value: Scalar, decay_steps: int, alpha: Scalar = 0.0, exponent: Scalar = 1.0
) -> Schedule:
    r"""Half a cosine, from `init_value` down to `alpha * init_value` (Loshchilov and Hutter, arXiv:1608.03983).

    $$v \left( (1 - \alpha) \left( \tfrac12 (1 + \cos (\pi \min(t, n) / n)) \right)^p + \alpha \right)$$

    Raises `ValueError` where `decay_steps` is not positive.

    >>> [round(cosine_decay_schedule(1.0, 4)(t).item(), 2) for t in range(6)]
    [1.0, 0.85, 0.5, 0.15, 0.0, 0.0]
    """
    if not decay_steps > 0:
        raise ValueError(
            f"cosine_decay_schedule got decay_steps={decay_steps}, and needs at least 1: the number of steps from "
            "init_value to alpha * init_value. For no decay write constant_schedule(value)."
        )

    def schedule(count: Tensor) -> Tensor:
        fraction = torch.as_tensor(count).clamp(max=decay_steps) / decay_steps
        wave = (0.5 * (1 + torch.cos(math.pi * fraction))) ** exponent
        return init_value * ((1 - alpha) * wave + alpha)

    return schedule


def warmup_cosine_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: int,
    decay_steps: int,
    end_value: Scalar = 0.0,
    exponent: Scalar = 1.0,
) -> Schedule:
    """A straight line from `init_value` to `peak_value`, then half a cosine to `end_value`.

    `decay_steps` is the length of the whole, warm-up included, so it must exceed `warmup_steps`; else `ValueError`.

    >>> schedule = warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=2, decay_steps=6)
    >>> [round(schedule(t).item(), 2) for t in range(7)]
    [0.0, 0.5, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    if not decay_steps > warmup_steps:
        raise ValueError(
            f"warmup_cosine_decay_schedule got decay_steps={decay_steps} and warmup_steps={warmup_steps}: decay_steps "
            "counts the warm-up too, so it must be larger; write decay_steps=warmup_steps + the steps of decay."
        )
    no_peak = not isinstance(peak_value, Tensor) and peak_value == 0
    return join_schedules(
        [
            linear_schedule(init_value, peak_value, warmup_steps),
            cosine_decay_schedule(
                peak_value, decay_steps - warmup_steps, 0.0 if no_peak else end_value / peak_value, exponent
            ),
        ],
        [warmup_steps],
    )


def join_schedules(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """One schedule after another: the next begins, at its own step 0, at each boundary.

    Raises `ValueError` unless there is one boundary less than schedules.

    >>> schedule = join_schedules([constant_schedule(1.0), linear_schedule(0.0, 1.0, 2)], [3])
    >>> [schedule(t).item() for t in range(6)]
    [1.0, 1.0, 1.0, 0.0, 0.5, 1.0]
    """
    schedules, boundaries = tuple(schedules), tuple(boundaries)
    if len(boundaries) != len(schedules) - 1:
        raise ValueError(
            f"join_schedules got {len(schedules)} schedules and {len(boundaries)} boundaries, and needs one boundary "
            "between each two: join_schedules([warmup, decay], [1000])."
        )

    def schedule(count: Tensor) -> Tensor:
        step = torch.as_tensor(count)
        value = torch.as_tensor(schedules[0](step))
        for boundary, following in zip(boundaries, schedules[1:], strict=True):
            value = torch.where(step < boundary, value, following(step - boundary))
        return value

    return schedule
