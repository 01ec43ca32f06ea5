"""Optimistic gradient descent and Adam, for games."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..tree import PyTree
from .adam import scale_by_adam
from .arguments import stateful
from .base import GradientTransformation, chain
from .leafwise import each, moment_zeros
from .scaling import scale, scale_by_learning_rate
from .values import Scalar, ScalarOrSchedule, device_of, scalar

__all__ = [
    "ScaleByOptimisticGradientState",
    "optimistic_adam",
    "optimistic_adam_v2",
    "optimistic_gradient_descent",
    "scale_by_optimistic_gradient",
]


class ScaleByOptimisticGradientState(NamedTuple):
    """Whether no update was made yet, and the last gradient."""

    is_initial_step: Tensor
    """bool, 0-dim"""
    previous_gradient: PyTree
    """like the parameters"""


def scale_by_optimistic_gradient(alpha: Scalar = 1.0, beta: Scalar = 1.0) -> GradientTransformation:
    r"""Guess the next gradient from the last two, $u_t = (\alpha + \beta) g_t - \beta g_{t-1}$ with $g_0 = g_1$.

    Mokhtari et al., arXiv:1901.08511.

    >>> rule = scale_by_optimistic_gradient()
    >>> params = {"w": torch.zeros(1)}
    >>> state = rule.init(params)
    >>> for g in (1.0, 3.0):
    ...     updates, state = rule.update({"w": torch.tensor([g])}, state, params)
    >>> updates["w"]
    tensor([5.])
    """
    scalar(alpha, "alpha"), scalar(beta, "beta")

    def init(params: PyTree) -> ScaleByOptimisticGradientState:
        return ScaleByOptimisticGradientState(
            is_initial_step=torch.ones((), dtype=torch.bool, device=device_of(params)),
            previous_gradient=moment_zeros(params),
        )

    def update(
        updates: PyTree, state: ScaleByOptimisticGradientState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleByOptimisticGradientState]:
        def leaf(g: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
            return (alpha + beta) * g - beta * torch.where(state.is_initial_step, g, last), g

        moved, previous = each(leaf, updates, previous_gradient=state.previous_gradient)
        return moved, ScaleByOptimisticGradientState(
            is_initial_step=torch.zeros_like(state.is_initial_step), previous_gradient=previous
        )

    return stateful(ScaleByOptimisticGradientState, init, update)


def optimistic_gradient_descent(
    learning_rate: ScalarOrSchedule, alpha: Scalar = 1.0, beta: Scalar = 1.0
) -> GradientTransformation:
    r"""Optimistic gradient descent: $u = -\eta$ times `scale_by_optimistic_gradient` (arXiv:1901.08511).

    It converges in bilinear games, where plain descent circles outward.

    >>> optimizer = optimistic_gradient_descent(0.1)
    >>> params = {"w": torch.zeros(1)}
    >>> optimizer.update({"w": torch.ones(1)}, optimizer.init(params), params)[0]
    {'w': tensor([-0.1000])}
    """
    return chain(scale_by_optimistic_gradient(alpha, beta), scale_by_learning_rate(learning_rate))


def optimistic_adam(
    learning_rate: Scalar,
    optimism: Scalar | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = True,
) -> GradientTransformation:
    r"""Optimistic Adam, $u_t = -(\eta + o) a_t + o\, a_{t-1}$, where $a$ is `scale_by_adam` (arXiv:1711.00141).

    `optimism`, $o$, is the learning rate by default. Optax deprecates it for `optimistic_adam_v2`, which takes
    schedules; here a schedule raises `TypeError`.

    >>> optimizer = optimistic_adam(0.1, nesterov=False)
    >>> params = {"w": torch.zeros(1)}
    >>> optimizer.update({"w": torch.ones(1)}, optimizer.init(params), params)[0]
    {'w': tensor([-0.1000])}
    """
    scalar(learning_rate, "learning_rate")
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_optimistic_gradient(learning_rate, learning_rate if optimism is None else optimism),
        scale(-1.0),
    )


def optimistic_adam_v2(
    learning_rate: ScalarOrSchedule,
    *,
    alpha: Scalar = 1.0,
    beta: Scalar = 1.0,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    nesterov: bool = True,
) -> GradientTransformation:
    r"""Optimistic Adam: $u = -\eta$ times `scale_by_optimistic_gradient` of `scale_by_adam` (arXiv:1711.00141).

    >>> optimizer = optimistic_adam_v2(0.1, nesterov=False)
    >>> params = {"w": torch.zeros(1)}
    >>> optimizer.update({"w": torch.ones(1)}, optimizer.init(params), params)[0]
    {'w': tensor([-0.1000])}
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_optimistic_gradient(alpha, beta),
        scale_by_learning_rate(learning_rate),
    )
