"""D-Adaptation: Adam that estimates how far the solution lies, and steps accordingly."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...tree import PyTree
from ..arguments import pair, stateful
from ..base import GradientTransformation, needed
from ..leafwise import abs_sq, dot, each, moment_zeros, quotient, root, square_zeros, total
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

__all__ = ["DAdaptAdamWState", "dadapt_adamw"]


class DAdaptAdamWState(NamedTuple):
    """Adam's means, of steps instead of gradients, and what the estimate of the distance is made of."""

    exp_avg: PyTree
    exp_avg_sq: PyTree
    """like the parameters; real for complex ones"""
    grad_sum: PyTree
    estim_lr: Tensor
    """the estimate of the learning rate, 0-dim, which only grows"""
    numerator_weighted: Tensor
    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""


def dadapt_adamw(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[Scalar, Scalar] = (0.9, 0.999),
    eps: Scalar = 1e-8,
    estim_lr0: Scalar = 1e-6,
    weight_decay: Scalar = 0.0,
) -> GradientTransformation:
    r"""AdamW without a learning rate to find, by D-Adaptation (Defazio and Mishchenko, arXiv:2301.07733).

    With $\gamma_t = d_t \eta_t \sqrt{1 - \beta_2^t} / (1 - \beta_1^t)$ and $\beta = \sqrt{\beta_2}$,

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1) \gamma_t g_t, \quad \nu_t = \beta_2 \nu_{t-1} + (1 - \beta_2) |g_t|^2, \quad
    u_t = -\frac{m_t}{\sqrt{\nu_t} + \varepsilon} - \lambda \gamma_t \theta, \quad
    s_t = \beta s_{t-1} + (1 - \beta) \gamma_t g_t$$

    $$r_t = \beta r_{t-1} + (1 - \beta) \gamma_t \left\langle g_t, \frac{s_{t-1}}{\sqrt{\nu_{t-1}} + \varepsilon}
    \right\rangle, \quad d_{t+1} = \max\left(d_t, \frac{r_t}{(1 - \beta) \lVert s_t \rVert_1}\right)$$

    `learning_rate`, a number or schedule, multiplies the estimate, which starts at `estim_lr0`. While all gradients are
    zero the estimate stays (optax makes it NaN). Needs the parameters.

    >>> optimizer = dadapt_adamw()
    >>> params = {"w": torch.ones(2)}
    >>> state = optimizer.init(params)
    >>> for _ in range(60):
    ...     updates, state = optimizer.update(params, state, params)
    ...     params = {"w": params["w"] + updates["w"]}
    >>> bool(params["w"].norm() < 0.6), bool(state.estim_lr > 1e-3)
    (True, True)
    """
    b1, b2 = pair(betas, "betas", "(0.9, 0.999)")
    decay_rate(b1, "betas[0]"), decay_rate(b2, "betas[1]"), scalar(eps, "eps"), scalar(estim_lr0, "estim_lr0")
    scalar(weight_decay, "weight_decay"), is_schedule(learning_rate, "learning_rate")
    b = b2**0.5

    def init(params: PyTree) -> DAdaptAdamWState:
        return DAdaptAdamWState(
            exp_avg=moment_zeros(params),
            exp_avg_sq=square_zeros(params),
            grad_sum=moment_zeros(params),
            estim_lr=stored(estim_lr0, params),
            numerator_weighted=stored(0.0, params),
            count=zero_count(params),
        )

    def update(
        updates: PyTree, state: DAdaptAdamWState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, DAdaptAdamWState]:
        count, dtype = increment(state.count), precise(state.exp_avg)
        bias = torch.sqrt(correction(b2, count, dtype)) / correction(b1, count, dtype)
        rate = state.estim_lr * value_at(learning_rate, state.count, "learning_rate") * bias

        def leaf(g: Tensor, m: Tensor, v: Tensor, s: Tensor, p: Tensor) -> tuple[Tensor, ...]:
            m = b1 * m + (1 - b1) * rate * g
            v = b2 * v + (1 - b2) * abs_sq(g)
            return -m / (root(v) + eps) - weight_decay * rate * p, m, v, b * s + (1 - b) * rate * g

        agreement = total(lambda g, s, v: dot(g, s / (root(v) + eps)), updates, state.grad_sum, state.exp_avg_sq)
        moved, mean, square, grad_sum = each(
            leaf,
            updates,
            needed(params, "dadapt_adamw"),
            exp_avg=state.exp_avg,
            exp_avg_sq=state.exp_avg_sq,
            grad_sum=state.grad_sum,
        )
        numerator = b * state.numerator_weighted + (1 - b) * rate * agreement
        length = (1 - b) * total(torch.abs, grad_sum)
        return moved, DAdaptAdamWState(
            exp_avg=mean,
            exp_avg_sq=square,
            grad_sum=grad_sum,
            estim_lr=torch.maximum(state.estim_lr, quotient(numerator, length)).to(dtype),
            numerator_weighted=numerator.to(dtype),
            count=count,
        )

    return stateful(DAdaptAdamWState, init, update)
