"""AdaMax, with and without weight decay."""

from typing import Any

import torch
from torch import Tensor

from ..tree import PyTree
from .adam import ScaleByAdamState
from .arguments import stateful
from .base import GradientTransformation, chain
from .leafwise import each, moment_zeros, square_zeros, unbiased
from .scaling import scale_by_learning_rate
from .values import Scalar, ScalarOrSchedule, decay_rate, increment, precise, scalar, zero_count
from .weights import MaskOrFn, add_decayed_weights

__all__ = ["adamax", "adamaxw", "scale_by_adamax"]


def scale_by_adamax(b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8) -> GradientTransformation:
    r"""Divide the running mean of the gradients by their decaying maximum (Kingma and Ba, arXiv:1412.6980, section 7).

    $$\mu_t = \beta_1 \mu_{t-1} + (1 - \beta_1) g_t, \quad \nu_t = \max(\beta_2 \nu_{t-1}, |g_t| + \varepsilon), \quad
    u_t = \frac{\mu_t / (1 - \beta_1^t)}{\nu_t}$$

    >>> rule = scale_by_adamax()
    >>> params = {"w": torch.zeros(2)}
    >>> rule.update({"w": torch.tensor([3.0, -0.1])}, rule.init(params), params)[0]
    {'w': tensor([ 1., -1.])}
    """
    decay_rate(b1, "b1"), decay_rate(b2, "b2"), scalar(eps, "eps")

    def init(params: PyTree) -> ScaleByAdamState:
        return ScaleByAdamState(count=zero_count(params), mu=moment_zeros(params), nu=square_zeros(params))

    def update(
        updates: PyTree, state: ScaleByAdamState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleByAdamState]:
        count = increment(state.count)
        mean = unbiased(b1, count, precise(state.nu))

        def leaf(g: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            m = b1 * m + (1 - b1) * g
            v = torch.maximum(torch.abs(g) + eps, b2 * v)
            return mean(m, g) / v, m, v

        moved, mu, nu = each(leaf, updates, mu=state.mu, nu=state.nu)
        return moved, ScaleByAdamState(count=count, mu=mu, nu=nu)

    return stateful(ScaleByAdamState, init, update)


def adamax(
    learning_rate: ScalarOrSchedule, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8
) -> GradientTransformation:
    r"""AdaMax: $u = -\eta$ times `scale_by_adamax` (Kingma and Ba, arXiv:1412.6980). Equals `torch.optim.Adamax`.

    >>> optimizer = adamax(0.1)
    >>> params = {"w": torch.zeros(1)}
    >>> optimizer.update({"w": torch.ones(1)}, optimizer.init(params), params)[0]
    {'w': tensor([-0.1000])}
    """
    return chain(scale_by_adamax(b1, b2, eps), scale_by_learning_rate(learning_rate))


def adamaxw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: MaskOrFn = None,
) -> GradientTransformation:
    r"""AdaMax with decoupled weight decay, $u = -\eta (\mathrm{adamax}(g) + \lambda \theta)$ (see `adamw`).

    >>> optimizer = adamaxw(0.1, weight_decay=0.5)
    >>> params = {"w": torch.ones(1)}
    >>> optimizer.update({"w": torch.ones(1)}, optimizer.init(params), params)[0]
    {'w': tensor([-0.1500])}
    """
    return chain(
        scale_by_adamax(b1, b2, eps), add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate)
    )
