"""RAdam."""

from typing import Any

import torch
from torch import Tensor

from ..tree import PyTree
from .adam import ScaleByAdamState
from .arguments import stateful
from .base import GradientTransformation, chain
from .leafwise import abs_sq, each, moment_zeros, root, square_zeros, unbiased
from .scaling import scale_by_learning_rate
from .values import Scalar, ScalarOrSchedule, correction, decay_rate, increment, precise, scalar, zero_count

__all__ = ["radam", "scale_by_radam"]


def scale_by_radam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    threshold: Scalar = 5.0,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    r"""Adam that waits until its mean of squares can be relied on (Liu et al., arXiv:1908.03265).

    $$\rho_\infty = \frac{2}{1 - \beta_2} - 1, \quad \rho_t = \rho_\infty - \frac{2 t \beta_2^t}{1 - \beta_2^t}, \quad
    r_t = \sqrt{\frac{(\rho_t - 4)(\rho_t - 2) \rho_\infty}{(\rho_\infty - 4)(\rho_\infty - 2) \rho_t}}$$

    $u_t = r_t\, \mathrm{adam}(g)_t$ where $\rho_t$ is at least `threshold`, and the corrected mean of the gradients
    before. `nesterov` is that of `scale_by_adam`.

    >>> rule = scale_by_radam()
    >>> params = {"w": torch.zeros(1)}
    >>> rule.update({"w": torch.tensor([3.0])}, rule.init(params), params)[0]
    {'w': tensor([3.])}
    """
    decay_rate(b1, "b1"), decay_rate(b2, "b2"), scalar(eps, "eps")
    scalar(eps_root, "eps_root"), scalar(threshold, "threshold")

    def init(params: PyTree) -> ScaleByAdamState:
        return ScaleByAdamState(count=zero_count(params), mu=moment_zeros(params), nu=square_zeros(params))

    def update(
        updates: PyTree, state: ScaleByAdamState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleByAdamState]:
        count, dtype = increment(state.count), precise(state.nu)
        mean, second = unbiased(b1, count, dtype, nesterov), correction(b2, count, dtype)
        length, rectified = rectification(b2, count, dtype)
        ready = length >= threshold

        def leaf(g: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * abs_sq(g)
            m_hat = mean(m, g)
            return torch.where(ready, rectified * m_hat / (root(v / second + eps_root) + eps), m_hat), m, v

        moved, mu, nu = each(leaf, updates, mu=state.mu, nu=state.nu)
        return moved, ScaleByAdamState(count=count, mu=mu, nu=nu)

    return stateful(ScaleByAdamState, init, update)


def rectification(b2: Scalar, count: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    r"""$\rho_t$, and $r_t$ where that is above 4 (1 elsewhere, so that derivatives are finite)."""
    # What is left after two subtractions, so in double precision wherever there is one.
    exact = dtype if count.device.type == "mps" else torch.float64
    longest, gone = 2 / (1 - b2) - 1, correction(b2, count, exact)
    length = longest - 2 * count * (1 - gone) / gone
    rho = torch.where(length > 4, length, 5.0)
    square = (rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho)
    return length, torch.sqrt(torch.where(length > 4, square, 1.0)).to(dtype)


def radam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    threshold: Scalar = 5.0,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    r"""RAdam: $u = -\eta$ times `scale_by_radam`, which tells the rest of the arguments (arXiv:1908.03265).

    `torch.optim.RAdam` adds its `eps` before it corrects the mean of squares.

    >>> optimizer = radam(0.1)
    >>> params = {"w": torch.zeros(1)}
    >>> optimizer.update({"w": torch.tensor([3.0])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.3000])}
    """
    rule = scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov)
    return chain(rule, scale_by_learning_rate(learning_rate))
