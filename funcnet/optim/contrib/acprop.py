"""ACProp: AdaBelief whose denominator is one step behind."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...tree import PyTree
from ..adabelief import ScaleByBeliefState
from ..arguments import stateful
from ..base import GradientTransformation, chain
from ..leafwise import abs_sq, each, moment_zeros, root, square_zeros
from ..scaling import scale_by_learning_rate
from ..values import Scalar, ScalarOrSchedule, correction, decay_rate, increment, precise, scalar, zero_count
from ..weights import add_decayed_weights

__all__ = ["acprop", "scale_by_acprop"]


def scale_by_acprop(
    b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-16, eps_root: Scalar = 1e-16
) -> GradientTransformation:
    r"""Divide gradients by the root of their variance as it was before them (Zhuang et al., arXiv:2110.05454).

    $$\mu_t = \beta_1 \mu_{t-1} + (1 - \beta_1) g_t, \quad \nu_t = \beta_2 \nu_{t-1} + (1 - \beta_2)
    |g_t - \mu_{t-1}|^2 + \varepsilon_r, \quad u_t = \frac{g_t}{\sqrt{\nu_{t-1} / (1 - \beta_2^{t-1})} +
    \varepsilon}$$

    The first update is $g_1$ itself.

    >>> rule = scale_by_acprop()
    >>> params = {"w": torch.zeros(2)}
    >>> rule.update({"w": torch.tensor([3.0, -0.1])}, rule.init(params), params)[0]
    {'w': tensor([ 3.0000, -0.1000])}
    """
    decay_rate(b1, "b1"), decay_rate(b2, "b2"), scalar(eps, "eps"), scalar(eps_root, "eps_root")

    def init(params: PyTree) -> ScaleByBeliefState:
        return ScaleByBeliefState(count=zero_count(params), mu=moment_zeros(params), nu=square_zeros(params))

    def update(
        updates: PyTree, state: ScaleByBeliefState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleByBeliefState]:
        dtype = precise(state.nu)
        initial = (state.count == 0).to(dtype)
        # At first the variance is zero: the quotient is made 0 / 1, and the whole 1.
        second = correction(b2, state.count.clamp(min=1), dtype)

        def leaf(g: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            mean = b1 * m + (1 - b1) * g
            variance = b2 * v + (1 - b2) * abs_sq(g - m) + eps_root
            return g / (root(v / second + initial) + eps), mean, variance

        moved, mu, nu = each(leaf, updates, mu=state.mu, nu=state.nu)
        return moved, ScaleByBeliefState(count=increment(state.count), mu=mu, nu=nu)

    return stateful(ScaleByBeliefState, init, update)


def acprop(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    weight_decay: Scalar = 0.0,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> GradientTransformation:
    r"""ACProp, $u = -\eta (\mathrm{acprop}(g) + \lambda \theta)$ (Zhuang et al., arXiv:2110.05454).

    `scale_by_acprop` tells the arguments up to `eps_root`, `add_decayed_weights` the rest.

    >>> optimizer = acprop(0.1)
    >>> params = {"w": torch.zeros(2)}
    >>> optimizer.update({"w": torch.tensor([3.0, -0.1])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.3000,  0.0100])}
    """
    return chain(
        scale_by_acprop(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
