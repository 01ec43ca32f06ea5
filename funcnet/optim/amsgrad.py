"""AMSGrad."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..tree import PyTree
from .arguments import stateful
from .base import GradientTransformation, chain
from .leafwise import abs_sq, each, moment_zeros, root, square_zeros, unbiased
from .scaling import scale_by_learning_rate
from .values import Scalar, ScalarOrSchedule, decay_rate, increment, precise, scalar, zero_count

__all__ = ["ScaleByAmsgradState", "amsgrad", "scale_by_amsgrad"]


class ScaleByAmsgradState(NamedTuple):
    """Adam's state, and the largest that the running mean of the squares has been."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""
    mu: PyTree
    """like the parameters"""
    nu: PyTree
    """like the parameters; real for complex ones"""
    nu_max: PyTree
    """like `nu`"""


def scale_by_amsgrad(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
) -> GradientTransformation:
    r"""Adam, divided by a mean of squares that never shrinks (Reddi et al. 2018, openreview.net/forum?id=ryQu7f-RZ).

    $$\hat\nu_t = \max(\hat\nu_{t-1}, \nu_t / (1 - \beta_2^t)), \quad
    u_t = \frac{\mu_t / (1 - \beta_1^t)}{\sqrt{\hat\nu_t + \varepsilon_r} + \varepsilon}$$

    with the means of `scale_by_adam`. Without `bias_correction_mu` or `bias_correction_nu` they are taken as they are.
    `torch.optim.Adam(amsgrad=True)` corrects the maximum and not what it is the maximum of.

    >>> rule = scale_by_amsgrad()
    >>> params = {"w": torch.zeros(2)}
    >>> rule.update({"w": torch.tensor([3.0, -0.1])}, rule.init(params), params)[0]
    {'w': tensor([ 1.0000, -1.0000])}
    """
    decay_rate(b1, "b1"), decay_rate(b2, "b2"), scalar(eps, "eps"), scalar(eps_root, "eps_root")

    def init(params: PyTree) -> ScaleByAmsgradState:
        return ScaleByAmsgradState(
            count=zero_count(params),
            mu=moment_zeros(params, mu_dtype),
            nu=square_zeros(params),
            nu_max=square_zeros(params),
        )

    def update(
        updates: PyTree, state: ScaleByAmsgradState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleByAmsgradState]:
        count, dtype = increment(state.count), precise(state.nu)
        mean, square = unbiased(b1, count, dtype), unbiased(b2, count, dtype)

        def leaf(g: Tensor, m: Tensor, v: Tensor, largest: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * abs_sq(g)
            largest = torch.maximum(largest, square(v, g) if bias_correction_nu else v)
            m_hat = mean(m, g) if bias_correction_mu else m
            return m_hat / (root(largest + eps_root) + eps), m, v, largest

        moved, mu, nu, nu_max = each(leaf, updates, mu=state.mu, nu=state.nu, nu_max=state.nu_max)
        return moved, ScaleByAmsgradState(count=count, mu=mu, nu=nu, nu_max=nu_max)

    return stateful(ScaleByAmsgradState, init, update)


def amsgrad(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
) -> GradientTransformation:
    r"""AMSGrad: $u = -\eta$ times `scale_by_amsgrad`, which tells the rest of the arguments.

    >>> optimizer = amsgrad(0.1)
    >>> params = {"w": torch.zeros(1)}
    >>> optimizer.update({"w": torch.ones(1)}, optimizer.init(params), params)[0]
    {'w': tensor([-0.1000])}
    """
    rule = scale_by_amsgrad(b1, b2, eps, eps_root, mu_dtype, bias_correction_mu, bias_correction_nu)
    return chain(rule, scale_by_learning_rate(learning_rate))
