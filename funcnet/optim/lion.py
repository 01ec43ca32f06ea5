"""Lion."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..tree import PyTree
from .arguments import stateful
from .base import GradientTransformation, chain
from .leafwise import each, moment_zeros, sign
from .scaling import scale_by_learning_rate
from .values import Scalar, ScalarOrSchedule, decay_rate, increment, scalar, zero_count
from .weights import MaskOrFn, add_decayed_weights

__all__ = ["ScaleByLionState", "lion", "scale_by_lion"]


class ScaleByLionState(NamedTuple):
    """How many updates were made, and the running mean of the gradients."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""
    mu: PyTree
    """like the parameters"""


def scale_by_lion(
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    mu_dtype: torch.dtype | None = None,
    *,
    mode: Literal["hard", "smooth", "refined"] = "hard",
    smooth_beta: Scalar = 1.0,
) -> GradientTransformation:
    r"""The sign of the gradients' running mean, leaning to the newest (Chen et al., arXiv:2302.06675).

    $$u_t = \operatorname{sign}(\beta_1 \mu_{t-1} + (1 - \beta_1) g_t), \quad
    \mu_t = \beta_2 \mu_{t-1} + (1 - \beta_2) g_t$$

    In place of the sign, `mode="smooth"` takes $\tanh(s x)$ with $s$ = `smooth_beta`, and `mode="refined"` leaves
    values within 1 as they are. `mu_dtype` stores the mean in another dtype. Raises `ValueError` for another mode.

    >>> rule = scale_by_lion()
    >>> params = {"w": torch.zeros(2)}
    >>> rule.update({"w": torch.tensor([3.0, -0.1])}, rule.init(params), params)[0]
    {'w': tensor([ 1., -1.])}
    """
    decay_rate(b1, "b1"), decay_rate(b2, "b2"), scalar(smooth_beta, "smooth_beta")
    shapes: dict[str, Callable[[Any], Any]] = {
        "hard": sign,
        "smooth": lambda x: torch.tanh(smooth_beta * x),
        "refined": lambda x: torch.where(torch.abs(x) < 1, x, sign(x)),
    }
    if mode not in shapes:
        raise ValueError(f"mode is {mode!r}, and scale_by_lion knows {', '.join(repr(known) for known in shapes)}.")
    shape = shapes[mode]

    def init(params: PyTree) -> ScaleByLionState:
        return ScaleByLionState(count=zero_count(params), mu=moment_zeros(params, mu_dtype))

    def update(
        updates: PyTree, state: ScaleByLionState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleByLionState]:
        def leaf(g: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
            return shape(b1 * m + (1 - b1) * g), b2 * m + (1 - b2) * g

        moved, mu = each(leaf, updates, mu=state.mu)
        return moved, ScaleByLionState(count=increment(state.count), mu=mu)

    return stateful(ScaleByLionState, init, update)


def lion(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    mu_dtype: torch.dtype | None = None,
    weight_decay: ScalarOrSchedule = 1e-3,
    mask: MaskOrFn = None,
) -> GradientTransformation:
    r"""Lion with decoupled weight decay, $u = -\eta (\mathrm{lion}(g) + \lambda \theta)$ (arXiv:2302.06675).

    Its learning rate is best three to ten times smaller than AdamW's, and its weight decay larger by as much.

    >>> optimizer = lion(0.1)
    >>> params = {"w": torch.zeros(2)}
    >>> optimizer.update({"w": torch.tensor([3.0, -0.1])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.1000,  0.1000])}
    """
    return chain(
        scale_by_lion(b1, b2, mu_dtype), add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate)
    )
