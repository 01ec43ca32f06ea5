"""AdaBelief."""

from typing import Any, NamedTuple

from torch import Tensor

from ..tree import PyTree
from .arguments import stateful
from .base import GradientTransformation, chain
from .leafwise import abs_sq, each, moment_zeros, root, square_zeros, unbiased
from .scaling import scale_by_learning_rate
from .values import Scalar, ScalarOrSchedule, correction, decay_rate, increment, precise, scalar, zero_count

__all__ = ["ScaleByBeliefState", "adabelief", "scale_by_belief"]


class ScaleByBeliefState(NamedTuple):
    """How many updates were made, and the running means of the gradients and of their squared surprise."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""
    mu: PyTree
    """like the parameters"""
    nu: PyTree
    """like the parameters; real for complex ones"""


def scale_by_belief(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    r"""Adam, divided by how far the gradients are from their running mean (Zhuang et al., arXiv:2010.07468).

    $$\mu_t = \beta_1 \mu_{t-1} + (1 - \beta_1) g_t, \quad
    \nu_t = \beta_2 \nu_{t-1} + (1 - \beta_2) |g_t - \mu_t|^2 + \varepsilon_r, \quad
    u_t = \frac{\mu_t / (1 - \beta_1^t)}{\sqrt{\nu_t / (1 - \beta_2^t)} + \varepsilon}$$

    `nesterov` is that of `scale_by_adam`.

    >>> import torch
    >>> rule = scale_by_belief()
    >>> params = {"w": torch.zeros(2)}
    >>> rule.update({"w": torch.tensor([3.0, -0.1])}, rule.init(params), params)[0]
    {'w': tensor([ 1.1111, -1.1111])}
    """
    decay_rate(b1, "b1"), decay_rate(b2, "b2"), scalar(eps, "eps"), scalar(eps_root, "eps_root")

    def init(params: PyTree) -> ScaleByBeliefState:
        return ScaleByBeliefState(count=zero_count(params), mu=moment_zeros(params), nu=square_zeros(params))

    def update(
        updates: PyTree, state: ScaleByBeliefState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleByBeliefState]:
        count, dtype = increment(state.count), precise(state.nu)
        mean, second = unbiased(b1, count, dtype, nesterov), correction(b2, count, dtype)

        def leaf(g: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * abs_sq(g - m) + eps_root
            return mean(m, g) / (root(v / second) + eps), m, v

        moved, mu, nu = each(leaf, updates, mu=state.mu, nu=state.nu)
        return moved, ScaleByBeliefState(count=count, mu=mu, nu=nu)

    return stateful(ScaleByBeliefState, init, update)


def adabelief(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    r"""AdaBelief: $u = -\eta$ times `scale_by_belief`, which tells the rest of the arguments (arXiv:2010.07468).

    >>> import torch
    >>> optimizer = adabelief(0.1)
    >>> params = {"w": torch.zeros(1)}
    >>> optimizer.update({"w": torch.ones(1)}, optimizer.init(params), params)[0]
    {'w': tensor([-0.1111])}
    """
    return chain(scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov), scale_by_learning_rate(learning_rate))
