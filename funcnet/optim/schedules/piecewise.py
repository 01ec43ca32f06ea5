"""Through given values at given steps: by jumps, lines or waves; one-cycle schedules."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..arguments import mapping
from ..values import Scalar, Schedule, scalar
from .basic import constant_schedule
from .lengths import length, nonzero, part_of

__all__ = [
    "cosine_onecycle_schedule",
    "linear_onecycle_schedule",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "through",
]

BETWEEN: dict[str, Callable[[Scalar, Scalar, Tensor], Tensor]] = {
    "linear": lambda start, end, part: start + (end - start) * part,
    "cosine": lambda start, end, part: end + (start - end) / 2 * (1 + torch.cos(math.pi * part)),
}


def through(points: Sequence[tuple[float, Scalar]], interpolate_type: str) -> Schedule:
    """From point to point `(step, value)`, the first at 0 and the steps ascending; it stays at the last value.

    >>> [through([(0, 0.0), (2, 1.0), (3, 0.5)], "linear")(t).item() for t in range(5)]
    [0.0, 0.5, 1.0, 0.5, 0.5]
    """
    between = BETWEEN[interpolate_type]

    def schedule(count: Tensor) -> Tensor:
        step = torch.as_tensor(count)
        value: Tensor | Scalar = points[-1][1]
        for (begin, first), (end, last) in reversed(list(pairwise(points))):
            # Between two points at one step nothing lies, but the quotient is computed all the same.
            part = (step - begin) / ((end - begin) or 1)
            value = torch.where(step < end, between(first, last, part), value)
        return torch.as_tensor(value)

    return schedule


def piecewise_constant_schedule(init_value: Scalar, boundaries_and_scales: dict[int, Scalar] | None = None) -> Schedule:
    r"""Multiplied by a scale at each boundary and from there on, $v \prod_{b_i \le t} s_i$.

    Raises `ValueError` for negative boundaries and scales.

    >>> [piecewise_constant_schedule(1.0, {2: 0.5, 3: 0.1})(t).item() for t in range(5)]
    [1.0, 1.0, 0.5, 0.05000000074505806, 0.05000000074505806]
    """
    points = _cumulative(init_value, boundaries_and_scales, "piecewise_constant_schedule")
    if len(points) == 1:
        return constant_schedule(init_value)

    def schedule(count: Tensor) -> Tensor:
        step = torch.as_tensor(count)
        value = torch.as_tensor(init_value, device=step.device)
        for boundary, following in points[1:]:
            value = torch.where(step < boundary, value, following)
        return value

    return schedule


def piecewise_interpolate_schedule(
    interpolate_type: str, init_value: Scalar, boundaries_and_scales: dict[int, Scalar] | None = None
) -> Schedule:
    r"""From `init_value` at step 0 to $v \prod_{j \le i} s_j$ at each boundary $b_i$, in lines or waves.

    `interpolate_type` is "linear", or "cosine": half a wave with level ends. It stays at the last value. Raises
    `ValueError` for another type, and for negative boundaries and scales.

    >>> [piecewise_interpolate_schedule("linear", 1.0, {2: 0.5, 4: 0.0})(t).item() for t in range(6)]
    [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    if interpolate_type not in BETWEEN:
        raise ValueError(
            f'piecewise_interpolate_schedule got interpolate_type={interpolate_type!r}: write "linear" or "cosine".'
        )
    points = _cumulative(init_value, boundaries_and_scales, "piecewise_interpolate_schedule")
    return through(points, interpolate_type)


def linear_onecycle_schedule(
    transition_steps: int,
    peak_value: Scalar,
    pct_start: float = 0.3,
    pct_final: float = 0.85,
    div_factor: Scalar = 25.0,
    final_div_factor: Scalar = 1e4,
) -> Schedule:
    r"""Up, down and out in straight lines: the one-cycle policy (Smith and Topin, arXiv:1708.07120).

    From $v / d$ up to $v$ at the part `pct_start` of the steps, back to $v / d$ at the part `pct_final`, and to
    $v / (d f)$ at the end, where it stays. Raises `ValueError` where `transition_steps` is not positive.

    >>> [round(linear_onecycle_schedule(8, 1.0, 0.5, 0.75, 2.0, 5.0)(t).item(), 3) for t in range(0, 10, 2)]
    [0.5, 0.75, 1.0, 0.5, 0.1]
    """
    rule = "linear_onecycle_schedule"
    length(transition_steps, "transition_steps", rule), scalar(peak_value, "peak_value")
    part_of(pct_start, "pct_start", rule), part_of(pct_final, "pct_final", rule)
    if pct_start > pct_final:
        raise ValueError(f"{rule} got pct_start={pct_start} above pct_final={pct_final}: first the way up ends.")
    nonzero(div_factor, "div_factor", rule), nonzero(final_div_factor, "final_div_factor", rule)
    scales = {
        int(pct_start * transition_steps): div_factor,
        int(pct_final * transition_steps): 1.0 / div_factor,
        transition_steps: 1.0 / final_div_factor,
    }
    return piecewise_interpolate_schedule("linear", peak_value / div_factor, scales)


def cosine_onecycle_schedule(
    transition_steps: int,
    peak_value: Scalar,
    pct_start: float = 0.3,
    div_factor: Scalar = 25.0,
    final_div_factor: Scalar = 1e4,
) -> Schedule:
    r"""Up and out along half cosines: the one-cycle policy as fast.ai has it (Smith and Topin, arXiv:1708.07120).

    From $v / d$ up to $v$ at the part `pct_start` of the steps, and down to $v / (d^2 f)$ at the end, where it stays.
    `one_cycle_lr` is torch's, whose end is $v / (d f)$. Raises `ValueError` where `transition_steps` is not positive.

    >>> [round(cosine_onecycle_schedule(8, 1.0, 0.5, 2.0, 5.0)(t).item(), 3) for t in range(0, 10, 2)]
    [0.5, 0.75, 1.0, 0.55, 0.1]
    """
    rule = "cosine_onecycle_schedule"
    length(transition_steps, "transition_steps", rule), scalar(peak_value, "peak_value")
    part_of(pct_start, "pct_start", rule), nonzero(div_factor, "div_factor", rule)
    nonzero(final_div_factor, "final_div_factor", rule)
    scales = {int(pct_start * transition_steps): div_factor, transition_steps: 1.0 / (div_factor * final_div_factor)}
    return piecewise_interpolate_schedule("cosine", peak_value / div_factor, scales)


def _cumulative(init_value: Scalar, scales: dict[int, Scalar] | None, rule: str) -> list[tuple[float, Scalar]]:
    """The points `(step, value)` where a value is scaled, the first at step 0."""
    if scales is not None:
        mapping(scales, "boundaries_and_scales", "{1000: 0.1}")
    points: list[tuple[float, Scalar]] = [(0, scalar(init_value, "init_value"))]
    for boundary, scale in sorted((scales or {}).items()):
        length(boundary, "a boundary", rule, least=0)
        if not isinstance(scalar(scale, f"the scale at {boundary}"), Tensor) and scale < 0:
            raise ValueError(f"{rule} got a scale of {scale} at step {boundary}: scales are not negative.")
        points.append((boundary, points[-1][1] * scale))
    return points
