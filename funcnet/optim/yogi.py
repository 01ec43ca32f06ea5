"""Yogi."""

from typing import Any

from torch import Tensor

from ..tree import PyTree
from .adam import ScaleByAdamState
from .arguments import stateful
from .base import GradientTransformation, chain
from .leafwise import abs_sq, each, filled, moment_zeros, root, sign, square_zeros, unbiased
from .scaling import scale_by_learning_rate
from .values import Scalar, ScalarOrSchedule, correction, decay_rate, increment, precise, scalar, zero_count

__all__ = ["scale_by_yogi", "yogi"]


def scale_by_yogi(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-3,
    eps_root: Scalar = 0.0,
    initial_accumulator_value: Scalar = 1e-6,
) -> GradientTransformation:
    r"""Adam, whose mean of squares changes by no more than a gradient's square (Zaheer et al. 2018).

    $$\nu_t = \nu_{t-1} - (1 - \beta_2) \operatorname{sign}(\nu_{t-1} - |g_t|^2)\, |g_t|^2$$

    with the rest as in `scale_by_adam`. As in Optax, both means begin at `initial_accumulator_value`
    (papers.nips.cc/paper/8186).

    >>> import torch
    >>> rule = scale_by_yogi()
    >>> params = {"w": torch.zeros(1)}
    >>> rule.update({"w": torch.tensor([3.0])}, rule.init(params), params)[0]
    {'w': tensor([0.9996])}
    """
    decay_rate(b1, "b1"), decay_rate(b2, "b2"), scalar(eps, "eps"), scalar(eps_root, "eps_root")
    scalar(initial_accumulator_value, "initial_accumulator_value")

    def init(params: PyTree) -> ScaleByAdamState:
        return ScaleByAdamState(
            count=zero_count(params),
            mu=filled(moment_zeros(params), initial_accumulator_value),
            nu=filled(square_zeros(params), initial_accumulator_value),
        )

    def update(
        updates: PyTree, state: ScaleByAdamState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleByAdamState]:
        count, dtype = increment(state.count), precise(state.nu)
        mean, second = unbiased(b1, count, dtype), correction(b2, count, dtype)

        def leaf(g: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            m = b1 * m + (1 - b1) * g
            square = abs_sq(g)
            v = v - (1 - b2) * sign(v - square) * square
            return mean(m, g) / (root(v / second + eps_root) + eps), m, v

        moved, mu, nu = each(leaf, updates, mu=state.mu, nu=state.nu)
        return moved, ScaleByAdamState(count=count, mu=mu, nu=nu)

    return stateful(ScaleByAdamState, init, update)


def yogi(
    learning_rate: ScalarOrSchedule, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-3
) -> GradientTransformation:
    r"""Yogi: $u = -\eta$ times `scale_by_yogi` (Zaheer et al. 2018, papers.nips.cc/paper/8186).

    >>> import torch
    >>> optimizer = yogi(0.1)
    >>> params = {"w": torch.zeros(1)}
    >>> optimizer.update({"w": torch.tensor([3.0])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.1000])}
    """
    return chain(scale_by_yogi(b1, b2, eps), scale_by_learning_rate(learning_rate))
