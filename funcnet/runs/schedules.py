"""Learning rates over a run, by name."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from funcnet import optim
from funcnet.optim import Schedule
from funcnet.runs.errors import RunError, known
from funcnet.runs.grammar import parse, shown

__all__ = ["SCHEDULES", "build"]

Options = Mapping[str, Any]


def _warmup(options: Options, steps: int) -> int:
    """Steps of rising: a share of all where it is below 1, at least one, and not all."""
    given = options["warmup"]
    return min(max(1, round(given * steps) if given < 1 else int(given)), steps - 1)


def _cosine(rate: float, steps: int, options: Options) -> Schedule:
    return optim.cosine_decay_schedule(rate, steps, alpha=options["end"])


def _linear(rate: float, steps: int, options: Options) -> Schedule:
    return optim.linear_schedule(rate, rate * options["end"], steps)


def _warmup_cosine(rate: float, steps: int, options: Options) -> Schedule:
    rising = _warmup(options, steps)
    return optim.warmup_cosine_decay_schedule(0.0, rate, rising, steps, end_value=rate * options["end"])


def _warmup_linear(rate: float, steps: int, options: Options) -> Schedule:
    rising = _warmup(options, steps)
    up, down = optim.linear_schedule(0.0, rate, rising), _linear(rate, steps - rising, options)
    return optim.join_schedules([up, down], [rising])


def _warmup_constant(rate: float, steps: int, options: Options) -> Schedule:
    return optim.warmup_constant_schedule(0.0, rate, _warmup(options, steps))


def _step(rate: float, steps: int, options: Options) -> Schedule:
    every = options["every"]
    return optim.step_lr(rate, max(1, round(every * steps) if every < 1 else int(every)), options["factor"])


def _exponential(rate: float, steps: int, options: Options) -> Schedule:
    return optim.exponential_decay(rate, steps, options["end"])


def _polynomial(rate: float, steps: int, options: Options) -> Schedule:
    return optim.polynomial_schedule(rate, rate * options["end"], options["power"], steps)


def _onecycle(rate: float, steps: int, options: Options) -> Schedule:
    return optim.cosine_onecycle_schedule(steps, rate, options["start"], options["first"], options["last"])


def _stable(rate: float, steps: int, options: Options) -> Schedule:
    rising = _warmup(options, steps - 1)
    falling = min(max(1, round(options["decay"] * steps)), steps - rising - 1)
    return optim.warmup_stable_decay_schedule(
        0.0, rate, rising, steps - rising - falling, falling, end_value=rate * options["end"]
    )


SCHEDULES: dict[str, tuple[Callable[[float, int, Options], Schedule], Options, int]] = {
    "constant": (lambda rate, steps, options: optim.constant_schedule(rate), {}, 1),
    "cosine": (_cosine, {"end": 0.0}, 1),
    "linear": (_linear, {"end": 0.0}, 1),
    "warmup-cosine": (_warmup_cosine, {"warmup": 0.05, "end": 0.0}, 2),
    "warmup-linear": (_warmup_linear, {"warmup": 0.05, "end": 0.0}, 2),
    "warmup-constant": (_warmup_constant, {"warmup": 0.05}, 2),
    "warmup-stable-decay": (_stable, {"warmup": 0.05, "decay": 0.2, "end": 0.0}, 3),
    "step": (_step, {"every": 1 / 3, "factor": 0.1}, 1),
    "exponential": (_exponential, {"end": 0.01}, 1),
    "polynomial": (_polynomial, {"power": 2.0, "end": 0.0}, 1),
    "onecycle": (_onecycle, {"start": 0.3, "first": 25.0, "last": 10000.0}, 2),
}
"""By name: what makes it, its options with their defaults, and the fewest steps that it needs."""


def build(text: str, rate: float, steps: int) -> Schedule:
    """The learning rate as a function of the step.

    Args:
        text: `cosine`, `warmup-cosine:warmup=0.1`; `end` is a share of the rate.
        rate: the highest.
        steps: of the whole run.

    Raises:
        RunError: there is no such schedule or option, a value that it cannot have, or too few steps.

    >>> schedule = build("linear", 1.0, 4)
    >>> [float(schedule(step)) for step in range(5)]
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    named = parse(text)
    make, defaults, least = SCHEDULES[known(named.name, list(SCHEDULES), "schedule")]
    usual = ",".join(f"{key}={shown(value)}" for key, value in defaults.items())
    named.nothing_but(0, list(defaults), f"{named.name}:{usual}" if usual else named.name)
    for key, value in named.options.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise RunError(f"{text!r}: {key} is {shown(value)}, and a number from 0 on is wanted.")
    if steps < least:
        raise RunError(f"{text!r} needs a run of at least {least} steps, and this one has {steps}: write constant.")
    try:
        schedule = make(rate, steps, {**defaults, **named.options})
        float(schedule(torch.tensor(0)))
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise RunError(f"{text!r}: {' '.join(str(error).split())}") from error
    return schedule
