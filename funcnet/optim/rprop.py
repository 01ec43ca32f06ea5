"""Rprop."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..tree import PyTree
from .arguments import stateful
from .base import GradientTransformation, chain
from .leafwise import each, filled, moment_zeros, sign
from .scaling import scale
from .values import Scalar, scalar

__all__ = ["ScaleByRpropState", "rprop", "scale_by_rprop"]


class ScaleByRpropState(NamedTuple):
    """Every element's step size, and its last update."""

    step_sizes: PyTree
    """like the parameters"""
    prev_updates: PyTree
    """like the parameters"""


def scale_by_rprop(
    learning_rate: Scalar,
    eta_minus: Scalar = 0.5,
    eta_plus: Scalar = 1.2,
    min_step_size: Scalar = 1e-6,
    max_step_size: Scalar = 50.0,
) -> GradientTransformation:
    r"""Steps of the gradient's sign, longer while it stays (Riedmiller and Braun 1993).

    An element's step size begins as `learning_rate`, is multiplied by `eta_plus` where the gradient keeps the last
    update's sign, by `eta_minus` where it turns, and clipped. A step is the step size times the sign, or 0 where it
    turned. As in Optax it is made one update late, and the first update is 0.

    >>> rule = scale_by_rprop(0.1)
    >>> params = {"w": torch.zeros(2)}
    >>> state = rule.init(params)
    >>> for g in (torch.tensor([3.0, 1.0]), torch.tensor([5.0, -1.0])):
    ...     updates, state = rule.update({"w": g}, state, params)
    >>> updates["w"], state.step_sizes["w"]
    (tensor([0.1000, 0.0000]), tensor([0.1200, 0.0500]))
    """
    scalar(learning_rate, "learning_rate"), scalar(eta_minus, "eta_minus"), scalar(eta_plus, "eta_plus")
    scalar(min_step_size, "min_step_size"), scalar(max_step_size, "max_step_size")

    def init(params: PyTree) -> ScaleByRpropState:
        zeros = moment_zeros(params)
        return ScaleByRpropState(step_sizes=filled(zeros, learning_rate), prev_updates=zeros)

    def update(
        updates: PyTree, state: ScaleByRpropState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleByRpropState]:
        def leaf(g: Tensor, step: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            same = g * last
            changed = torch.where(same > 0, step * eta_plus, step * eta_minus)
            changed = torch.clamp(torch.clamp(changed, min=min_step_size), max=max_step_size)
            step = torch.where(torch.eq(same, 0), step, changed)
            turned = same < 0
            return torch.where(turned, 0.0, last), step, torch.where(turned, 0.0, step * sign(g))

        moved, sizes, last = each(leaf, updates, step_sizes=state.step_sizes, prev_updates=state.prev_updates)
        return moved, ScaleByRpropState(step_sizes=sizes, prev_updates=last)

    return stateful(ScaleByRpropState, init, update)


def rprop(
    learning_rate: Scalar,
    eta_minus: Scalar = 0.5,
    eta_plus: Scalar = 1.2,
    min_step_size: Scalar = 1e-6,
    max_step_size: Scalar = 50.0,
) -> GradientTransformation:
    r"""Rprop, for full batches: $u = -1$ times `scale_by_rprop` (Riedmiller and Braun 1993).

    `learning_rate` is the first step size, and no schedule. `torch.optim.Rprop` makes its steps at once, where Optax
    and this are one update late.

    >>> optimizer = rprop(0.1)
    >>> params = {"w": torch.zeros(2)}
    >>> state = optimizer.init(params)
    >>> for _ in range(2):
    ...     updates, state = optimizer.update({"w": torch.tensor([3.0, -1.0])}, state, params)
    >>> updates["w"]
    tensor([-0.1000,  0.1000])
    """
    rule = scale_by_rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size)
    return chain(rule, scale(-1.0))
