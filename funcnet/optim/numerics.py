"""Lengths that can be differentiated at zero, counts that do not overflow, gradients scaled on their way."""

import torch
from torch import Tensor

from .. import control
from ..tree import PyTree, map
from ..tree import global_norm as length_of
from .leafwise import abs_sq
from .values import Scalar, increment, scalar

__all__ = [
    "global_norm",
    "safe_increment",
    "safe_int32_increment",
    "safe_norm",
    "safe_root_mean_squares",
    "scale_gradient",
]


def global_norm(updates: PyTree) -> Tensor:
    """`funcnet.tree.global_norm`, under Optax's name and argument.

    >>> global_norm({"w": torch.tensor([3.0, 4.0])})
    tensor(5.)
    """
    return length_of(updates)


def safe_norm(
    x: Tensor,
    min_norm: Scalar,
    ord: float | str | None = None,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
) -> Tensor:
    r"""$\max(\lVert x \rVert, c)$, whose gradient is 0 where $c$ is taken, also at $x = 0$.

    `ord`, `axis` and `keepdims` are those of `torch.linalg.norm`; all elements count as one vector without `ord`.

    >>> safe_norm(torch.tensor([3.0, 4.0]), 1.0), safe_norm(torch.zeros(2), 1.0)
    (tensor(5.), tensor(1.))
    """
    small = torch.linalg.norm(x, ord, axis, keepdim=True) <= min_norm
    length = torch.linalg.norm(torch.where(small, 1.0, x), ord, axis, keepdim=True)
    norm = torch.where(small, min_norm, length)
    if keepdims:
        return norm
    return norm.reshape(()) if axis is None else norm.squeeze(axis)


def safe_root_mean_squares(x: Tensor, min_rms: Scalar) -> Tensor:
    r"""$\max(\sqrt{\operatorname{mean}(|x|^2)}, c)$, whose gradient is 0 where $c$ is taken, also at $x = 0$.

    >>> safe_root_mean_squares(torch.tensor([3.0, -3.0]), 1.0), safe_root_mean_squares(torch.zeros(2), 1.0)
    (tensor(3.), tensor(1.))
    """
    square = torch.mean(abs_sq(x))
    small = torch.sqrt(square) <= min_rms
    return torch.where(small, min_rms, torch.sqrt(torch.where(small, 1.0, square)))


def safe_increment(count: Tensor | int | float) -> Tensor:
    """One more, which stays at the largest number of its dtype rather than overflow.

    >>> safe_increment(torch.tensor(2**31 - 1, dtype=torch.int32)).item() == 2**31 - 1
    True
    """
    count = torch.as_tensor(count)
    if count.is_complex() or count.dtype == torch.bool:
        raise ValueError(f"safe_increment counts in integers or floats, and count is {count.dtype}.")
    if count.is_floating_point():
        return torch.clamp(count + 1, max=torch.finfo(count.dtype).max)
    return increment(count)


safe_int32_increment = safe_increment


def scale_gradient(inputs: PyTree, scale: Scalar) -> PyTree:
    """The inputs as they are, with derivatives times `scale`; -1 turns them round, and 0 stops them.

    >>> torch.func.grad(lambda x: scale_gradient(x, -2.0) ** 2)(torch.tensor(3.0))
    tensor(-12.)
    """
    if not isinstance(scalar(scale, "scale"), Tensor) and scale == 1:
        return inputs
    return _scaled(inputs, scale)


# By `custom_jvp`, where Optax takes `custom_vjp`: so it has forward mode as well.
@control.custom_jvp
def _scaled(inputs: PyTree, scale: Scalar) -> PyTree:
    return inputs


@_scaled.defjvp
def _rule(primals: tuple[PyTree, Scalar], tangents: tuple[PyTree, Scalar]) -> tuple[PyTree, PyTree]:
    inputs, scale = primals
    return _scaled(inputs, scale), map(lambda t: t * scale, tangents[0])
