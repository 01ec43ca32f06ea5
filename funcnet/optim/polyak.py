"""Gradient descent with Polyak's step size."""

from typing import Any

import torch

from ..tree import PyTree, global_norm
from .arguments import loss_value
from .base import EmptyState, GradientTransformation, chain, init_empty_state
from .leafwise import scaled
from .sgd import sgd
from .values import Scalar, ScalarOrSchedule, scalar

__all__ = ["polyak_sgd", "scale_by_polyak"]


def scale_by_polyak(
    f_min: Scalar = 0.0, max_learning_rate: Scalar = 1.0, eps: Scalar = 0.0, variant: str = "sps"
) -> GradientTransformation:
    r"""Scale by Polyak's step, which would reach `f_min` if the loss were a line (Loizou et al., arXiv:2002.10542).

    $$u = \min\left(\frac{f(\theta) - f_{\min}}{\lVert g \rVert^2 + \varepsilon}, \eta_{\max}\right) g$$

    `update` needs the loss $f(\theta)$ as `value=`. With `variant="sps+"` a loss below `f_min` makes no step, where
    "sps" goes back. The step is 0 where the denominator vanishes. Raises `ValueError` for another variant, and where
    `value` is missing.

    >>> rule = scale_by_polyak()
    >>> params = {"w": torch.zeros(2)}
    >>> rule.update({"w": torch.tensor([3.0, 4.0])}, rule.init(params), params, value=5.0)[0]
    {'w': tensor([0.6000, 0.8000])}
    """
    scalar(f_min, "f_min"), scalar(max_learning_rate, "max_learning_rate"), scalar(eps, "eps")
    if variant not in ("sps", "sps+"):
        raise ValueError(f'variant is {variant!r}, and scale_by_polyak knows "sps" and "sps+".')

    def update(updates: PyTree, state: EmptyState, params: PyTree = None, **extra: Any) -> tuple[PyTree, EmptyState]:
        value = loss_value(extra, "scale_by_polyak")
        square = global_norm(updates) ** 2 + eps
        gap = torch.as_tensor(value - f_min, dtype=square.dtype, device=square.device)
        if variant == "sps+":
            gap = torch.relu(gap)
        moves = square > torch.finfo(torch.float64).eps  # Optax's bound, in float32 as well
        step = torch.clamp(gap / torch.where(moves, square, 1.0), max=max_learning_rate)
        return scaled(updates, torch.where(moves, step, 0.0)), state

    return GradientTransformation(init_empty_state, update)


def polyak_sgd(
    max_learning_rate: Scalar = 1.0,
    scaling: ScalarOrSchedule = 1.0,
    f_min: Scalar = 0.0,
    eps: Scalar = 0.0,
    variant: str = "sps",
) -> GradientTransformation:
    r"""Gradient descent with Polyak's step: `scale_by_polyak` of `sgd(scaling)` (Loizou et al., arXiv:2002.10542).

    `update` needs the loss as `value=`. As in Optax the step is that of the scaled gradients $s g$, so that `scaling`
    makes steps larger where it is smaller.

    >>> optimizer = polyak_sgd()
    >>> params = {"w": torch.zeros(2)}
    >>> optimizer.update({"w": torch.tensor([3.0, 4.0])}, optimizer.init(params), params, value=5.0)[0]
    {'w': tensor([-0.6000, -0.8000])}
    """
    return chain(sgd(scaling), scale_by_polyak(f_min, max_learning_rate, eps, variant))
