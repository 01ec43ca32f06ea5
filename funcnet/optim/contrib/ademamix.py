"""AdEMAMix and its simplified form: Adam with a second, much slower mean of the gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...tree import PyTree
from ..arguments import stateful
from ..base import GradientTransformation, chain
from ..leafwise import abs_sq, each, moment_zeros, root, square_zeros
from ..scaling import scale_by_learning_rate
from ..values import (
    Scalar,
    ScalarOrSchedule,
    correction,
    decay_rate,
    increment,
    is_schedule,
    precise,
    scalar,
    value_at,
    zero_count,
)
from ..weights import add_decayed_weights

__all__ = [
    "ScaleByAdemamixState",
    "ScaleBySimplifiedAdEMAMixState",
    "ademamix",
    "scale_by_ademamix",
    "scale_by_simplified_ademamix",
    "simplified_ademamix",
]


class ScaleByAdemamixState(NamedTuple):
    """Two step counts, the quick and the slow mean of the gradients, and the mean of their squares."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim: for the bias corrections"""
    count_m2: Tensor
    """int32, 0-dim: for the schedules of `b3` and `alpha`"""
    m1: PyTree
    m2: PyTree
    nu: PyTree
    """like the parameters; real for complex ones"""


def scale_by_ademamix(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 6.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
) -> GradientTransformation:
    r"""Adam's rule with a slow mean added to its numerator (Pagliardini et al., arXiv:2409.03137).

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t, \quad s_t = \beta_3 s_{t-1} + (1 - \beta_3) g_t, \quad
    \nu_t = \beta_2 \nu_{t-1} + (1 - \beta_2) |g_t|^2, \quad u_t = \frac{m_t / (1 - \beta_1^t) + \alpha s_t}
    {\sqrt{\nu_t / (1 - \beta_2^t) + \varepsilon_r} + \varepsilon}$$

    The slow mean is not corrected for its start at zero, so that it fills slowly. `b3` and `alpha` may be schedules.
    `mu_dtype` stores all three means in another dtype.

    >>> rule = scale_by_ademamix()
    >>> params = {"w": torch.zeros(2)}
    >>> rule.update({"w": torch.tensor([3.0, -0.1])}, rule.init(params), params)[0]
    {'w': tensor([ 1.0006, -1.0006])}
    """
    decay_rate(b1, "b1"), decay_rate(b2, "b2"), scalar(eps, "eps"), scalar(eps_root, "eps_root")
    is_schedule(b3, "b3"), is_schedule(alpha, "alpha")

    def init(params: PyTree) -> ScaleByAdemamixState:
        return ScaleByAdemamixState(
            count=zero_count(params),
            count_m2=zero_count(params),
            m1=moment_zeros(params, mu_dtype),
            m2=moment_zeros(params, mu_dtype),
            nu=square_zeros(params, mu_dtype),
        )

    def update(
        updates: PyTree, state: ScaleByAdemamixState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleByAdemamixState]:
        slow, share = value_at(b3, state.count_m2, "b3"), value_at(alpha, state.count_m2, "alpha")
        count, dtype = increment(state.count), precise(state.nu)
        first, second = correction(b1, count, dtype), correction(b2, count, dtype)

        def leaf(g: Tensor, m: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            m = b1 * m + (1 - b1) * g
            s = slow * s + (1 - slow) * g
            v = b2 * v + (1 - b2) * abs_sq(g)
            return (m / first + share * s) / (root(v / second + eps_root) + eps), m, s, v

        moved, m1, m2, nu = each(leaf, updates, m1=state.m1, m2=state.m2, nu=state.nu)
        return moved, ScaleByAdemamixState(count=count, count_m2=increment(state.count_m2), m1=m1, m2=m2, nu=nu)

    return stateful(ScaleByAdemamixState, init, update)


def ademamix(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 5.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    weight_decay: Scalar = 0.0,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> GradientTransformation:
    r"""AdEMAMix, $u = -\eta (\mathrm{ademamix}(g) + \lambda \theta)$ (Pagliardini et al., arXiv:2409.03137).

    `scale_by_ademamix` tells the arguments up to `mu_dtype`, `add_decayed_weights` the rest. The slow mean pays in long
    runs; for some thousand steps take a `b3` of 0.999.

    >>> optimizer = ademamix(0.1)
    >>> params = {"w": torch.zeros(2)}
    >>> optimizer.update({"w": torch.tensor([3.0, -0.1])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.1000,  0.1000])}
    """
    return chain(
        scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


class ScaleBySimplifiedAdEMAMixState(NamedTuple):
    """The step count, the decaying sum of the gradients, and the mean of their squares."""

    t: Tensor
    """int32, 0-dim"""
    m: PyTree
    n: PyTree
    """like the parameters; real for complex ones"""


def scale_by_simplified_ademamix(
    b1: Scalar = 0.99,
    b2: Scalar = 0.95,
    alpha: ScalarOrSchedule = 0.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
) -> GradientTransformation:
    r"""Adam's rule with a sum instead of a mean, and the gradient added to it (Morwani et al., arXiv:2502.02431).

    $$m_t = \beta_1 m_{t-1} + g_t, \quad n_t = \beta_2 n_{t-1} + (1 - \beta_2) |g_t|^2, \quad
    u_t = \frac{m_t + \alpha g_t}{\sqrt{n_t / (1 - \beta_2^t) + \varepsilon_r} + \varepsilon}$$

    `alpha` may be a schedule. The sum is larger than a mean by $1 / (1 - \beta_1)$: take a smaller learning rate.

    >>> rule = scale_by_simplified_ademamix(alpha=1.0)
    >>> params = {"w": torch.zeros(2)}
    >>> rule.update({"w": torch.tensor([3.0, -0.1])}, rule.init(params), params)[0]
    {'w': tensor([ 2.0000, -2.0000])}
    """
    decay_rate(b1, "b1"), decay_rate(b2, "b2"), scalar(eps, "eps"), scalar(eps_root, "eps_root")
    is_schedule(alpha, "alpha")

    def init(params: PyTree) -> ScaleBySimplifiedAdEMAMixState:
        return ScaleBySimplifiedAdEMAMixState(t=zero_count(params), m=moment_zeros(params), n=square_zeros(params))

    def update(
        updates: PyTree, state: ScaleBySimplifiedAdEMAMixState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleBySimplifiedAdEMAMixState]:
        share = value_at(alpha, state.t, "alpha")
        t = increment(state.t)
        second = correction(b2, t, precise(state.n))

        def leaf(g: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            m = b1 * m + g
            v = b2 * v + (1 - b2) * abs_sq(g)
            return (m + share * g) / (root(v / second + eps_root) + eps), m, v

        moved, m, n = each(leaf, updates, m=state.m, n=state.n)
        return moved, ScaleBySimplifiedAdEMAMixState(t=t, m=m, n=n)

    return stateful(ScaleBySimplifiedAdEMAMixState, init, update)


def simplified_ademamix(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.99,
    b2: Scalar = 0.95,
    alpha: ScalarOrSchedule = 0.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> GradientTransformation:
    r"""AdEMAMix with one mean, $u = -\eta (\mathrm{rule}(g) + \lambda \theta)$ (Morwani et al., arXiv:2502.02431).

    `scale_by_simplified_ademamix` tells the arguments up to `eps_root`, `add_decayed_weights` the rest.

    >>> optimizer = simplified_ademamix(0.1)
    >>> params = {"w": torch.zeros(2)}
    >>> optimizer.update({"w": torch.tensor([3.0, -0.1])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.1000,  0.1000])}
    """
    return chain(
        scale_by_simplified_ademamix(b1, b2, alpha, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
