"""torch.optim's line search for the strong Wolfe conditions, as two loops on tensors."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from ...control import while_loop
from ...tree import map

_SLOPE, _CURVATURE, _NARROW = 1e-4, 0.9, 1e-9  # torch's constants


class Point(NamedTuple):
    """A step size, the value and the gradient there, and the slope along the direction."""

    t: Tensor
    value: Tensor
    grad: Tensor
    slope: Tensor


class _Zoom(NamedTuple):
    """The ends of an interval in torch's order, which decides between equals; `swapped` where the second is lower."""

    ends: tuple[Point, Point]
    swapped: Tensor
    stuck: Tensor
    done: Tensor
    tries: Tensor


def strong_wolfe(
    along: Callable[[Tensor], Point], start: Point, t: Tensor, d: Tensor, most: Tensor
) -> tuple[Point, Tensor]:
    """A step along `d` with enough decrease and a small slope (Nocedal and Wright 2006, algorithms 3.5 and 3.6).

    `along(t)` evaluates, `start` is the point at 0, `t` the first try, `most` the number of further ones. Returns
    the point and how many evaluations it took.
    """

    def too_high(point: Point) -> Tensor:
        return point.value > start.value + _SLOPE * point.t * start.slope

    def flat(point: Point) -> Tensor:
        return point.slope.abs() <= -_CURVATURE * start.slope

    def beyond(last: Point, new: Point, count: Tensor) -> Tensor:
        """Whether the interval from the last try to this one holds a minimum."""
        return too_high(new) | ((count > 1) & (new.value >= last.value))

    def widening(now: tuple[Point, Point, Tensor]) -> Tensor:
        last, new, count = now
        return (count < most) & ~(beyond(last, new, count) | flat(new) | (new.slope >= 0))

    def widen(now: tuple[Point, Point, Tensor]) -> tuple[Point, Point, Tensor]:
        last, new, count = now
        t = _interpolated(last, new, new.t + 0.01 * (new.t - last.t), new.t * 10)
        return new, along(t), count + 1

    first = (start, along(t), torch.zeros_like(most))
    last, new, count = while_loop(widening, widen, first)
    exhausted = count == most
    done = ~exhausted & ~beyond(last, new, count) & flat(new)
    last = _pick(exhausted, start, _pick(done, new, last))

    def zooming(now: _Zoom) -> Tensor:
        a, b = now.ends
        return ~now.done & (now.tries < most) & ~((b.t - a.t).abs() * d.abs().max() < _NARROW)

    def zoom(now: _Zoom) -> _Zoom:
        a, b = now.ends
        low, high = _pick(now.swapped, b, a), _pick(now.swapped, a, b)
        left, right = torch.minimum(a.t, b.t), torch.maximum(a.t, b.t)
        t, margin = _interpolated(a, b, left, right), 0.1 * (right - left)
        # A try near an end, the second time or at the end itself, is moved away from it.
        near = torch.minimum(right - t, t - left) < margin
        moved = near & (now.stuck | (t >= right) | (t <= left))
        inside = torch.where((t - right).abs() < (t - left).abs(), right - margin, left + margin)
        new = along(torch.where(moved, inside, t))
        worse, met = too_high(new) | (new.value >= low.value), flat(new)
        turned = ~met & (new.slope * (high.t - low.t) >= 0)
        new_low, new_high = _pick(worse, low, new), _pick(worse, new, _pick(turned, low, high))
        ends = _pick(now.swapped, new_high, new_low), _pick(now.swapped, new_low, new_high)
        swapped = torch.where(worse, ~(ends[0].value <= ends[1].value), now.swapped)
        return _Zoom(ends, swapped, near & ~moved, ~worse & met, now.tries + 1)

    swapped = ~(last.value <= new.value)
    final = while_loop(zooming, zoom, _Zoom((last, new), swapped, torch.zeros_like(done), done, count))
    return _pick(final.swapped, final.ends[1], final.ends[0]), final.tries + 1


def _pick(which: Tensor, yes: Any, no: Any) -> Any:
    return map(lambda a, b: torch.where(which, a, b), yes, no)


def _interpolated(a: Point, b: Point, least: Tensor, most: Tensor) -> Tensor:
    """Where the cubic through two values and slopes has its minimum, within bounds; else their middle."""
    ordered = a.t <= b.t
    left, right = cast(Point, _pick(ordered, a, b)), cast(Point, _pick(ordered, b, a))
    width = right.t - left.t
    apart = width != 0
    safe = torch.where(apart, width, 1.0)
    theta = left.slope + right.slope + 3 * (left.value - right.value) / safe
    square = theta * theta - left.slope * right.slope
    real = square >= 0
    gamma = torch.where(real, square, 0.0)
    gamma = torch.where(gamma == 0, 0.0, torch.sqrt(torch.where(gamma == 0, 1.0, gamma)))
    divisor = right.slope - left.slope + 2 * gamma
    usable = apart & (divisor != 0)
    t = right.t - width * ((right.slope + gamma - theta) / torch.where(usable, divisor, 1.0))
    t = torch.where(least > t, least, t)
    return torch.where(real, torch.where(most < t, most, t), (least + most) / 2)
