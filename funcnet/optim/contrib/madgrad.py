"""MADGRAD: dual averaging with momentum."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...tree import PyTree
from ..arguments import stateful
from ..base import GradientTransformation, chain, needed
from ..leafwise import abs_sq, copied, each, moment_zeros, root, square_zeros
from ..values import (
    Scalar,
    ScalarOrSchedule,
    decay_rate,
    increment,
    is_schedule,
    precise,
    scalar,
    value_at,
    zero_count,
)
from ..weights import add_decayed_weights

__all__ = ["MadgradState", "madgrad", "scale_by_madgrad"]


class MadgradState(NamedTuple):
    """The step count, the weighted sums of the gradients' squares and of the gradients, and the first parameters."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""
    grad_sum_sq: PyTree
    """like the parameters; real for complex ones"""
    s: PyTree
    x0: PyTree


def scale_by_madgrad(
    learning_rate: ScalarOrSchedule, momentum: Scalar = 0.9, eps: Scalar = 1e-6
) -> GradientTransformation:
    r"""Step from the first parameters by the weighted sum of all gradients (Defazio and Jelassi, arXiv:2101.11075).

    With $\lambda_t = (\eta_t + \varepsilon) \sqrt{t + 1}$, where $t = 0, 1, \ldots$,

    $$G_t = G_{t-1} + \lambda_t |g_t|^2, \quad s_t = s_{t-1} + \lambda_t g_t, \quad
    u_t = (1 - \beta) \left( \theta_0 - \frac{s_t}{\sqrt[3]{G_t} + \varepsilon} - \theta_t \right)$$

    The updates go downhill: no learning rate is to follow. Needs the parameters.

    >>> rule = scale_by_madgrad(0.1)
    >>> params = {"w": torch.zeros(2)}
    >>> rule.update({"w": torch.tensor([3.0, -0.1])}, rule.init(params), params)[0]
    {'w': tensor([-0.0311,  0.0100])}
    """
    is_schedule(learning_rate, "learning_rate"), decay_rate(momentum, "momentum"), scalar(eps, "eps")

    def init(params: PyTree) -> MadgradState:
        return MadgradState(
            count=zero_count(params), grad_sum_sq=square_zeros(params), s=moment_zeros(params), x0=copied(params)
        )

    def update(
        updates: PyTree, state: MadgradState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, MadgradState]:
        count = increment(state.count)
        rate = value_at(learning_rate, state.count, "learning_rate")
        weight = (rate + eps) * torch.sqrt(count.to(precise(state.s)))

        def leaf(g: Tensor, square: Tensor, s: Tensor, x0: Tensor, p: Tensor) -> tuple[Tensor, ...]:
            square = square + weight * abs_sq(g)
            s = s + weight * g
            return (1 - momentum) * (x0 - s / (root(square, 3) + eps) - p), square, s, x0

        weights = needed(params, "scale_by_madgrad")
        moved, squares, s, _ = each(leaf, updates, weights, grad_sum_sq=state.grad_sum_sq, s=state.s, x0=state.x0)
        return moved, MadgradState(count=count, grad_sum_sq=squares, s=s, x0=state.x0)

    return stateful(MadgradState, init, update)


def madgrad(
    learning_rate: ScalarOrSchedule, momentum: Scalar = 0.9, weight_decay: Scalar = 0.0, eps: Scalar = 1e-6
) -> GradientTransformation:
    r"""MADGRAD: `scale_by_madgrad`, which tells the arguments, of $g + \lambda \theta$ (arXiv:2101.11075).

    >>> optimizer = madgrad(0.1)
    >>> params = {"w": torch.zeros(2)}
    >>> optimizer.update({"w": torch.tensor([3.0, -0.1])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.0311,  0.0100])}
    """
    return chain(add_decayed_weights(weight_decay), scale_by_madgrad(learning_rate, momentum, eps))
