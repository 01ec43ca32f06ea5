"""From a value down: along half a cosine, and by a constant factor."""

import math

import torch
from torch import Tensor

from ..values import Scalar, Schedule, scalar
from .basic import constant_schedule
from .lengths import duration, number_of_steps

__all__ = ["cosine_decay_schedule", "exponential_decay"]


def cosine_decay_schedule(
    init_value: Scalar, decay_steps: int, alpha: Scalar = 0.0, exponent: Scalar = 1.0
) -> Schedule:
    r"""Half a cosine, from `init_value` down to `alpha * init_value` (Loshchilov and Hutter, arXiv:1608.03983).

    $$v \left( (1 - \alpha) \left( \tfrac12 (1 + \cos (\pi \min(t, n) / n)) \right)^p + \alpha \right)$$

    Raises `ValueError` where `decay_steps` is not positive.

    >>> [round(cosine_decay_schedule(1.0, 4)(t).item(), 2) for t in range(6)]
    [1.0, 0.85, 0.5, 0.15, 0.0, 0.0]
    """
    scalar(init_value, "init_value"), scalar(alpha, "alpha"), scalar(exponent, "exponent")
    number_of_steps(decay_steps, "decay_steps")
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


def exponential_decay(
    init_value: Scalar,
    transition_steps: int,
    decay_rate: Scalar,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: Scalar | None = None,
) -> Schedule:
    r"""Multiplied by `decay_rate` in every `transition_steps` steps, $v\, r^{\max(0, t - t_0) / n}$.

    With `staircase=True` the exponent is rounded down. It never passes `end_value`: a lower bound where the rate is
    below 1, else an upper one. A rate of the number 0 gives the constant `init_value`, and a negative
    `transition_begin` is 0, as in optax. Raises `ValueError` for a negative rate, and where `transition_steps` is not
    positive, for which optax stays at `init_value`.

    >>> [round(exponential_decay(1.0, 2, 0.25, end_value=0.1)(t).item(), 3) for t in range(5)]
    [1.0, 0.5, 0.25, 0.125, 0.1]
    """
    scalar(init_value, "init_value"), scalar(decay_rate, "decay_rate")
    duration(transition_steps, "transition_steps", "exponential_decay")
    number_of_steps(transition_begin, "transition_begin")
    if end_value is not None:
        scalar(end_value, "end_value")
    if not isinstance(decay_rate, Tensor) and decay_rate < 0:
        raise ValueError(f"exponential_decay got decay_rate={decay_rate}: a negative rate has no powers between steps.")
    if not isinstance(decay_rate, Tensor) and decay_rate == 0:
        return constant_schedule(init_value)
    begin = max(transition_begin, 0)

    def schedule(count: Tensor) -> Tensor:
        exponent = (torch.as_tensor(count) - begin).clamp(min=0) / transition_steps
        rate = torch.as_tensor(decay_rate, device=exponent.device)
        value = init_value * rate ** (exponent.floor() if staircase else exponent)
        if end_value is None:
            return value
        return torch.where(rate < 1, value.clamp(min=end_value), value.clamp(max=end_value))

    return schedule
