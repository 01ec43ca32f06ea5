"""Adagrad."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..tree import PyTree
from .arguments import stateful
from .base import GradientTransformation, chain
from .leafwise import abs_sq, each, filled, square_zeros
from .scaling import scale_by_learning_rate
from .values import Scalar, ScalarOrSchedule, scalar

__all__ = ["ScaleByRssState", "adagrad", "scale_by_rss"]


class ScaleByRssState(NamedTuple):
    """The sum of the squares of all gradients, like the parameters; real for complex ones."""

    sum_of_squares: PyTree


def scale_by_rss(initial_accumulator_value: Scalar = 0.1, eps: Scalar = 1e-7) -> GradientTransformation:
    r"""Divide by the root of the sum of all squares, $s \leftarrow s + |g|^2$ and $u = g / \sqrt{s + \varepsilon}$.

    $u = 0$ where $s = 0$ (Duchi et al. 2011, jmlr.org/papers/v12/duchi11a).

    >>> rule = scale_by_rss(initial_accumulator_value=0.0)
    >>> params = {"w": torch.ones(2)}
    >>> rule.update({"w": torch.tensor([3.0, 0.0])}, rule.init(params), params)[0]
    {'w': tensor([1., 0.])}
    """
    scalar(initial_accumulator_value, "initial_accumulator_value"), scalar(eps, "eps")

    def init(params: PyTree) -> ScaleByRssState:
        return ScaleByRssState(sum_of_squares=filled(square_zeros(params), initial_accumulator_value))

    def update(
        updates: PyTree, state: ScaleByRssState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleByRssState]:
        moved, sums = each(lambda g, s: over_root(g, s + abs_sq(g), eps), updates, sum_of_squares=state.sum_of_squares)
        return moved, ScaleByRssState(sum_of_squares=sums)

    return stateful(ScaleByRssState, init, update)


def over_root(g: Tensor, s: Tensor, eps: Scalar) -> tuple[Tensor, Tensor]:
    """`g / sqrt(s + eps)`, and 0 where `s` is 0; and `s`."""
    some = s > 0
    # Two `where`s: the quotient's infinite slope would be multiplied into the gradient.
    return torch.where(some, g / torch.sqrt(torch.where(some, s, 1.0) + eps), 0.0), s


def adagrad(
    learning_rate: ScalarOrSchedule, initial_accumulator_value: Scalar = 0.1, eps: Scalar = 1e-7
) -> GradientTransformation:
    r"""Adagrad: $u = -\eta$ times `scale_by_rss` (Duchi et al. 2011, jmlr.org/papers/v12/duchi11a).

    `torch.optim.Adagrad` begins at 0 and adds its `eps` outside the root.

    >>> optimizer = adagrad(0.1, initial_accumulator_value=0.0)
    >>> params = {"w": torch.ones(2)}
    >>> optimizer.update({"w": torch.tensor([3.0, 0.0])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.1000, -0.0000])}
    """
    return chain(scale_by_rss(initial_accumulator_value, eps), scale_by_learning_rate(learning_rate))
