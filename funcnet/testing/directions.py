"""Derivatives along random directions: compared with central differences, and traced to the number that is wrong."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcnet import grad, hvp, jvp, random, tree, vjp, vmap
from funcnet.testing.failures import CheckError, compare
from funcnet.testing.scalars import Point, Scalar

__all__ = ["WrongDerivativeError", "check_directions", "near"]

# Central differences err by the rounding of the value over the step, and by the curvature times its square. A kink
# within a step spoils them: so a mismatch counts only if it persists at other points, steps and directions.
_STEPS = (1e-6, 1e-5, 1e-7)
_RELATIVE = 1e-5
_ROUNDING = 1e-12
_DOUBT = 10.0
_BATCH = 3

Along = Callable[[Point], float]
"""The derivative along a direction."""


class WrongDerivativeError(Exception):
    """A derivative that does not agree with its reference."""

    def __init__(self, mode: str, leaf: str, index: tuple[int, ...] | None, how: str) -> None:
        """The number with the wrong derivative, and what it is."""
        super().__init__(mode)
        self.mode, self.leaf, self.index, self.how = mode, leaf, index, how


class _SuspicionError(Exception):
    """A mismatch that may be the point's fault; `trace` finds the number."""

    def __init__(self, trace: Callable[[], WrongDerivativeError]) -> None:
        super().__init__()
        self.trace = trace


def check_directions(function: Scalar, key: Tensor, order: int, forward: bool, batched: bool) -> None:
    """Raise `WrongDerivativeError` unless the derivatives agree, at the point or at two others beside it."""
    if compare(function.value(function.point), function.value(function.point), exact=True) is not None:
        raise CheckError("it gives different results for the same arguments: see check_pure")
    first: _SuspicionError | None = None
    for attempt, step in enumerate(_STEPS):
        here = random.fold_in(key, attempt)
        point = function.point if attempt == 0 else near(function.point, random.fold_in(here, 0))
        try:
            _check_first(function.value, point, random.fold_in(here, 1), step, forward)
            if order > 1:
                _check_second(function.value, point, random.fold_in(here, 2), step, forward)
            if batched:
                _check_batched(function, point, random.fold_in(here, 3), forward)
            return
        except _SuspicionError as suspicion:
            first = first or suspicion
    assert first is not None  # every attempt failed
    raise first.trace()


def near(point: Point, key: Tensor) -> Point:
    """A point in general position beside this one."""
    direction = _direction(point, key)
    return {path: leaf + 1e-2 * (1 + leaf.abs().mean()) * direction[path] for path, leaf in point.items()}


def _direction(point: Point, key: Tensor) -> Point:
    """A random direction, in which every leaf has length one: the small ones count as much as the large."""
    keys = (random.fold_in(key, i) for i in range(len(point)))
    drawn = {path: random.normal(k, leaf.shape).to(leaf) for k, (path, leaf) in zip(keys, point.items(), strict=True)}
    return {path: leaf / leaf.norm().clamp_min(1e-9) for path, leaf in drawn.items()}


def _check_first(value: Callable[[Point], Tensor], point: Point, key: Tensor, step: float, forward: bool) -> None:
    gradient, direction = grad(value)(point), _direction(point, key)
    _refuse_nan("reverse mode", gradient)
    _match("reverse mode", gradient, direction, _Quotient(value, point, step), float(value(point).abs()) / step)
    if forward:
        _match_forward("forward mode", gradient, direction, lambda v: float(jvp(value, (point,), (v,))[1]))


def _check_second(value: Callable[[Point], Tensor], point: Point, key: Tensor, step: float, forward: bool) -> None:
    along, direction = (_direction(point, part) for part in random.split(key))

    def slope(point: Point) -> Tensor:
        gradient = grad(value)(point)
        return torch.stack([(gradient[path] * v).sum() for path, v in along.items()]).sum()

    second, mode = grad(slope)(point), "second order, reverse over reverse"
    _refuse_nan(mode, second)
    _match(mode, second, direction, _Quotient(slope, point, step), float(slope(point).abs()) / step)
    if forward:
        product = hvp(value, (point,), (along,))
        _match_forward("second order, forward over reverse", second, direction, lambda v: _dot(product, v))


def _check_batched(function: Scalar, point: Point, key: Tensor, forward: bool) -> None:
    outputs, pullback = vjp(function.outputs, point)
    keys = random.split(key, (_BATCH, len(outputs)))
    cotangents = [[random.normal(k, out.shape).to(out) for k, out in zip(row, outputs, strict=True)] for row in keys]
    _match_batched("a batch of cotangents", lambda cotangent: pullback(cotangent)[0], cotangents)
    if forward:
        tangents = [_direction(point, random.fold_in(key, i)) for i in range(_BATCH)]
        _match_batched("a batch of tangents", lambda v: jvp(function.outputs, (point,), (v,))[1], tangents)


def _match_batched(mode: str, product: Callable[[Any], Any], directions: list[Any]) -> None:
    together, loop = vmap(product)(tree.stack(directions)), tree.stack([product(v) for v in directions])
    difference = compare(together, loop)
    if difference is not None:
        how = f"is {difference.got}, expected {difference.want} as for each alone"
        raise WrongDerivativeError(mode, difference.leaf, difference.place, how)


def _refuse_nan(mode: str, gradient: Point) -> None:
    for path, leaf in gradient.items():
        if leaf.isnan().any():
            index = tuple(int(i) for i in leaf.isnan().nonzero()[0])
            raise WrongDerivativeError(mode, path, index, "is nan")


class _Quotient:
    """The central difference quotient along a direction."""

    def __init__(self, value: Callable[[Point], Tensor], point: Point, step: float) -> None:
        self.value, self.point, self.step = value, point, step

    def __call__(self, direction: Point) -> float:
        return self._at(direction, self.step)

    def doubt(self, direction: Point) -> float:
        """How far half the step leads to another quotient: with a kink or a sharp bend close by, far."""
        return abs(self._at(direction, self.step) - self._at(direction, self.step / 2))

    def _at(self, direction: Point, step: float) -> float:
        there, back = (
            self.value({path: leaf + h * direction[path] for path, leaf in self.point.items()}) for h in (step, -step)
        )
        return float(there - back) / (2 * step)


def _dot(a: Point, b: Point) -> float:
    return float(sum((a[path] * b[path]).sum() for path in a))


def _terms(gradient: Point, direction: Point) -> float:
    return sum(abs(float((gradient[path] * v).sum())) for path, v in direction.items())


def _match(mode: str, gradient: Point, direction: Point, quotient: _Quotient, noise: float) -> None:
    allowed = _RELATIVE * _terms(gradient, direction) + _ROUNDING * (noise + 1 / _STEPS[0])
    error = abs(_dot(gradient, direction) - quotient(direction))
    # Neither is true of nan: the point is at the edge of where the function is defined.
    if error > allowed and error > allowed + _DOUBT * quotient.doubt(direction):

        def trace() -> WrongDerivativeError:
            leaf, index, unit = _worst(gradient, direction, quotient)
            how = f"is {float(gradient[leaf][index]):.6g}, expected {quotient(unit):.6g} by differences"
            return WrongDerivativeError(mode, leaf, index, how)

        raise _SuspicionError(trace)


def _match_forward(mode: str, gradient: Point, direction: Point, product: Along) -> None:
    """Forward mode against reverse mode, which agrees with differences by now."""
    allowed = 1e-7 * _terms(gradient, direction) + 1e-9
    if not abs(_dot(gradient, direction) - product(direction)) <= allowed:
        leaf, index, unit = _worst(gradient, direction, product)
        how = f"is {product(unit):.6g}, expected {float(gradient[leaf][index]):.6g} as in reverse mode"
        raise WrongDerivativeError(mode, leaf, index, how)


def _worst(gradient: Point, direction: Point, other: Along) -> tuple[str, tuple[int, ...], Point]:
    """The number with the wrong derivative, and the unit vector along it: the worst leaf, half of it, and so on."""

    def error(v: Point) -> float:
        difference = abs(_dot(gradient, v) - other(v))
        return difference if difference == difference else float("inf")

    def restricted(path: str, v: Tensor) -> Point:
        return {p: v if p == path else torch.zeros_like(d) for p, d in direction.items()}

    leaf = max((path for path in gradient if gradient[path].numel()), key=lambda p: error(restricted(p, direction[p])))
    like = gradient[leaf]

    def only(rows: range) -> Point:
        mask = torch.zeros(like.numel()).to(like)
        mask[rows.start : rows.stop] = 1
        return restricted(leaf, mask.reshape(like.shape))

    rows = range(like.numel())
    while len(rows) > 1:
        middle = rows.start + len(rows) // 2
        halves = range(rows.start, middle), range(middle, rows.stop)
        rows = max(halves, key=lambda half: error(only(half)))
    place = torch.unravel_index(torch.tensor(rows.start), like.shape)
    return leaf, tuple(int(i) for i in place), only(rows)
