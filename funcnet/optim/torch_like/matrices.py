"""Rules that look at a matrix as a whole: Adafactor and Muon."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...tree import PyTree, leaves_with_path, map
from ..arguments import pair, whole
from ..base import GradientTransformation
from ..leafwise import moment_zeros, root, wide
from ..values import Scalar, ScalarOrSchedule, scalar
from .common import nonnegative, transformation


class AdafactorState(NamedTuple):
    """How many updates were made, and the running means of squares; what a leaf does not need is a 0-dim zero."""

    step: Tensor
    row_var: PyTree
    """the mean over the last axis of a leaf of two or more"""
    col_var: PyTree
    """the mean over its last but one"""
    variance: PyTree
    """like the leaf, where it has one axis or none"""


def adafactor(
    lr: ScalarOrSchedule, beta2_decay: Scalar, eps: Any, d: Scalar, weight_decay: Scalar, maximize: bool
) -> GradientTransformation:
    r"""Divide by a root mean square made of its rows' and columns' (Shazeer and Stern, arXiv:1804.04235).

    With $w = t^\tau$ for the newest squares in $V$, $\alpha = \max(\varepsilon_2, \mathrm{RMS}(\theta))
    \min(\eta, 1 / \sqrt{t})$ and $U = g / \sqrt V$, $u = -\alpha U / \max(1, \mathrm{RMS}(U) / d)$. `eps[0]` is by
    default that of the dtype, which for half-precision parameters is float32 here.
    """
    eps1, eps2 = pair(eps, "eps", "(None, 1e-3)")
    nonnegative(**({} if eps1 is None else {"eps[0]": eps1}), **{"eps[1]": eps2})
    if not isinstance(scalar(beta2_decay, "beta2_decay"), Tensor) and beta2_decay > 0:
        raise ValueError(f"beta2_decay is {beta2_decay}, and torch.optim takes none above 0.")
    if not isinstance(scalar(d, "d"), Tensor) and d < 1:
        raise ValueError(f"d is {d}, and torch.optim takes none below 1.")

    def zeros(p: Tensor, axis: int) -> Tensor:
        """Of a mean over an axis, or over none; 0-dim where the leaf has no use for it."""
        shape = list(p.shape)
        if (axis < 0) != (p.ndim > 1):
            shape = []
        elif axis < 0:
            shape[axis] = 1
        return p.new_zeros(shape, dtype=wide(p.dtype))

    def at(step: Tensor, lr: Scalar) -> Any:
        newest, bound = step**beta2_decay, torch.clamp(step**-0.5, max=lr)

        def leaf(g: Tensor, p: Tensor, row: Tensor, col: Tensor, v: Tensor) -> tuple[Tensor, ...]:
            least = torch.finfo(g.dtype).eps if eps1 is None else eps1
            square = g * g
            if g.ndim > 1:
                row = row + (square.mean(-1, keepdim=True) - row) * newest
                col = col + (square.mean(-2, keepdim=True) - col) * newest
                mean = row * col / row.mean(-2, keepdim=True).clamp(min=least)
            else:
                mean = v = v + (square - v) * newest
            u = g * mean.clamp(min=least * least).rsqrt()
            size = _rms(p).clamp(min=eps2) * bound
            return -size / (_rms(u) / d).clamp(min=1) * u, row, col, v

        return leaf

    return transformation(
        AdafactorState,
        at,
        lr=lr,
        trees={
            "row_var": lambda params: map(lambda p: zeros(p, -1), params),
            "col_var": lambda params: map(lambda p: zeros(p, -2), params),
            "variance": lambda params: map(lambda p: zeros(p, 0), params),
        },
        weight_decay=weight_decay,
        decoupled=True,
        maximize=maximize,
        shaped=True,
    )


def _rms(x: Tensor) -> Any:
    return root((x * x).mean())


class MuonState(NamedTuple):
    """How many updates were made, and the running mean of the gradients."""

    step: Tensor
    momentum_buffer: PyTree


_RATIOS = {
    "original": lambda rows, columns: math.sqrt(max(1, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
    "spectral_unclamped": lambda rows, columns: math.sqrt(rows / columns),
}


def muon(
    lr: ScalarOrSchedule,
    weight_decay: Scalar,
    momentum: Scalar,
    nesterov: bool,
    ns_coefficients: Any,
    eps: float,
    ns_steps: int,
    adjust_lr_fn: str | None,
) -> GradientTransformation:
    r"""The running mean of gradients, made nearly orthogonal (Jordan et al., kellerjordan.github.io/posts/muon).

    Every singular value is brought near 1 by `ns_steps` of $X \leftarrow a X + b X X^T X + c (X X^T)^2 X$, in bfloat16
    as in torch: derivatives through it are those of the exact operations. The parameters must be matrices; the rate is
    multiplied by what `adjust_lr_fn` makes of their shape.
    """
    nonnegative(momentum=momentum)
    if not isinstance(ns_coefficients, tuple | list) or len(ns_coefficients) != 3:
        raise ValueError(f"ns_coefficients is {ns_coefficients!r}, where torch.optim takes three numbers.")
    whole(ns_steps, "ns_steps", least=0)
    if not ns_steps < 100:
        raise ValueError(f"ns_steps is {ns_steps}, and torch.optim takes less than 100.")
    ratio = _RATIOS.get(adjust_lr_fn or "original")
    if ratio is None:
        raise ValueError(f"adjust_lr_fn is {adjust_lr_fn!r}, and torch.optim knows {', '.join(_RATIOS)}.")
    a, b, c = ns_coefficients

    def start(params: PyTree) -> PyTree:
        for path, leaf in leaves_with_path(params):
            if leaf.ndim != 2:
                raise ValueError(
                    f"Muon takes matrices, and {path!r} has shape {tuple(leaf.shape)}: give the others to another "
                    'rule, as in optim.partition({"muon": ..., "rest": optim.adamw(1e-3)}, labels).'
                )
        return moment_zeros(params)

    def orthogonal(x: Tensor) -> Tensor:
        x = x.to(torch.bfloat16)
        x = x / x.norm().clamp(min=eps)
        for _ in range(ns_steps):
            gram = x @ x.mT
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x

    def at(step: Tensor, lr: Scalar) -> Any:
        def leaf(g: Tensor, p: Tensor, buffer: Tensor) -> tuple[Tensor, ...]:
            # torch's own mixing, since a bit of difference may grow to one of bfloat16
            buffer = _lerp(buffer, g, 1 - momentum)
            u = _lerp(g, buffer, momentum) if nesterov else buffer
            u = (orthogonal(u.mT).mT if u.shape[0] > u.shape[1] else orthogonal(u)).to(g.dtype)
            return u * (-lr * ratio(*u.shape)), buffer

        return leaf

    return transformation(
        MuonState,
        at,
        lr=lr,
        trees={"momentum_buffer": start},
        weight_decay=weight_decay,
        decoupled=True,
        shaped=True,
    )


def _lerp(start: Tensor, end: Tensor, weight: Scalar) -> Tensor:
    return torch.lerp(start, end, weight.to(start.dtype) if isinstance(weight, Tensor) else weight)
