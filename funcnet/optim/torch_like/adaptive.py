"""Rules that divide by the root of a sum or mean of squares: Adagrad, Adadelta, RMSprop."""

from typing import Any, NamedTuple

from torch import Tensor

from ...tree import PyTree
from ..base import GradientTransformation
from ..leafwise import filled, moment_zeros, root
from ..values import Scalar, ScalarOrSchedule
from .common import nonnegative, transformation


class AdagradState(NamedTuple):
    """How many updates were made, and the sum of the gradients' squares."""

    step: Tensor
    sum: PyTree


def adagrad(
    lr: ScalarOrSchedule,
    lr_decay: Scalar,
    weight_decay: Scalar,
    initial_accumulator_value: Scalar,
    eps: Scalar,
    maximize: bool,
) -> GradientTransformation:
    r"""$u = -\frac{\eta}{1 + (t - 1) \delta} g / (\sqrt{\sum g^2} + \varepsilon)$ (Duchi et al. 2011)."""
    nonnegative(lr_decay=lr_decay, initial_accumulator_value=initial_accumulator_value, eps=eps)

    def at(step: Tensor, lr: Scalar) -> Any:
        rate = -lr / (1 + (step - 1) * lr_decay)

        def leaf(g: Tensor, p: Tensor, total: Tensor) -> tuple[Tensor, ...]:
            total = total + g * g
            return g / (root(total) + eps) * rate, total

        return leaf

    trees = {"sum": lambda params: filled(moment_zeros(params), initial_accumulator_value)}
    return transformation(AdagradState, at, lr=lr, trees=trees, weight_decay=weight_decay, maximize=maximize)


class AdadeltaState(NamedTuple):
    """How many updates were made, and the running means of squares: of the gradients, and of the updates."""

    step: Tensor
    square_avg: PyTree
    acc_delta: PyTree


def adadelta(
    lr: ScalarOrSchedule, rho: Scalar, eps: Scalar, weight_decay: Scalar, maximize: bool
) -> GradientTransformation:
    r"""$u = -\eta\, \sqrt{\Delta + \varepsilon} / \sqrt{v + \varepsilon}\, g$ (Zeiler, arXiv:1212.5701)."""
    nonnegative(rho=rho, eps=eps)
    if not isinstance(rho, Tensor) and rho > 1:
        raise ValueError(f"rho is {rho}, and torch.optim takes 0 <= rho <= 1.")

    def at(step: Tensor, lr: Scalar) -> Any:
        def leaf(g: Tensor, p: Tensor, v: Tensor, acc: Tensor) -> tuple[Tensor, ...]:
            v = rho * v + (1 - rho) * (g * g)
            delta = root(acc + eps) / root(v + eps) * g
            return delta * -lr, v, rho * acc + (1 - rho) * (delta * delta)

        return leaf

    trees = {"square_avg": moment_zeros, "acc_delta": moment_zeros}
    return transformation(AdadeltaState, at, lr=lr, trees=trees, weight_decay=weight_decay, maximize=maximize)


class RMSpropState(NamedTuple):
    """How many updates were made, the running mean of squares, the momentum, and the running mean.

    The last two are () where they are not asked for.
    """

    step: Tensor
    square_avg: PyTree
    momentum_buffer: PyTree = ()
    grad_avg: PyTree = ()


def rmsprop(
    lr: ScalarOrSchedule,
    alpha: Scalar,
    eps: Scalar,
    weight_decay: Scalar,
    momentum: Scalar,
    centered: bool,
    maximize: bool,
) -> GradientTransformation:
    r"""$u = -\eta\, g / (\sqrt{v} + \varepsilon)$, or by the standard deviation with `centered` (arXiv:1308.0850).

    With `momentum`, $b \leftarrow \mu b + g / (\sqrt{v} + \varepsilon)$ and $u = -\eta b$.
    """
    nonnegative(alpha=alpha, eps=eps, momentum=momentum)
    remembers = isinstance(momentum, Tensor) or momentum > 0

    def at(step: Tensor, lr: Scalar) -> Any:
        def leaf(g: Tensor, p: Tensor, v: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            buffers, means = rest[:remembers], rest[remembers:]
            v = alpha * v + (1 - alpha) * (g * g)
            variance, new = v, [v]
            if centered:
                mean = alpha * means[0] + (1 - alpha) * g
                variance, new = v - mean * mean, [v, mean]
            u = g / (root(variance) + eps)
            if remembers:
                u = momentum * buffers[0] + u
                new.insert(1, u)
            return u * -lr, *new

        return leaf

    asked = {"square_avg": True, "momentum_buffer": remembers, "grad_avg": centered}
    trees = {name: moment_zeros for name, used in asked.items() if used}
    return transformation(RMSpropState, at, lr=lr, trees=trees, weight_decay=weight_decay, maximize=maximize)
