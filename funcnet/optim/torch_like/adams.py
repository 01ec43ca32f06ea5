"""Adam and those that are made from it: AdamW, Adamax, NAdam, RAdam, SparseAdam."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...tree import PyTree
from ..base import GradientTransformation
from ..leafwise import moment_zeros, root
from ..radam import rectification
from ..values import Scalar, ScalarOrSchedule, correction
from .common import decays_of, nonnegative, scalar_start, transformation


class AdamState(NamedTuple):
    """How many updates were made, the running means of the gradients and of their squares, and the latter's maximum.

    The last is () without `amsgrad`.
    """

    step: Tensor
    exp_avg: PyTree
    exp_avg_sq: PyTree
    max_exp_avg_sq: PyTree = ()


def adam(
    lr: ScalarOrSchedule,
    betas: Any,
    eps: Scalar,
    weight_decay: Scalar,
    amsgrad: bool,
    maximize: bool,
    decoupled_weight_decay: bool = False,
) -> GradientTransformation:
    r"""$u = -\eta\, \hat m / (\sqrt{\hat v} + \varepsilon)$ (arXiv:1412.6980); `amsgrad` takes the largest $v$."""
    b1, b2 = decays_of(betas)
    nonnegative(eps=eps)

    def at(step: Tensor, lr: Scalar) -> Any:
        rate, second = -lr / correction(b1, step, step.dtype), torch.sqrt(correction(b2, step, step.dtype))

        def leaf(g: Tensor, p: Tensor, m: Tensor, v: Tensor, *top: Tensor) -> tuple[Tensor, ...]:
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * (g * g)
            if not amsgrad:
                return m / (root(v) / second + eps) * rate, m, v
            most = torch.maximum(top[0], v)
            return m / (root(most) / second + eps) * rate, m, v, most

        return leaf

    names = ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"][: 3 if amsgrad else 2]
    return transformation(
        AdamState,
        at,
        lr=lr,
        trees=dict.fromkeys(names, moment_zeros),
        weight_decay=weight_decay,
        decoupled=decoupled_weight_decay,
        maximize=maximize,
    )


def adamw(
    lr: ScalarOrSchedule, betas: Any, eps: Scalar, weight_decay: Scalar, amsgrad: bool, maximize: bool
) -> GradientTransformation:
    """Adam with decoupled weight decay (arXiv:1711.05101)."""
    return adam(lr, betas, eps, weight_decay, amsgrad, maximize, decoupled_weight_decay=True)


class AdamaxState(NamedTuple):
    """How many updates were made, the running mean of the gradients, and the decaying maximum of their sizes."""

    step: Tensor
    exp_avg: PyTree
    exp_inf: PyTree


def adamax(
    lr: ScalarOrSchedule, betas: Any, eps: Scalar, weight_decay: Scalar, maximize: bool
) -> GradientTransformation:
    r"""$u = -\eta\, \hat m / w$ with $w \leftarrow \max(\beta_2 w, |g| + \varepsilon)$ (arXiv:1412.6980)."""
    b1, b2 = decays_of(betas)
    nonnegative(eps=eps)

    def at(step: Tensor, lr: Scalar) -> Any:
        rate = -lr / correction(b1, step, step.dtype)

        def leaf(g: Tensor, p: Tensor, m: Tensor, w: Tensor) -> tuple[Tensor, ...]:
            m = b1 * m + (1 - b1) * g
            w = torch.maximum(b2 * w, torch.abs(g) + eps)
            return m / w * rate, m, w

        return leaf

    trees = {"exp_avg": moment_zeros, "exp_inf": moment_zeros}
    return transformation(AdamaxState, at, lr=lr, trees=trees, weight_decay=weight_decay, maximize=maximize)


class NAdamState(NamedTuple):
    """How many updates were made, the product of the momenta so far, and the running means of Adam."""

    step: Tensor
    mu_product: Tensor
    exp_avg: PyTree
    exp_avg_sq: PyTree


def nadam(
    lr: ScalarOrSchedule,
    betas: Any,
    eps: Scalar,
    weight_decay: Scalar,
    momentum_decay: Scalar,
    decoupled_weight_decay: bool,
    maximize: bool,
) -> GradientTransformation:
    r"""Adam, whose momentum has the schedule $\mu_t = \beta_1 (1 - 0.96^{t \psi} / 2)$, one step ahead.

    $$u = -\eta \left( \frac{1 - \mu_t}{1 - \prod_{i \le t} \mu_i} g
    + \frac{\mu_{t+1}}{1 - \prod_{i \le t+1} \mu_i} m \right) / (\sqrt{\hat v} + \varepsilon)$$

    Dozat 2016, openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ.
    """
    b1, b2 = decays_of(betas)
    nonnegative(eps=eps, momentum_decay=momentum_decay)

    def at(step: Tensor, lr: Scalar, mu_product: Tensor) -> Any:
        mu, ahead = (b1 * (1 - 0.5 * 0.96 ** (t * momentum_decay)) for t in (step, step + 1))
        mu_product = mu_product * mu.to(mu_product.dtype)
        product = mu_product.to(step.dtype)
        now, later = -lr * (1 - mu) / (1 - product), -lr * ahead / (1 - product * ahead)
        second = correction(b2, step, step.dtype)

        def leaf(g: Tensor, p: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, ...]:
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * (g * g)
            return (g * now + m * later) / (root(v / second) + eps), m, v

        return leaf, mu_product

    return transformation(
        NAdamState,
        at,
        lr=lr,
        trees={"exp_avg": moment_zeros, "exp_avg_sq": moment_zeros},
        scalars={"mu_product": scalar_start(1)},
        weight_decay=weight_decay,
        decoupled=decoupled_weight_decay,
        maximize=maximize,
    )


def radam(
    lr: ScalarOrSchedule,
    betas: Any,
    eps: Scalar,
    weight_decay: Scalar,
    decoupled_weight_decay: bool,
    maximize: bool,
) -> GradientTransformation:
    r"""Adam times $r_t$ where $\rho_t > 5$, and $u = -\eta\, \hat m$ before (arXiv:1908.03265); see `optim.radam`."""
    b1, b2 = decays_of(betas)
    nonnegative(eps=eps)

    def at(step: Tensor, lr: Scalar) -> Any:
        rate, second = -lr / correction(b1, step, step.dtype), correction(b2, step, step.dtype)
        length, rectified = rectification(b2, step, step.dtype)
        ready, rectified = length > 5, rectified * torch.sqrt(second)

        def leaf(g: Tensor, p: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, ...]:
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * (g * g)
            return m * rate * torch.where(ready, rectified / (root(v) + eps), 1.0), m, v

        return leaf

    return transformation(
        AdamState,
        at,
        lr=lr,
        trees={"exp_avg": moment_zeros, "exp_avg_sq": moment_zeros},
        weight_decay=weight_decay,
        decoupled=decoupled_weight_decay,
        maximize=maximize,
    )


def sparse_adam(lr: ScalarOrSchedule, betas: Any, eps: Scalar, maximize: bool) -> GradientTransformation:
    r"""Adam for the rows that have a gradient: the others keep their parameters and their means.

    A sparse gradient touches what it holds, be it zero. Of a dense one, which torch refuses here and `torch.func.grad`
    gives always, a row (a slice along the first axis) that is zero throughout counts as not held: it equals
    `torch.optim.SparseAdam` with `gradient.to_sparse(1)`. The step count is that of all updates.
    """
    b1, b2 = decays_of(betas)
    nonnegative(eps=eps)

    def at(step: Tensor, lr: Scalar) -> Any:
        rate = -lr * torch.sqrt(correction(b2, step, step.dtype)) / correction(b1, step, step.dtype)

        def leaf(g: Tensor, p: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, ...]:
            g, held = _held(g)
            new_m, new_v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * (g * g)
            m, v = torch.where(held, new_m, m), torch.where(held, new_v, v)
            return torch.where(held, new_m * rate / (root(new_v) + eps), 0.0), m, v

        return leaf

    trees = {"exp_avg": moment_zeros, "exp_avg_sq": moment_zeros}
    return transformation(AdamState, at, lr=lr, trees=trees, maximize=maximize, shaped=True)


def _held(g: Tensor) -> tuple[Tensor, Tensor]:
    """A gradient made dense, and which of its elements a sparse one would hold."""
    if g.is_sparse:
        g = g.coalesce()
        ones = torch.ones_like(g.values())  # at places that are known to be sound
        held = torch.sparse_coo_tensor(g.indices(), ones, g.shape, check_invariants=False, is_coalesced=True)
        return g.to_dense(), held.to_dense() != 0
    nonzero = g != 0
    return g, nonzero.flatten(1).any(1).view(-1, *[1] * (g.ndim - 1)) if g.ndim > 1 else nonzero
