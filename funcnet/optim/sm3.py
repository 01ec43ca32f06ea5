"""SM3."""

from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..tree import PyTree, flatten, leaves, leaves_with_path, map, unflatten
from ..tree.mismatch import match
from .adagrad import over_root
from .arguments import check_floating, stateful
from .base import GradientTransformation, chain
from .leafwise import abs_sq, moment_zeros, wide
from .scaling import scale
from .values import Scalar, decay_rate, scalar

__all__ = ["ScaleBySM3State", "scale_by_sm3", "sm3"]


class ScaleBySM3State(NamedTuple):
    """The largest sum of squares along every axis, and momentum."""

    mu: PyTree
    """a list for each parameter, with a vector of each of its axes; one of length 1 where it has none"""
    nu: PyTree
    """like the parameters"""


def scale_by_sm3(b1: Scalar = 0.9, b2: Scalar = 1.0, eps: Scalar = 1e-8) -> GradientTransformation:
    r"""Adagrad in the memory of a row and a column (Anil et al., arXiv:1901.11150), then a running mean.

    The accumulator of an element is the least of those of the slices that it lies in, plus its square; the new
    accumulator of a slice is the largest of its elements'. For a matrix,

    $$s_{ij} = \min(r_i, c_j) + g_{ij}^2, \quad r_i = \max_j s_{ij}, \quad c_j = \max_i s_{ij}, \quad
    u \leftarrow \beta_1 u + (1 - \beta_1) g / \sqrt{s + \varepsilon}$$

    With `b2` below 1 the sum decays, $s = \beta_2 \min(r, c) + (1 - \beta_2) g^2$. A 0-dim parameter is a vector of
    length 1, where Optax fails. Raises `ValueError` for complex parameters, as Optax does.

    >>> rule = scale_by_sm3()
    >>> params = {"w": torch.zeros(2, 3)}
    >>> updates, state = rule.update({"w": torch.tensor([[3.0, 0.0, 1.0]] * 2)}, rule.init(params), params)
    >>> state.mu["w"]
    [tensor([9., 9.]), tensor([9., 0., 1.])]
    """
    decay_rate(b1, "b1"), scalar(b2, "b2"), scalar(eps, "eps")
    share = 1.0 if not isinstance(b2, Tensor) and b2 == 1 else 1 - b2

    def init(params: PyTree) -> ScaleBySM3State:
        check_floating(leaves(params), params, "params")
        for path, p in leaves_with_path(params):
            if p.is_complex():
                raise ValueError(
                    f"scale_by_sm3 takes no complex parameters, and {path!r} is one: write torch.view_as_real(p)."
                )
        return ScaleBySM3State(mu=map(_axes, params), nu=moment_zeros(params))

    def update(
        updates: PyTree, state: ScaleBySM3State, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleBySM3State]:
        def leaf(g: Tensor, lines: list[Tensor], m: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
            one = g.reshape(g.shape or (1,)).to(m.dtype)
            shapes = [[-1 if i == axis else 1 for i in range(one.ndim)] for axis in range(one.ndim)]
            spread = [line.reshape(shape) for line, shape in zip(lines, shapes, strict=True)]
            s = share * abs_sq(one) + b2 * reduce(torch.minimum, spread)
            u = over_root(one, s, eps)[0].reshape(g.shape)
            m = (b1 * m + (1 - b1) * u).to(m.dtype)
            return m.to(g.dtype), [_largest(s, axis).to(line.dtype) for axis, line in enumerate(lines)], m

        momenta, treedef = flatten(state.nu)
        grads = match(updates, state.nu, "updates", "state.nu")
        lines = iter(match(state.mu, map(_axes, state.nu), "state.mu", "the axes of state.nu"))
        rows = [leaf(g, [next(lines) for _ in range(max(g.ndim, 1))], m) for g, m in zip(grads, momenta, strict=True)]
        moved, mu, nu = (unflatten(treedef, [row[n] for row in rows]) for n in range(3))
        return moved, ScaleBySM3State(mu=mu, nu=nu)

    return stateful(ScaleBySM3State, init, update)


def _axes(p: Tensor) -> list[Tensor]:
    return [p.new_zeros(length, dtype=wide(p.dtype)) for length in p.shape or (1,)]


def _largest(s: Tensor, axis: int) -> Tensor:
    """The largest of every slice across an axis; 0 of a slice without elements."""
    others = [i for i in range(s.ndim) if i != axis]
    if not others:
        return s
    return torch.amax(s, others) if s.numel() else s.new_zeros(s.shape[axis])


def sm3(learning_rate: Scalar, momentum: Scalar = 0.9) -> GradientTransformation:
    r"""SM3: $u = -\eta$ times `scale_by_sm3(momentum)` (Anil et al., arXiv:1901.11150). Takes no schedule, as in Optax.

    >>> optimizer = sm3(0.1, momentum=0.0)
    >>> params = {"w": torch.zeros(2)}
    >>> optimizer.update({"w": torch.tensor([3.0, -1.0])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.1000,  0.1000])}
    """
    return chain(scale_by_sm3(momentum), scale(-scalar(learning_rate, "learning_rate")))
