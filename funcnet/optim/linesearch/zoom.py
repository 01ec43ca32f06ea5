"""Zoom: a step that decreases the function enough and flattens it, by bracketing and interpolation."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ...control import while_loop
from ...tree import PyTree, map, zeros_like
from ..arguments import stateful, whole
from ..base import GradientTransformation
from ..leafwise import root, scaled
from ..reporting import report
from ..values import Scalar, scalar, stored, zero_count
from ..wrappers.choice import choose
from .line import Line, violation

__all__ = ["ScaleByZoomLinesearchState", "ZoomLinesearchInfo", "scale_by_zoom_linesearch"]


class ZoomLinesearchInfo(NamedTuple):
    """How the last search went; errors are 0 where their condition holds."""

    num_linesearch_steps: Tensor
    """int32, 0-dim"""
    decrease_error: Tensor
    curvature_error: Tensor


class ScaleByZoomLinesearchState(NamedTuple):
    """The last learning rate, and value and gradient where it led."""

    learning_rate: Tensor
    value: Tensor
    grad: PyTree
    info: ZoomLinesearchInfo


class _Point(NamedTuple):
    """A step, and the function there."""

    rate: Tensor
    value: Tensor
    slope: Tensor


class _Search(NamedTuple):
    """Where a search is. `low` and `high` bracket good steps once it has `bracketed`; `low` has the lesser value."""

    steps: Tensor
    at: _Point
    grad: PyTree
    decrease_error: Tensor
    curvature_error: Tensor
    bracketed: Tensor
    done: Tensor
    failed: Tensor
    low: _Point
    high: _Point
    third: _Point
    """a point outside the bracket, for the cubic"""
    safe: _Point
    """the best that decreases enough; its rate is 0 as long as there is none"""
    safe_grad: PyTree


def scale_by_zoom_linesearch(
    max_linesearch_steps: int,
    max_learning_rate: Scalar | None = None,
    tol: Scalar = 0.0,
    increase_factor: Scalar = 2.0,
    slope_rtol: Scalar = 1e-4,
    curv_rtol: Scalar = 0.9,
    approx_dec_rtol: Scalar | None = 1e-6,
    stepsize_precision: Scalar = 1e-5,
    initial_guess_strategy: Literal["one", "keep"] = "keep",
    verbose: bool = False,
) -> GradientTransformation:
    r"""Scale the updates by a learning rate that decreases the function enough and flattens it (Wolfe's conditions).

    $$f(\theta + \eta u) \le f(\theta) + c_1 \eta \langle u, \nabla f(\theta) \rangle + \varepsilon, \quad
    |\langle u, \nabla f(\theta + \eta u) \rangle| \le c_2 |\langle u, \nabla f(\theta) \rangle| + \varepsilon$$

    The rate grows until it brackets such steps; then the bracket shrinks around the minimum of a cubic, a parabola, or
    to its half (Nocedal and Wright, Numerical Optimization, algorithms 3.5 and 3.6). Where values hardly differ, the
    first condition may be met by slopes, which have more digits (Hager and Zhang 2006, doi:10.1145/1132973.1132979).
    If the search ends without both, the best step of sufficient decrease is taken, else the last one tried, and none
    where that has no finite value.

    Args:
        max_linesearch_steps: how often the function is asked.
        max_learning_rate: the largest rate, or None.
        tol: $\varepsilon$.
        increase_factor: how the rate grows.
        slope_rtol: $c_1$.
        curv_rtol: $c_2$; `math.inf` leaves the second condition out.
        approx_dec_rtol: how near the values are, relatively, for slopes to decide; None for never.
        stepsize_precision: a bracket that is shorter ends the search, if a step of sufficient decrease is known.
        initial_guess_strategy: "keep" begins at the last rate, "one" at 1, which Newton's directions want.
        verbose: tell of failures, in eager steps.

    `update` needs the parameters, `value=`, `grad=`, and the function as `value_fn=`, whose further arguments are
    keywords of `update` too. Raises `TypeError` for one that it does not take, and `ValueError` for another strategy.

    >>> from funcnet.optim import chain, sgd
    >>> optimizer = chain(sgd(1.0), scale_by_zoom_linesearch(15))
    >>> params, loss = {"w": torch.tensor([1.0, 2.0])}, lambda p: (p["w"] ** 2).sum()
    >>> grad = {"w": 2 * params["w"]}
    >>> updates, state = optimizer.update(
    ...     grad, optimizer.init(params), params, value=loss(params), grad=grad, value_fn=loss
    ... )
    >>> updates, state[1].learning_rate
    ({'w': tensor([-1., -2.])}, tensor(0.5000))
    """
    values: dict[str, Scalar | None] = {"max_learning_rate": max_learning_rate, "tol": tol, "slope_rtol": slope_rtol}
    values |= {"increase_factor": increase_factor, "curv_rtol": curv_rtol, "approx_dec_rtol": approx_dec_rtol}
    for name, value in {**values, "stepsize_precision": stepsize_precision}.items():
        if value is not None:
            scalar(value, name)
    whole(max_linesearch_steps, "max_linesearch_steps")
    if initial_guess_strategy not in ("one", "keep"):
        raise ValueError(f'initial_guess_strategy is {initial_guess_strategy!r}, and must be "one" or "keep".')

    def init(params: PyTree) -> ScaleByZoomLinesearchState:
        errors = stored(torch.inf, params), stored(torch.inf, params)
        return ScaleByZoomLinesearchState(
            learning_rate=stored(1.0, params),
            value=stored(torch.inf, params),
            grad=zeros_like(params),
            info=ZoomLinesearchInfo(zero_count(params), *errors),
        )

    def update(
        updates: PyTree, state: ScaleByZoomLinesearchState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleByZoomLinesearchState]:
        line = Line(updates, params, extra, "scale_by_zoom_linesearch")
        keep = initial_guess_strategy == "keep"
        guess = state.learning_rate.to(line.dtype) if keep else line.number(1.0)
        largest = line.number(torch.inf) if max_learning_rate is None else max_learning_rate

        def decrease_error(at: _Point) -> Tensor:
            error = at.value - line.value - slope_rtol * at.rate * line.slope
            if approx_dec_rtol is not None:
                nearness = at.value - line.value - approx_dec_rtol * torch.abs(line.value)
                error = torch.minimum(torch.maximum(at.slope - (2 * slope_rtol - 1) * line.slope, nearness), error)
            return violation(error)

        def tried(rate: Tensor, s: _Search) -> tuple[_Search, Tensor]:
            value, grad, slope = line.everything_at(rate)
            at = _Point(rate, value, slope)
            decrease = decrease_error(at)
            curvature = violation(torch.abs(slope) - curv_rtol * torch.abs(line.slope))
            safe = (decrease <= tol) & ((value < s.safe.value) | ~s.bracketed)
            good = torch.maximum(decrease, curvature) <= tol
            return s._replace(
                steps=s.steps + 1,
                at=at,
                grad=map(lambda g, old: g.to(old.dtype), grad, s.grad),
                decrease_error=decrease,
                curvature_error=curvature,
                safe=_either(safe, at, s.safe),
                safe_grad=_either(safe, grad, s.safe_grad),
            ), good

        def farther(s: _Search, new: _Search, good: Tensor) -> _Search:
            worse = (new.decrease_error > 0) | ((new.at.value >= s.at.value) & (s.steps > 0))
            beyond = (new.at.slope >= 0) & ~worse
            bracketed = worse | beyond | good
            done = good | ((new.at.rate >= largest) & ~bracketed)
            low, high = _either(beyond, new.at, s.at), _either(beyond, s.at, new.at)
            failed = (new.steps >= max_linesearch_steps) & ~done
            return new._replace(bracketed=bracketed, done=done, failed=failed, low=low, high=high, third=low)

        def nearer(s: _Search, new: _Search, good: Tensor) -> _Search:
            worse = (new.decrease_error > 0) | (new.at.value >= s.low.value)
            beyond = (new.at.slope * (s.high.rate - s.low.rate) >= 0) & ~worse
            short = (torch.abs(s.high.rate - s.low.rate) <= stepsize_precision) & (new.safe.rate > 0)
            return new._replace(
                done=good,
                failed=((new.steps >= max_linesearch_steps) | short) & ~good,
                low=_either(worse, s.low, new.at),
                high=_either(worse, new.at, _either(beyond, s.low, s.high)),
                third=_either(worse | beyond, s.high, s.low),
            )

        def step(s: _Search) -> _Search:
            def outside() -> Tensor:
                rate = torch.where(s.steps == 0, guess, increase_factor * s.at.rate)
                return torch.clamp(rate, max=largest).to(line.dtype)

            new, good = tried(choose(s.bracketed, lambda: _inside(s), outside), s)
            after: _Search = choose(s.bracketed, lambda: nearer(s, new, good), lambda: farther(s, new, good))
            return after

        no, nowhere = torch.zeros_like(line.value, dtype=torch.bool), line.number(torch.inf)
        here = _Point(line.number(0.0), line.value, line.slope)
        steps = torch.zeros_like(state.info.num_linesearch_steps)
        grad = map(lambda g, old: g.to(old.dtype), line.grad, state.grad)
        start = _Search(steps, here, grad, nowhere, nowhere, no, no, no, here, here, here, here, grad)
        end = while_loop(lambda s: ~(s.done | s.failed), step, start)
        fall_back = end.failed & ((end.safe.rate > 0) | torch.isinf(end.decrease_error))
        at, grad = _either(fall_back, (end.safe, end.safe_grad), (end.at, end.grad))
        if verbose:
            _diagnose(end, line)
        info = ZoomLinesearchInfo(end.steps, end.decrease_error, end.curvature_error)
        return scaled(updates, at.rate), ScaleByZoomLinesearchState(at.rate, at.value, grad, info)

    return stateful(ScaleByZoomLinesearchState, init, update)


def _either(condition: Tensor, yes: Any, no: Any) -> Any:
    return map(lambda a, b: torch.where(condition, a, b), yes, no)


def _inside(s: _Search) -> Tensor:
    """A step within the bracket: the minimum of a cubic, else of a parabola, else the middle."""
    width = torch.abs(s.high.rate - s.low.rate)
    left, right = torch.minimum(s.low.rate, s.high.rate), torch.maximum(s.low.rate, s.high.rate)
    cubic, parabola = _cubic_minimum(s.low, s.high, s.third), _parabola_minimum(s.low, s.high)
    middle = (s.low.rate + s.high.rate) / 2
    middle = torch.where((parabola > left + 0.1 * width) & (parabola < right - 0.1 * width), parabola, middle)
    return torch.where((cubic > left + 0.2 * width) & (cubic < right - 0.2 * width), cubic, middle)


def _cubic_minimum(a: _Point, b: _Point, c: _Point) -> Tensor:
    """Where the cubic through three points, with the slope of the first, is least; NaN where it is nowhere."""
    db, dc = b.rate - a.rate, c.rate - a.rate
    fb, fc = b.value - a.value - a.slope * db, c.value - a.value - a.slope * dc
    divisor = (db * dc) ** 2 * (db - dc)
    third, divisor = divisor != 0, torch.where(divisor == 0, 1.0, divisor)
    cube = (dc**2 * fb - db**2 * fc) / divisor
    square = (-(dc**3) * fb + db**3 * fc) / divisor
    radical = square * square - 3 * cube * a.slope
    found = third & (radical >= 0) & (cube != 0)
    shift = (root(torch.where(found, radical, 0.0)) - square) / torch.where(found, 3 * cube, 1.0)
    return torch.where(found, a.rate + shift, torch.nan)


def _parabola_minimum(a: _Point, b: _Point) -> Tensor:
    """Where the parabola through two points, with the slope of the first, is least; NaN where it is nowhere."""
    db = b.rate - a.rate
    square = (b.value - a.value - a.slope * db) / torch.where(db == 0, 1.0, db) ** 2
    found = (db != 0) & (square != 0)
    return torch.where(found, a.rate - a.slope / torch.where(found, 2 * square, 1.0), torch.nan)


def _diagnose(end: _Search, line: Line) -> None:
    """Say what went wrong, where the search may speak."""
    at = {"value": line.value, "slope": line.slope, "rate": end.at.rate}
    errors = {"decrease": end.decrease_error, "curvature": end.curvature_error}
    safe = end.safe.rate > 0
    where = "zoom line search: value {value}, slope {slope}, at {rate} too large by {decrease} and {curvature}: "
    report(end.failed & safe, where + "the step decreases enough but is not flat enough", **at, **errors)
    report(end.failed & ~safe, where + "no step decreases enough", **at, **errors)
    report(line.slope >= 0, "zoom line search: the updates do not go downhill, their slope is {slope}", **at)
