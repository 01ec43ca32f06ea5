"""Adan."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..tree import PyTree
from .arguments import stateful
from .base import GradientTransformation, chain
from .leafwise import abs_sq, each, moment_zeros, root, square_zeros, unbiased
from .scaling import scale_by_learning_rate
from .values import Scalar, ScalarOrSchedule, decay_rate, increment, precise, scalar, zero_count
from .weights import MaskOrFn, add_decayed_weights

__all__ = ["ScaleByAdanState", "adan", "scale_by_adan"]


class ScaleByAdanState(NamedTuple):
    """Three running means, the last gradient, and how many updates were made."""

    m: PyTree
    """of the gradients"""
    v: PyTree
    """of their differences"""
    n: PyTree
    """of the squares; real for complex parameters"""
    g: PyTree
    """the last gradient"""
    t: Tensor
    """int32, 0-dim"""


def scale_by_adan(
    b1: Scalar = 0.98, b2: Scalar = 0.92, b3: Scalar = 0.99, eps: Scalar = 1e-8, eps_root: Scalar = 0.0
) -> GradientTransformation:
    r"""Nesterov's momentum from the gradients' differences, over a mean of squares (Xie et al., arXiv:2208.06677).

    With $d_t = g_t - g_{t-1}$, $d_1 = 0$, and running means $m$ of $g$ (decay $\beta_1$), $v$ of $d$ ($\beta_2$) and
    $n$ of $|g + (1 - \beta_2) d|^2$ ($\beta_3$), each divided by $1 - \beta^t$:

    $$u_t = \frac{\hat m_t + (1 - \beta_2) \hat v_t}{\sqrt{\hat n_t + \varepsilon_r} + \varepsilon}$$

    The decays are what is kept, one minus those of the paper, whose factor of the differences is therefore
    $1 - \beta_2$ here, as in Optax.

    >>> rule = scale_by_adan()
    >>> params = {"w": torch.zeros(2)}
    >>> rule.update({"w": torch.tensor([3.0, -0.1])}, rule.init(params), params)[0]
    {'w': tensor([ 1., -1.])}
    """
    decay_rate(b1, "b1"), decay_rate(b2, "b2"), decay_rate(b3, "b3")
    scalar(eps, "eps"), scalar(eps_root, "eps_root")

    def init(params: PyTree) -> ScaleByAdanState:
        return ScaleByAdanState(
            m=moment_zeros(params),
            v=moment_zeros(params),
            n=square_zeros(params),
            g=moment_zeros(params),
            t=zero_count(params),
        )

    def update(
        updates: PyTree, state: ScaleByAdanState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleByAdanState]:
        first, t, dtype = state.t == 0, increment(state.t), precise(state.n)
        means = [unbiased(decay, t, dtype) for decay in (b1, b2, b3)]

        def leaf(g: Tensor, m: Tensor, v: Tensor, n: Tensor, last: Tensor) -> tuple[Tensor, ...]:
            d = torch.where(first, 0.0, g - last)
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * d
            n = b3 * n + (1 - b3) * abs_sq(g + (1 - b2) * d)
            m_hat, v_hat, n_hat = (mean(x, g) for mean, x in zip(means, (m, v, n), strict=True))
            return (m_hat + (1 - b2) * v_hat) / (root(n_hat + eps_root) + eps), m, v, n, g

        moved, m, v, n, g = each(leaf, updates, m=state.m, v=state.v, n=state.n, g=state.g)
        return moved, ScaleByAdanState(m=m, v=v, n=n, g=g, t=t)

    return stateful(ScaleByAdanState, init, update)


def adan(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.98,
    b2: Scalar = 0.92,
    b3: Scalar = 0.99,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn = None,
) -> GradientTransformation:
    r"""Adan with decoupled weight decay, $u = -\eta (\mathrm{adan}(g) + \lambda \theta)$ (arXiv:2208.06677).

    `scale_by_adan` tells the decays. The paper's own weight decay divides by $1 + \lambda \eta$.

    >>> optimizer = adan(0.1)
    >>> params = {"w": torch.zeros(1)}
    >>> optimizer.update({"w": torch.ones(1)}, optimizer.init(params), params)[0]
    {'w': tensor([-0.1000])}
    """
    return chain(
        scale_by_adan(b1, b2, b3, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
