"""ADOPT: Adam that normalizes a gradient before it enters the mean, by what was known before it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...tree import PyTree
from ..adam import ScaleByAdamState
from ..arguments import stateful
from ..base import GradientTransformation, chain
from ..leafwise import abs_sq, each, moment_zeros, root, square_zeros
from ..scaling import scale_by_learning_rate
from ..values import Scalar, ScalarOrSchedule, decay_rate, increment, precise, scalar, zero_count

__all__ = ["adopt", "scale_by_adopt"]


def _fourth_root(count: Tensor) -> Tensor:
    return count**0.25


def scale_by_adopt(
    b1: Scalar = 0.9,
    b2: Scalar = 0.9999,
    eps: Scalar = 1e-6,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[Tensor], Scalar] = _fourth_root,
) -> GradientTransformation:
    r"""The mean of gradients, each divided by the root of the squares before it (Taniguchi et al., arXiv:2411.02853).

    $$\hat g_t = \mathrm{clip}\left( \frac{g_t}{\max(\sqrt{\nu_{t-1}}, \varepsilon)}, c_t \right), \quad
    u_t = \mu_t = \beta_1 \mu_{t-1} + (1 - \beta_1) \hat g_t, \quad
    \nu_t = \beta_2 \nu_{t-1} + (1 - \beta_2) |g_t|^2$$

    The first update is zero: it only sets $\nu_0 = |g_0|^2$. `clip_value_fn` makes $c_t$ from the step count, a float
    tensor that begins at 0; `use_clipping=False` leaves the clipping out. With `nesterov=True` the update is
    $\beta_1 \mu_t + (1 - \beta_1) \hat g_t$. `mu_dtype` stores the mean in another dtype. Clipping needs an order, so
    complex leaves need `use_clipping=False`.

    >>> rule = scale_by_adopt()
    >>> params = {"w": torch.zeros(2)}
    >>> gradient = {"w": torch.tensor([3.0, -0.1])}
    >>> updates, state = rule.update(gradient, rule.init(params), params)
    >>> updates, rule.update(gradient, state, params)[0]
    ({'w': tensor([0., 0.])}, {'w': tensor([ 0.1000, -0.1000])})
    """
    decay_rate(b1, "b1"), decay_rate(b2, "b2"), scalar(eps, "eps")

    def init(params: PyTree) -> ScaleByAdamState:
        return ScaleByAdamState(count=zero_count(params), mu=moment_zeros(params, mu_dtype), nu=square_zeros(params))

    def update(
        updates: PyTree, state: ScaleByAdamState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleByAdamState]:
        count = state.count.to(precise(state.nu))
        bound: Any = clip_value_fn(count)
        started = (state.count > 0).to(count.dtype)
        # Both means are zero before the first step, so their decays need no exception there.
        fresh, fresh_square = started * (1 - b1), 1 - started + started * (1 - b2)

        def leaf(g: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            normal = g / torch.clamp(root(v), eps)
            if use_clipping:
                normal = torch.clamp(normal, -bound, bound)
            m = b1 * m + fresh * normal
            return (b1 * m + fresh * normal if nesterov else m), m, b2 * v + fresh_square * abs_sq(g)

        moved, mu, nu = each(leaf, updates, mu=state.mu, nu=state.nu)
        return moved, ScaleByAdamState(count=increment(state.count), mu=mu, nu=nu)

    return stateful(ScaleByAdamState, init, update)


def adopt(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.9999,
    eps: Scalar = 1e-6,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[Tensor], Scalar] = _fourth_root,
) -> GradientTransformation:
    r"""ADOPT: $u = -\eta$ times `scale_by_adopt`, which tells the rest of the arguments (arXiv:2411.02853).

    >>> optimizer = adopt(0.1, use_clipping=False)
    >>> params = {"w": torch.zeros(2)}
    >>> gradient = {"w": torch.tensor([3.0, -0.1])}
    >>> _, state = optimizer.update(gradient, optimizer.init(params), params)
    >>> optimizer.update(gradient, state, params)[0]
    {'w': tensor([-0.0100,  0.0100])}
    """
    rule = scale_by_adopt(
        b1, b2, eps, mu_dtype, nesterov=nesterov, use_clipping=use_clipping, clip_value_fn=clip_value_fn
    )
    return chain(rule, scale_by_learning_rate(learning_rate))
