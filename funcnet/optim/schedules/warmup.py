"""A straight line up to a peak, and what follows it."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..values import Scalar, Schedule, scalar
from .basic import constant_schedule, join_schedules, linear_schedule
from .decay import cosine_decay_schedule, exponential_decay
from .lengths import duration, length, number_of_steps

__all__ = [
    "sgdr_schedule",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
    "warmup_stable_decay_schedule",
]


def warmup_constant_schedule(init_value: Scalar, peak_value: Scalar, warmup_steps: int) -> Schedule:
    """A straight line from `init_value` to `peak_value`, where it stays.

    Raises `ValueError` where `warmup_steps` is not positive, for which optax stays at `init_value`.

    >>> [warmup_constant_schedule(0.0, 1.0, 2)(t).item() for t in range(4)]
    [0.0, 0.5, 1.0, 1.0]
    """
    return linear_schedule(init_value, peak_value, duration(warmup_steps, "warmup_steps", "warmup_constant_schedule"))


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
    number_of_steps(decay_steps, "decay_steps"), number_of_steps(warmup_steps, "warmup_steps")
    scalar(peak_value, "peak_value"), scalar(end_value, "end_value")
    if warmup_steps < 0:
        raise ValueError(f"warmup_cosine_decay_schedule got warmup_steps={warmup_steps}, and needs 0 or more.")
    if not decay_steps > warmup_steps:
        raise ValueError(
            f"warmup_cosine_decay_schedule got decay_steps={decay_steps} and warmup_steps={warmup_steps}: decay_steps "
            "counts the warm-up too, so it must be larger; write decay_steps=warmup_steps + the steps of decay."
        )
    no_peak = not isinstance(peak_value, Tensor) and peak_value == 0
    alpha = 0.0 if no_peak else end_value / peak_value
    decay = cosine_decay_schedule(peak_value, decay_steps - warmup_steps, alpha, exponent)
    return join_schedules([_rise(init_value, peak_value, warmup_steps), decay], [warmup_steps])


def warmup_exponential_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: int,
    transition_steps: int,
    decay_rate: Scalar,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: Scalar | None = None,
) -> Schedule:
    """A straight line from `init_value` to `peak_value`, then `exponential_decay`, which tells the rest.

    The decay counts its steps from the end of the warm-up. Raises `ValueError` for a negative `warmup_steps`.

    >>> schedule = warmup_exponential_decay_schedule(0.0, 1.0, warmup_steps=2, transition_steps=1, decay_rate=0.5)
    >>> [schedule(t).item() for t in range(5)]
    [0.0, 0.5, 1.0, 0.5, 0.25]
    """
    length(warmup_steps, "warmup_steps", "warmup_exponential_decay_schedule", least=0)
    decay = exponential_decay(peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value)
    return join_schedules([_rise(init_value, peak_value, warmup_steps), decay], [warmup_steps])


def warmup_stable_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: int,
    stable_steps: int,
    decay_steps: int,
    end_value: Scalar = 0.0,
    decay: str = "linear",
) -> Schedule:
    r"""A straight line up, a plateau, and a short decay (Hu et al., arXiv:2404.06395). Optax has none.

    A run that stays on the plateau can be prolonged, or ended by a decay from any checkpoint. Each phase has a length
    of its own. With $s$ from 0 to 1 over the decay and $b$ the `end_value`, the value falls as $b + (v - b) f(s)$:
    "linear" $1 - s$, "cosine" $\tfrac12 (1 + \cos \pi s)$, "sqrt" $1 - \sqrt s$ (Hägele et al., arXiv:2405.18392),
    which they found best. Raises `ValueError` for negative lengths, a `decay_steps` of 0 and another `decay`.

    >>> schedule = warmup_stable_decay_schedule(0.0, 1.0, warmup_steps=2, stable_steps=3, decay_steps=4)
    >>> [schedule(t).item() for t in range(10)]
    [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    rule = "warmup_stable_decay_schedule"
    length(warmup_steps, "warmup_steps", rule, least=0), length(stable_steps, "stable_steps", rule, least=0)
    length(decay_steps, "decay_steps", rule)
    scalar(peak_value, "peak_value"), scalar(end_value, "end_value")
    shapes: dict[str, Schedule] = {
        "linear": linear_schedule(1.0, 0.0, decay_steps),
        "cosine": cosine_decay_schedule(1.0, decay_steps),
        "sqrt": lambda count: 1 - (torch.as_tensor(count).clamp(0, decay_steps) / decay_steps).sqrt(),
    }
    if decay not in shapes:
        raise ValueError(f'{rule} got decay={decay!r}: write one of "linear", "cosine" and "sqrt".')

    def falling(count: Tensor) -> Scalar:
        return end_value + (peak_value - end_value) * shapes[decay](count)

    parts = [_rise(init_value, peak_value, warmup_steps), constant_schedule(peak_value), falling]
    return join_schedules(parts, [warmup_steps, warmup_steps + stable_steps])


def sgdr_schedule(cosine_kwargs: Iterable[dict[str, Any]]) -> Schedule:
    """Cosine decay with warm restarts: one `warmup_cosine_decay_schedule` after another (arXiv:1608.03983).

    `cosine_kwargs` holds the arguments of each; its `decay_steps` is the length of that cycle. After the last it stays
    at the end value. Raises `ValueError` where there is none.

    >>> cycle = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 1, "decay_steps": 3}
    >>> [round(sgdr_schedule([cycle, cycle | {"peak_value": 0.5}])(t).item(), 2) for t in range(8)]
    [0.0, 1.0, 0.5, 0.0, 0.5, 0.25, 0.0, 0.0]
    """
    cycles = list(cosine_kwargs)
    if not cycles:
        raise ValueError("sgdr_schedule got no cycles: write a list with the arguments of at least one.")
    for n, cycle in enumerate(cycles):
        if not isinstance(cycle, dict) or "decay_steps" not in cycle:
            raise ValueError(
                f"sgdr_schedule got cosine_kwargs[{n}]={cycle!r}, and needs the arguments of a "
                "warmup_cosine_decay_schedule: [dict(init_value=0.0, peak_value=1.0, warmup_steps=1, decay_steps=3)]."
            )
    ends = [sum(cycle["decay_steps"] for cycle in cycles[: n + 1]) for n in range(len(cycles))]
    return join_schedules([warmup_cosine_decay_schedule(**cycle) for cycle in cycles], ends[:-1])


def _rise(init_value: Scalar, peak_value: Scalar, warmup_steps: int) -> Schedule:
    """The first part of a joined schedule, which is over at once where `warmup_steps` is 0."""
    return linear_schedule(init_value, peak_value, max(warmup_steps, 1))
