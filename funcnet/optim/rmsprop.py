"""RMSProp, plain and centred."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..tree import PyTree
from .arguments import stateful
from .base import GradientTransformation, chain, identity
from .leafwise import abs_sq, each, filled, moment_zeros, root, square_zeros, unbiased
from .scaling import scale_by_learning_rate
from .sgd import trace
from .values import Scalar, ScalarOrSchedule, decay_rate, increment, precise, scalar, zero_count

__all__ = [
    "ScaleByRStdDevState",
    "ScaleByRStdDevWithCountState",
    "ScaleByRmsState",
    "ScaleByRmsWithCountState",
    "rmsprop",
    "scale_by_rms",
    "scale_by_stddev",
]


class ScaleByRmsState(NamedTuple):
    """The running mean of the squared gradients, like the parameters; real for complex ones."""

    nu: PyTree


class ScaleByRmsWithCountState(NamedTuple):
    """The same, where it is corrected for its start."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""
    nu: PyTree
    """like the parameters; real for complex ones"""


class ScaleByRStdDevState(NamedTuple):
    """The running means of the gradients and of their squares."""

    mu: PyTree
    """like the parameters"""
    nu: PyTree
    """like the parameters; real for complex ones"""


class ScaleByRStdDevWithCountState(NamedTuple):
    """The same, where they are corrected for their start."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""
    mu: PyTree
    """like the parameters"""
    nu: PyTree
    """like the parameters; real for complex ones"""


def scale_by_rms(
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    initial_scale: Scalar = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> GradientTransformation:
    r"""Divide by the root of the running mean of squares (Hinton's lecture 6e of 2012; Graves, arXiv:1308.0850).

    $$\nu_t = d \nu_{t-1} + (1 - d) |g_t|^2, \quad u_t = g_t / \sqrt{\nu_t + \varepsilon}$$

    With `eps_in_sqrt=False` the divisor is $\sqrt{\nu_t} + \varepsilon$, as in torch. $\nu_0$ is `initial_scale`;
    `bias_correction` divides $\nu_t$ by $1 - d^t$.

    >>> rule = scale_by_rms()
    >>> params = {"w": torch.zeros(2)}
    >>> rule.update({"w": torch.tensor([3.0, -1.0])}, rule.init(params), params)[0]
    {'w': tensor([ 3.1623, -3.1623])}
    """
    decay_rate(decay, "decay"), scalar(eps, "eps"), scalar(initial_scale, "initial_scale")

    def init(params: PyTree) -> ScaleByRmsState | ScaleByRmsWithCountState:
        nu = filled(square_zeros(params), initial_scale)
        return ScaleByRmsWithCountState(count=zero_count(params), nu=nu) if bias_correction else ScaleByRmsState(nu=nu)

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]:
        if bias_correction:
            state = state._replace(count=increment(state.count))
            mean = unbiased(decay, state.count, precise(state.nu))

        def leaf(g: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            v = decay * v + (1 - decay) * abs_sq(g)
            return g / _divisor(mean(v, g) if bias_correction else v, eps, eps_in_sqrt), v

        moved, nu = each(leaf, updates, nu=state.nu)
        return moved, state._replace(nu=nu)

    return stateful(ScaleByRmsWithCountState if bias_correction else ScaleByRmsState, init, update)


def scale_by_stddev(
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    initial_scale: Scalar = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> GradientTransformation:
    r"""Divide by the running standard deviation (Graves, arXiv:1308.0850): `scale_by_rms` of $\nu_t - |\mu_t|^2$.

    $\mu_t = d \mu_{t-1} + (1 - d) g_t$, and $\nu_t$ is that of `scale_by_rms`. A variance that rounding makes negative
    counts as 0, where Optax and torch return NaN.

    >>> rule = scale_by_stddev()
    >>> params = {"w": torch.zeros(2)}
    >>> rule.update({"w": torch.tensor([3.0, -1.0])}, rule.init(params), params)[0]
    {'w': tensor([ 3.3333, -3.3333])}
    """
    decay_rate(decay, "decay"), scalar(eps, "eps"), scalar(initial_scale, "initial_scale")

    def init(params: PyTree) -> ScaleByRStdDevState | ScaleByRStdDevWithCountState:
        mu, nu = moment_zeros(params), filled(square_zeros(params), initial_scale)
        if bias_correction:
            return ScaleByRStdDevWithCountState(count=zero_count(params), mu=mu, nu=nu)
        return ScaleByRStdDevState(mu=mu, nu=nu)

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]:
        if bias_correction:
            state = state._replace(count=increment(state.count))
            mean = unbiased(decay, state.count, precise(state.nu))

        def leaf(g: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            m = decay * m + (1 - decay) * g
            v = decay * v + (1 - decay) * abs_sq(g)
            variance = mean(v, g) - abs_sq(mean(m, g)) if bias_correction else v - abs_sq(m)
            return g / _divisor(torch.clamp(variance, min=0), eps, eps_in_sqrt), m, v

        moved, mu, nu = each(leaf, updates, mu=state.mu, nu=state.nu)
        return moved, state._replace(mu=mu, nu=nu)

    kind = ScaleByRStdDevWithCountState if bias_correction else ScaleByRStdDevState
    return stateful(kind, init, update)


def _divisor(square: Tensor, eps: Scalar, eps_in_sqrt: bool) -> Any:
    return root(square + eps) if eps_in_sqrt else root(square) + eps


def rmsprop(
    learning_rate: ScalarOrSchedule,
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    initial_scale: Scalar = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
) -> GradientTransformation:
    r"""RMSProp: $u = -\eta$ times `scale_by_rms`, or `scale_by_stddev` if `centered`, then `trace` of `momentum`.

    `torch.optim.RMSprop` is this with `eps_in_sqrt=False` and torch's `alpha` as `decay`; its momentum sums what is
    yet to be multiplied by the learning rate, which differs where that changes.

    >>> optimizer = rmsprop(0.1)
    >>> params = {"w": torch.zeros(1)}
    >>> optimizer.update({"w": torch.ones(1)}, optimizer.init(params), params)[0]
    {'w': tensor([-0.3162])}
    """
    rule = scale_by_stddev if centered else scale_by_rms
    return chain(
        rule(decay, eps, initial_scale, eps_in_sqrt, bias_correction),
        scale_by_learning_rate(learning_rate),
        identity() if momentum is None else trace(momentum, nesterov),
    )
