"""COCOB: no learning rate, but bets on coins."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...tree import PyTree, map
from ..arguments import stateful
from ..base import GradientTransformation, chain, needed
from ..leafwise import copied, each, moment_zeros
from ..scaling import scale_by_learning_rate
from ..values import Scalar, ScalarOrSchedule, scalar
from ..weights import add_decayed_weights

__all__ = ["COCOBState", "cocob", "scale_by_cocob"]


class COCOBState(NamedTuple):
    """The first parameters, and for each of their elements what the bettor knows."""

    init_particles: PyTree
    cumulative_gradients: PyTree
    """minus the sum of the gradients"""
    scale: PyTree
    """the largest absolute gradient"""
    subgradients: PyTree
    """the sum of absolute gradients"""
    reward: PyTree


def scale_by_cocob(alpha: Scalar = 100.0, eps: Scalar = 1e-8) -> GradientTransformation:
    r"""Bet on the sign of the next gradient, an element a coin (Orabona and Tommasi, arXiv:1705.07795, algorithm 2).

    $$L = \max(L, |g|), \quad G = G + |g|, \quad R = \max(R - g (\theta - \theta_0), 0), \quad C = C - g, \quad
    \theta + u = \theta_0 + \frac{C (L + R)}{L \max(G + L, \alpha L)}$$

    `eps` is the first $L$. The updates go downhill: no learning rate is to follow. Needs the parameters.

    >>> rule = scale_by_cocob()
    >>> params = {"w": torch.zeros(2)}
    >>> rule.update({"w": torch.tensor([3.0, -0.1])}, rule.init(params), params)[0]
    {'w': tensor([-0.0100,  0.0100])}
    """
    scalar(alpha, "alpha"), scalar(eps, "eps")

    def init(params: PyTree) -> COCOBState:
        return COCOBState(
            init_particles=copied(params),
            cumulative_gradients=moment_zeros(params),
            scale=map(lambda zero: zero + eps, moment_zeros(params)),
            subgradients=moment_zeros(params),
            reward=moment_zeros(params),
        )

    def update(updates: PyTree, state: COCOBState, params: PyTree = None, **extra: Any) -> tuple[PyTree, COCOBState]:
        def leaf(g: Tensor, p0: Tensor, c: Tensor, top: Tensor, s: Tensor, r: Tensor, p: Tensor) -> tuple[Tensor, ...]:
            top = torch.maximum(top, torch.abs(g))
            s = s + torch.abs(g)
            r = torch.clamp(r - g * (p - p0), 0)
            c = c - g
            bet = c / (top * torch.maximum(s + top, alpha * top)) * (top + r)
            return p0 + bet - p, p0, c, top, s, r

        moved, *new = each(leaf, updates, needed(params, "scale_by_cocob"), **state._asdict())
        return moved, COCOBState(*new)

    return stateful(COCOBState, init, update)


def cocob(
    learning_rate: ScalarOrSchedule = 1.0,
    alpha: Scalar = 100.0,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> GradientTransformation:
    r"""COCOB: `scale_by_cocob` of $\eta (g + \lambda \theta)$ (Orabona and Tommasi, arXiv:1705.07795).

    The learning rate scales the gradients, to which the method is nearly indifferent: it is for schedules.

    >>> optimizer = cocob()
    >>> params = {"w": torch.zeros(2)}
    >>> optimizer.update({"w": torch.tensor([3.0, -0.1])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.0100,  0.0100])}
    """
    return chain(
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate, flip_sign=False),
        scale_by_cocob(alpha, eps),
    )
