"""SGD, averaged SGD, and Rprop."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...tree import PyTree
from ..arguments import pair
from ..base import GradientTransformation
from ..leafwise import filled, moment_zeros, sign
from ..values import Scalar, ScalarOrSchedule, value_at, zero_count
from .common import nonnegative, scalar_start, transformation


class SGDState(NamedTuple):
    """How many updates were made, and the momentum; () without momentum."""

    step: Tensor
    momentum_buffer: PyTree = ()


def sgd(
    lr: ScalarOrSchedule,
    momentum: Scalar,
    dampening: Scalar,
    weight_decay: Scalar,
    nesterov: bool,
    maximize: bool,
) -> GradientTransformation:
    r"""$b_1 = g_1$, $b_t = \mu b_{t-1} + (1 - d) g_t$, and $u = -\eta b$; with `nesterov`, $u = -\eta (g + \mu b)$."""
    nonnegative(momentum=momentum)
    remembers = isinstance(momentum, Tensor) or momentum != 0
    if nesterov and (not remembers or isinstance(dampening, Tensor) or dampening != 0):
        raise ValueError(f"nesterov=True needs momentum > 0 and dampening=0; got {momentum} and {dampening}.")

    def at(step: Tensor, lr: Scalar) -> Any:
        share = 1 - dampening * (step > 1).to(step.dtype)

        def leaf(g: Tensor, p: Tensor, *buffer: Tensor) -> tuple[Tensor, ...]:
            if not buffer:
                return (g * -lr,)
            b = momentum * buffer[0] + g * share
            return (g + momentum * b if nesterov else b) * -lr, b

        return leaf

    trees = {"momentum_buffer": moment_zeros} if remembers else {}
    return transformation(SGDState, at, lr=lr, trees=trees, weight_decay=weight_decay, maximize=maximize)


class ASGDState(NamedTuple):
    """How many updates were made, the next step size and weight, and the mean of the parameters."""

    step: Tensor
    eta: Tensor
    mu: Tensor
    ax: PyTree


def asgd(
    lr: ScalarOrSchedule, lambd: Scalar, alpha: Scalar, t0: Scalar, weight_decay: Scalar, maximize: bool
) -> GradientTransformation:
    r"""$u = -\eta_t (g + \lambda \theta)$ with $\eta_{t+1} = \eta / (1 + \lambda \eta t)^\alpha$ (Polyak and Juditsky).

    The mean of the parameters, $a \leftarrow a + \mu_t (\theta - a)$ with $\mu_{t+1} = 1 / \max(1, t - t_0)$, is
    `state.ax`.
    """
    nonnegative(lambd=lambd, alpha=alpha)

    def at(step: Tensor, lr: Scalar, eta: Tensor, mu: Tensor) -> Any:
        size, weight = eta.to(step.dtype), mu.to(step.dtype)

        def leaf(g: Tensor, p: Tensor, ax: Tensor) -> tuple[Tensor, ...]:
            u = (g + lambd * p) * -size
            return u, ax + (p + u - ax) * weight

        after = lr / (1 + lambd * lr * step) ** alpha
        return leaf, after.to(eta.dtype), (1 / torch.clamp(step - t0, min=1)).to(mu.dtype)

    def first_eta(params: PyTree) -> PyTree:
        return filled(scalar_start(0)(params), value_at(lr, zero_count(params), "lr"))

    return transformation(
        ASGDState,
        at,
        lr=lr,
        trees={"ax": moment_zeros},
        scalars={"eta": first_eta, "mu": scalar_start(1)},
        weight_decay=weight_decay,
        maximize=maximize,
    )


class RpropState(NamedTuple):
    """How many updates were made, the last gradients (0 after a change of sign), and every element's step size."""

    step: Tensor
    prev: PyTree
    step_size: PyTree


def rprop(lr: ScalarOrSchedule, etas: Any, step_sizes: Any, maximize: bool) -> GradientTransformation:
    r"""$u = -s \operatorname{sign}(g)$, where $s$ grows while the sign stays and shrinks when it changes.

    Riedmiller and Braun 1993, doi.org/10.1109/ICNN.1993.298623. `lr` is the first $s$: what a schedule has later does
    not count, as in torch.
    """
    shrink, grow = pair(etas, "etas", "(0.5, 1.2)")
    least, most = pair(step_sizes, "step_sizes", "(1e-6, 50)")
    if not any(isinstance(eta, Tensor) for eta in (shrink, grow)) and not 0 < shrink < 1 < grow:
        raise ValueError(f"etas is {etas!r}, and torch.optim takes 0 < etas[0] < 1 < etas[1].")

    def at(step: Tensor, lr: Scalar) -> Any:
        def leaf(g: Tensor, p: Tensor, prev: Tensor, size: Tensor) -> tuple[Tensor, ...]:
            turn = g * prev
            size = torch.where(turn > 0, size * grow, torch.where(turn < 0, size * shrink, size))
            size = torch.clamp(torch.clamp(size, min=least), max=most)
            g = torch.where(turn < 0, 0.0, g)
            return -sign(g) * size, g, size

        return leaf

    def first_size(params: PyTree) -> PyTree:
        return filled(moment_zeros(params), value_at(lr, zero_count(params), "lr"))

    return transformation(
        RpropState, at, lr=lr, trees={"prev": moment_zeros, "step_size": first_size}, maximize=maximize
    )
