"""Backtracking: shorter steps until one decreases the function enough."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...control import while_loop
from ...tree import PyTree, map, zeros_like
from ..arguments import stateful, whole
from ..base import GradientTransformation
from ..leafwise import scaled
from ..reporting import report
from ..values import Scalar, scalar, stored, zero_count
from .line import Line, violation

__all__ = ["BacktrackingLinesearchInfo", "ScaleByBacktrackingLinesearchState", "scale_by_backtracking_linesearch"]


class BacktrackingLinesearchInfo(NamedTuple):
    """How the last search went."""

    num_linesearch_steps: Tensor
    """int32, 0-dim"""
    decrease_error: Tensor
    """0 where the step was found"""


class ScaleByBacktrackingLinesearchState(NamedTuple):
    """The last learning rate, and value and gradient where it led."""

    learning_rate: Tensor
    value: Tensor
    grad: PyTree
    """None unless it is stored"""
    info: BacktrackingLinesearchInfo


def scale_by_backtracking_linesearch(
    max_backtracking_steps: int,
    slope_rtol: Scalar = 1e-4,
    decrease_factor: Scalar = 0.8,
    increase_factor: Scalar = 1.5,
    max_learning_rate: Scalar = 1.0,
    atol: Scalar = 0.0,
    rtol: Scalar = 0.0,
    store_grad: bool = False,
    verbose: bool = False,
) -> GradientTransformation:
    r"""Scale the updates by a learning rate that decreases the function enough (Armijo's condition).

    It begins at `increase_factor` times the last one, at most `max_learning_rate`, and is multiplied by
    `decrease_factor`, at most `max_backtracking_steps` times, until

    $$f(\theta + \eta u) \le (1 + \delta) f(\theta) + \eta c \langle u, \nabla f(\theta) \rangle + \varepsilon$$

    with `slope_rtol` for $c$, `rtol` for $\delta$, `atol` for $\varepsilon$ (Nocedal and Wright, Numerical
    Optimization, section 3.1; Vaswani et al., arXiv:1905.09997). Where no finite value is found the step is 0. The
    updates must go downhill, as those of `sgd` do. `store_grad=True` leaves the gradient at the end for
    `value_and_grad_from_state`; `verbose=True` tells of failures, in eager steps.

    `update` needs the parameters, `value=`, `grad=`, and the function as `value_fn=`, whose further arguments are
    keywords of `update` too; `TypeError` for one that it does not take.

    >>> from funcnet.optim import chain, sgd
    >>> optimizer = chain(sgd(1.0), scale_by_backtracking_linesearch(15))
    >>> params, loss = {"w": torch.tensor([1.0, 2.0])}, lambda p: (p["w"] ** 2).sum()
    >>> grad = {"w": 2 * params["w"]}
    >>> updates, state = optimizer.update(
    ...     grad, optimizer.init(params), params, value=loss(params), grad=grad, value_fn=loss
    ... )
    >>> loss(params), loss({"w": params["w"] + updates["w"]}), state[1].info.num_linesearch_steps
    (tensor(5.), tensor(1.8000), tensor(2, dtype=torch.int32))
    """
    values = {"slope_rtol": slope_rtol, "decrease_factor": decrease_factor, "increase_factor": increase_factor}
    values |= {"max_learning_rate": max_learning_rate, "atol": atol, "rtol": rtol}
    for name, value in values.items():
        scalar(value, name)
    whole(max_backtracking_steps, "max_backtracking_steps", least=0)

    def init(params: PyTree) -> ScaleByBacktrackingLinesearchState:
        return ScaleByBacktrackingLinesearchState(
            learning_rate=stored(1.0, params),
            value=stored(torch.inf, params),
            grad=zeros_like(params) if store_grad else None,
            info=BacktrackingLinesearchInfo(zero_count(params), stored(torch.inf, params)),
        )

    def update(
        updates: PyTree, state: ScaleByBacktrackingLinesearchState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleByBacktrackingLinesearchState]:
        line = Line(updates, params, extra, "scale_by_backtracking_linesearch")

        def going(carry: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
            _, _, error, steps = carry
            return ~(error <= atol) & (steps <= max_backtracking_steps)

        def shorter(carry: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            rate, _, _, steps = carry
            rate = torch.where(steps > 0, decrease_factor * rate, rate)
            value = line.value_at(rate)
            error = violation(value - (1 + rtol) * line.value - rate * slope_rtol * line.slope)
            return rate.to(line.dtype), value, error.to(line.dtype), steps + 1

        rate = torch.clamp(increase_factor * state.learning_rate, max=max_learning_rate).to(line.dtype)
        start = (rate, line.value, line.number(torch.inf), torch.zeros_like(state.info.num_linesearch_steps))
        rate, value, error, steps = while_loop(going, shorter, start)
        grad = map(lambda g, p: g.to(p.dtype), line.everything_at(rate)[1], state.grad) if store_grad else None
        if verbose:
            message = "backtracking: value {value}, slope {slope}; at {rate} still too large by {error}"
            report(error > atol, message, value=line.value, slope=line.slope, rate=rate, error=error)
        rate = torch.where(torch.isinf(error), 0.0, rate)
        info = BacktrackingLinesearchInfo(steps, error)
        return scaled(updates, rate), ScaleByBacktrackingLinesearchState(rate, value, grad, info)

    return stateful(ScaleByBacktrackingLinesearchState, init, update)
