"""NovoGrad."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..tree import PyTree, leaves, map
from .arguments import check_floating, stateful
from .base import GradientTransformation, chain, needed
from .leafwise import abs_sq, each, moment_zeros, root, wide
from .scaling import scale_by_learning_rate
from .values import Scalar, ScalarOrSchedule, decay_rate, increment, scalar, zero_count

__all__ = ["ScaleByNovogradState", "novograd", "scale_by_novograd"]


class ScaleByNovogradState(NamedTuple):
    """How many updates were made, momentum, and the running mean of each leaf's squared length."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""
    mu: PyTree
    """like the parameters"""
    nu: PyTree
    """a 0-dim tensor for each parameter"""


def scale_by_novograd(
    b1: Scalar = 0.9,
    b2: Scalar = 0.25,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
) -> GradientTransformation:
    r"""Divide each leaf by its running length, then sum with decay (Ginsburg et al., arXiv:1905.11286).

    $$\nu_1 = \lVert g_1 \rVert^2, \quad \nu_t = \beta_2 \nu_{t-1} + (1 - \beta_2) \lVert g_t \rVert^2, \quad
    u_t = \beta_1 u_{t-1} + \frac{g_t}{\sqrt{\nu_t + \varepsilon_r} + \varepsilon} + \lambda \theta$$

    `mu_dtype` stores the sum in another dtype.

    >>> rule = scale_by_novograd()
    >>> params = {"w": torch.zeros(2)}
    >>> rule.update({"w": torch.tensor([3.0, 4.0])}, rule.init(params), params)[0]
    {'w': tensor([0.6000, 0.8000])}
    """
    decay_rate(b1, "b1"), decay_rate(b2, "b2"), scalar(eps, "eps")
    scalar(eps_root, "eps_root"), scalar(weight_decay, "weight_decay")

    def init(params: PyTree) -> ScaleByNovogradState:
        check_floating(leaves(params), params, "params")
        nu = map(lambda p: p.new_zeros((), dtype=wide(p.dtype).to_real()), params)
        return ScaleByNovogradState(count=zero_count(params), mu=moment_zeros(params, mu_dtype), nu=nu)

    def update(
        updates: PyTree, state: ScaleByNovogradState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleByNovogradState]:
        def leaf(g: Tensor, m: Tensor, v: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            square = torch.sum(abs_sq(g))
            v = torch.where(state.count == 0, square, b2 * v + (1 - b2) * square)
            m = b1 * m + g / (root(v + eps_root) + eps) + weight_decay * p
            return m, m, v

        weights = needed(params, "scale_by_novograd")
        moved, mu, nu = each(leaf, updates, weights, mu=state.mu, own={"nu": state.nu})
        return moved, ScaleByNovogradState(count=increment(state.count), mu=mu, nu=nu)

    return stateful(ScaleByNovogradState, init, update)


def novograd(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.25,
    eps: Scalar = 1e-6,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
) -> GradientTransformation:
    r"""NovoGrad: $u = -\eta$ times `scale_by_novograd`, which tells the rest of the arguments (arXiv:1905.11286).

    >>> optimizer = novograd(0.1)
    >>> params = {"w": torch.zeros(2)}
    >>> optimizer.update({"w": torch.tensor([3.0, 4.0])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.0600, -0.0800])}
    """
    return chain(scale_by_novograd(b1, b2, eps, eps_root, weight_decay), scale_by_learning_rate(learning_rate))
