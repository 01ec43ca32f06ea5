"""Mechanic: the learning rate of any optimizer, learned."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...tree import PyTree, global_norm
from ..arguments import stateful, whole
from ..base import GradientTransformation, needed, with_extra_args_support
from ..leafwise import copied, each, inner, root
from ..values import Scalar, increment, scalar, stored, zero_count

__all__ = ["MechanicState", "mechanize"]


class MechanicState(NamedTuple):
    """The state of the optimizer, the first parameters, and for each decay what its bettor knows."""

    base_optimizer_state: Any
    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""
    r: Tensor
    """the rewards, (num_betas,)"""
    m: Tensor
    """the largest slope seen, (num_betas,)"""
    v: Tensor
    """the sum of squared slopes, (num_betas,)"""
    s: Tensor
    """the parts of the scale, (num_betas,)"""
    x0: PyTree


def mechanize(
    base_optimizer: GradientTransformation,
    weight_decay: Scalar = 1e-2,
    eps: Scalar = 1e-8,
    s_init: Scalar = 1e-6,
    num_betas: int = 6,
) -> GradientTransformation:
    r"""Learn how far to follow an optimizer (Cutkosky et al., arXiv:2306.00144).

    The parameters are $\theta_0 + s \Delta$: what the optimizer has added up, times a scale that bettors set, one for
    each decay $\beta_i = 1 - 10^{-i}$. With $d = (\theta_0 - \theta) / (\sum_i s_i + \varepsilon)$ and the slope
    $h = \langle g + \lambda \sum_i s_i \frac{\lVert g \rVert}{\lVert \theta \rVert + \varepsilon} \theta, d \rangle$,

    $$m_i = \max(\beta_i m_i, |h| + \varepsilon), \quad v_i = \beta_i^2 v_i + h^2, \quad
    r_i = \beta_i r_i + \mathrm{clip}(h, -m_i, m_i) s_i, \quad
    s_i = \frac{s_0 m_i / n + \max(r_i, 0)}{\sqrt{v_i} + \varepsilon}$$

    (the clip uses the last $m_i$), and $\theta + u = \theta_0 - \sum_i s_i (d - u_\mathrm{base})$. Give the optimizer a
    learning rate of about 1, or a schedule that peaks there. The first update stores $\theta_0$, so the parameters may
    change after `init`. Needs the parameters.

    Raises `ValueError` where `num_betas` is not positive.

    >>> from funcnet.optim import sgd
    >>> optimizer = mechanize(sgd(1.0), s_init=0.1)
    >>> params = {"w": torch.ones(2)}
    >>> optimizer.update({"w": torch.tensor([3.0, -0.1])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.3000,  0.0100])}
    """
    scalar(weight_decay, "weight_decay"), scalar(eps, "eps"), scalar(s_init, "s_init")
    whole(num_betas, "num_betas", "the decays 0.9, 0.99, ...")
    base = with_extra_args_support(base_optimizer)

    def init(params: PyTree) -> MechanicState:
        empty = stored(0.0, params).expand(num_betas)
        return MechanicState(
            base_optimizer_state=base.init(params),
            count=zero_count(params),
            r=empty.clone(),
            m=empty.clone(),
            v=empty.clone(),
            s=stored(s_init, params).expand(num_betas).clone(),
            x0=copied(params),
        )

    def update(
        updates: PyTree, state: MechanicState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, MechanicState]:
        weights = needed(params, "mechanize")
        followed, base_state = base.update(updates, state.base_optimizer_state, weights, **extra)
        initial = state.count == 0
        _, x0 = each(lambda p, x0: (p, torch.where(initial, p, x0)), weights, x0=state.x0)

        old = state.s.sum()
        (away,) = each(lambda x0, p: (x0 - p) / (old + eps), x0, weights)
        pull = weight_decay * old * global_norm(updates) / (global_norm(weights) + eps)
        slope = inner(updates, away) + pull * inner(weights, away)

        powers = torch.arange(1, num_betas + 1, dtype=state.s.dtype, device=state.s.device)
        betas = 1 - 0.1**powers
        clipped = torch.maximum(torch.minimum(slope, state.m), -state.m)
        m = torch.maximum(betas * state.m, torch.abs(slope) + eps)
        v = betas**2 * state.v + slope**2
        r = betas * state.r + clipped * state.s
        s = (s_init / num_betas * m + r.clamp(min=0)) / (root(v) + eps)
        new = s.sum()
        moved, *_ = each(lambda u, x0, d, p: (x0 - new * (d - u) - p, x0, d), followed, weights, x0=x0, away=away)
        return moved, MechanicState(base_state, increment(state.count), r, m, v, s, x0)

    return stateful(MechanicState, init, update)
