"""Prodigy: D-Adaptation that adapts faster."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...tree import PyTree
from ..arguments import pair, stateful
from ..base import GradientTransformation, needed
from ..leafwise import abs_sq, copied, dot, each, moment_zeros, quotient, root, square_zeros, total
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

__all__ = ["ProdigyState", "prodigy"]


class ProdigyState(NamedTuple):
    """Adam's means, of gradients times the estimate, and what the estimate of the distance is made of."""

    exp_avg: PyTree
    exp_avg_sq: PyTree
    """like the parameters; real for complex ones"""
    grad_sum: PyTree
    params0: PyTree
    """the first parameters"""
    estim_lr: Tensor
    """the estimate of the learning rate, 0-dim, which only grows"""
    numerator_weighted: Tensor
    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""


def prodigy(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[Scalar, Scalar] = (0.9, 0.999),
    beta3: Scalar | None = None,
    eps: Scalar = 1e-8,
    estim_lr0: Scalar = 1e-6,
    estim_lr_coef: Scalar = 1.0,
    weight_decay: Scalar = 0.0,
    safeguard_warmup: bool = False,
) -> GradientTransformation:
    r"""AdamW without a learning rate to find, by Prodigy (Mishchenko and Defazio, arXiv:2306.06101).

    With $\gamma_t = d_t \eta_t \sqrt{1 - \beta_2^t} / (1 - \beta_1^t)$,

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1) d_t g_t, \quad \nu_t = \beta_2 \nu_{t-1} + (1 - \beta_2) |d_t g_t|^2, \quad
    u_t = -\gamma_t \left( \frac{m_t}{\sqrt{\nu_t} + d_{t+1} \varepsilon} + \lambda \theta \right)$$

    $$r_t = \beta_3 r_{t-1} + \frac{d_t}{d_0} \gamma_t \langle g_t, \theta_0 - \theta_t \rangle, \quad
    s_t = \beta_3 s_{t-1} + \frac{d_t}{d_0} \gamma_t g_t, \quad
    d_{t+1} = \max\left(d_t, c \frac{r_t}{\lVert s_t \rVert_1}\right)$$

    `beta3` is $\sqrt{\beta_2}$ by default, `estim_lr_coef` is $c$. `safeguard_warmup=True` puts $d_t$ for $\gamma_t$
    into $s_t$, for schedules that warm up. `learning_rate`, a number or schedule, multiplies the estimate. While all
    gradients are zero the estimate stays (optax makes it NaN). Needs the parameters.

    >>> optimizer = prodigy()
    >>> params = {"w": torch.ones(2)}
    >>> state = optimizer.init(params)
    >>> for _ in range(60):
    ...     updates, state = optimizer.update(params, state, params)
    ...     params = {"w": params["w"] + updates["w"]}
    >>> bool(params["w"].norm() < 0.6), bool(state.estim_lr > 1e-3)
    (True, True)
    """
    b1, b2 = pair(betas, "betas", "(0.9, 0.999)")
    b3 = b2**0.5 if beta3 is None else beta3
    decay_rate(b1, "betas[0]"), decay_rate(b2, "betas[1]"), decay_rate(b3, "beta3"), scalar(eps, "eps")
    scalar(estim_lr0, "estim_lr0"), scalar(estim_lr_coef, "estim_lr_coef"), scalar(weight_decay, "weight_decay")
    is_schedule(learning_rate, "learning_rate")

    def init(params: PyTree) -> ProdigyState:
        return ProdigyState(
            exp_avg=moment_zeros(params),
            exp_avg_sq=square_zeros(params),
            grad_sum=moment_zeros(params),
            params0=copied(params),
            estim_lr=stored(estim_lr0, params),
            numerator_weighted=stored(0.0, params),
            count=zero_count(params),
        )

    def update(
        updates: PyTree, state: ProdigyState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ProdigyState]:
        weights = needed(params, "prodigy")
        count, dtype, d = increment(state.count), precise(state.exp_avg), state.estim_lr
        bias = torch.sqrt(correction(b2, count, dtype)) / correction(b1, count, dtype)
        rate = d * value_at(learning_rate, state.count, "learning_rate") * bias
        weight = d / estim_lr0 * (d if safeguard_warmup else rate)

        agreement = total(lambda g, p0, p: dot(g, p0 - p), updates, state.params0, weights)
        numerator = b3 * state.numerator_weighted + d / estim_lr0 * rate * agreement
        _, grad_sum = each(lambda g, s: (g, b3 * s + weight * g), updates, grad_sum=state.grad_sum)
        following = torch.maximum(d, quotient(estim_lr_coef * numerator, total(torch.abs, grad_sum)))

        def leaf(g: Tensor, m: Tensor, v: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            m = b1 * m + (1 - b1) * (d * g)
            v = b2 * v + (1 - b2) * abs_sq(d * g)
            return -rate * m / (root(v) + following * eps) - weight_decay * rate * p, m, v

        moved, mean, square = each(leaf, updates, weights, exp_avg=state.exp_avg, exp_avg_sq=state.exp_avg_sq)
        return moved, ProdigyState(
            exp_avg=mean,
            exp_avg_sq=square,
            grad_sum=grad_sum,
            params0=state.params0,
            estim_lr=following.to(dtype),
            numerator_weighted=numerator.to(dtype),
            count=count,
        )

    return stateful(ProdigyState, init, update)
