"""MoMo: learning rates from a lower bound of the loss."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...tree import PyTree
from ..arguments import loss_value, stateful
from ..base import GradientTransformation, needed
from ..leafwise import abs_sq, each, inner, moment_zeros, root, square_zeros
from ..values import (
    Scalar,
    ScalarOrSchedule,
    correction,
    decay_rate,
    increment,
    is_schedule,
    precise,
    scalar,
    stored,
    value_at,
    zero_count,
)

__all__ = ["MomoAdamState", "MomoState", "momo", "momo_adam"]


class MomoState(NamedTuple):
    """The running means of gradients, losses and slopes, the lower bound, and the step count."""

    exp_avg: PyTree
    barf: Tensor
    gamma: Tensor
    lb: Tensor
    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""


def momo(
    learning_rate: ScalarOrSchedule = 1.0,
    beta: Scalar = 0.9,
    lower_bound: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    adapt_lower_bound: bool = False,
) -> GradientTransformation:
    r"""Momentum with a step from the loss, at most the learning rate (Schaipp et al., arXiv:2305.07583).

    The means $d$ of $g$, $\bar f$ of the loss and $\gamma$ of $\langle g, \theta \rangle$ all decay by $\beta$, and
    begin with the first values. With $a = 1 + \eta \lambda$ and the lower bound $f_*$ of the loss,

    $$\tau = \min\left(\eta, \frac{\max(a (\bar f - f_* - \gamma) + \langle d, \theta \rangle, 0)}
    {\lVert d \rVert^2}\right), \quad u = -\tau d - \frac{\eta \lambda}{a} \theta$$

    `update` needs the parameters and `value=`, the loss. `adapt_lower_bound=True` estimates $f_*$, from `lower_bound`.

    >>> optimizer = momo()
    >>> params = {"w": torch.tensor([1.0, 2.0])}
    >>> loss, gradient = (params["w"] ** 2).sum(), {"w": 2 * params["w"]}
    >>> optimizer.update(gradient, optimizer.init(params), params, value=loss)[0]
    {'w': tensor([-0.5000, -1.0000])}
    """
    decay_rate(beta, "beta"), scalar(lower_bound, "lower_bound"), scalar(weight_decay, "weight_decay")
    is_schedule(learning_rate, "learning_rate")

    def init(params: PyTree) -> MomoState:
        return MomoState(
            exp_avg=moment_zeros(params),
            barf=stored(0.0, params),
            gamma=stored(0.0, params),
            lb=stored(lower_bound, params),
            count=zero_count(params),
        )

    def update(updates: PyTree, state: MomoState, params: PyTree = None, **extra: Any) -> tuple[PyTree, MomoState]:
        weights, value = needed(params, "momo"), loss_value(extra, "momo")
        kept = beta * (state.count > 0).to(state.barf.dtype)
        _, mean = each(lambda g, m: (g, kept * m + (1 - kept) * g), updates, exp_avg=state.exp_avg)
        barf = kept * state.barf + (1 - kept) * value
        gamma = kept * state.gamma + (1 - kept) * inner(updates, weights)
        rate = value_at(learning_rate, state.count, "learning_rate")
        moved, bound = _stepped(
            updates, weights, mean, mean, barf, gamma, state.lb, rate, 1, weight_decay, lower_bound, adapt_lower_bound
        )
        return moved, MomoState(mean, *_like(state.barf, barf, gamma, bound), increment(state.count))

    return stateful(MomoState, init, update)


class MomoAdamState(NamedTuple):
    """The running means of gradients, their squares, losses and slopes, the lower bound, and the step count."""

    exp_avg: PyTree
    exp_avg_sq: PyTree
    """like the parameters; real for complex ones"""
    barf: Tensor
    gamma: Tensor
    lb: Tensor
    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""


def momo_adam(
    learning_rate: ScalarOrSchedule = 1e-2,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    lower_bound: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    adapt_lower_bound: bool = False,
) -> GradientTransformation:
    r"""AdamW with a step from the loss, at most the learning rate (Schaipp et al., arXiv:2305.07583).

    As `momo`, with $c = 1 - \beta_1^t$, the norm of Adam, $D = \varepsilon + \sqrt{\nu_t / (1 - \beta_2^t)}$, and all
    means beginning at zero:

    $$\tau = \min\left(\frac{\eta}{c}, \frac{\max(a (\bar f - c f_* - \gamma) + \langle d, \theta \rangle, 0)}
    {\langle d, d / D \rangle}\right), \quad u = -\tau d / D - \frac{\eta \lambda}{a} \theta$$

    >>> optimizer = momo_adam(1.0)
    >>> params = {"w": torch.tensor([1.0, 1.0])}
    >>> loss, gradient = (params["w"] ** 2).sum(), {"w": 2 * params["w"]}
    >>> optimizer.update(gradient, optimizer.init(params), params, value=loss)[0]
    {'w': tensor([-0.5000, -0.5000])}
    """
    decay_rate(b1, "b1"), decay_rate(b2, "b2"), scalar(eps, "eps"), scalar(lower_bound, "lower_bound")
    scalar(weight_decay, "weight_decay"), is_schedule(learning_rate, "learning_rate")

    def init(params: PyTree) -> MomoAdamState:
        return MomoAdamState(
            exp_avg=moment_zeros(params),
            exp_avg_sq=square_zeros(params),
            barf=stored(0.0, params),
            gamma=stored(0.0, params),
            lb=stored(lower_bound, params),
            count=zero_count(params),
        )

    def update(
        updates: PyTree, state: MomoAdamState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, MomoAdamState]:
        weights, value = needed(params, "momo_adam"), loss_value(extra, "momo_adam")
        count, dtype = increment(state.count), precise(state.exp_avg)
        first, second = correction(b1, count, dtype), correction(b2, count, dtype)

        _, mean, square = each(
            lambda g, m, v: (g, b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * abs_sq(g)),
            updates,
            exp_avg=state.exp_avg,
            exp_avg_sq=state.exp_avg_sq,
        )
        (direction,) = each(lambda m, v: m / (root(v / second) + eps), mean, square)
        barf = b1 * state.barf + (1 - b1) * value
        gamma = b1 * state.gamma + (1 - b1) * inner(updates, weights)
        rate = value_at(learning_rate, state.count, "learning_rate")
        moved, bound = _stepped(
            updates,
            weights,
            mean,
            direction,
            barf,
            gamma,
            state.lb,
            rate,
            first,
            weight_decay,
            lower_bound,
            adapt_lower_bound,
        )
        return moved, MomoAdamState(mean, square, *_like(state.barf, barf, gamma, bound), count)

    return stateful(MomoAdamState, init, update)


def _stepped(
    updates: PyTree,
    params: PyTree,
    mean: PyTree,
    direction: PyTree,
    barf: Tensor,
    gamma: Tensor,
    bound: Tensor,
    rate: Scalar,
    share: Scalar,
    weight_decay: Scalar,
    lower_bound: Scalar,
    adapt: bool,
) -> tuple[PyTree, Tensor]:
    """The updates and the next lower bound; the means are short by the factor `share`."""
    shrink = rate * weight_decay
    length, slope = inner(mean, direction), inner(mean, params)
    if adapt:
        room = (1 + shrink) * (barf - gamma) + slope
        lowered = torch.clamp(room / (2 * share * (1 + shrink)), min=lower_bound)
        bound = torch.where(room < (1 + shrink) * share * bound, lowered, bound)
    # At a stationary point no step is taken.
    still = length <= torch.finfo(torch.float64).eps
    gap = torch.clamp((1 + shrink) * (barf - share * bound - gamma) + slope, min=0.0)
    step = torch.where(still, 0.0, gap / torch.where(still, 1.0, length))
    step = torch.minimum(step, torch.as_tensor(rate / share, dtype=step.dtype, device=step.device))
    if adapt:
        bound = torch.clamp((barf + slope - gamma - 0.5 * step * length) / share, min=lower_bound)
    moved, _ = each(lambda g, d, p: (-step * d - shrink / (1 + shrink) * p, d), updates, params, direction=direction)
    return moved, bound


def _like(state: Tensor, barf: Tensor, gamma: Tensor, bound: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return barf.to(state.dtype), gamma.to(state.dtype), bound.to(state.dtype)
