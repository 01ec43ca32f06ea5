"""Continuous laws that are one formula away from uniform or normal numbers."""

import math

import torch
from torch import Tensor

from funcnet.random.arguments import Real, Shape, broadcast, floating, parameters, sized
from funcnet.random.keys import as_key
from funcnet.random.special import erfinv
from funcnet.random.uniform import draw_uniform, draw_unit

__all__ = [
    "cauchy", "draw_exponential", "draw_gumbel", "draw_normal", "exponential", "gumbel", "laplace", "logistic",
    "normal", "truncated_normal",
]  # fmt: skip


def draw_normal(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Standard normal numbers by inversion."""
    # One ulp above -1: both ends of the interval must stay finite.
    low = -1.0 + torch.finfo(dtype).eps / 2
    if dtype in (torch.float32, torch.float64):
        # Here `1 - low` rounds to 2, by which scaling is exact: one rounding, and no need for a wider type.
        return erfinv(draw_unit(key, shape, dtype) * 2.0 + low) * math.sqrt(2)
    return erfinv(draw_uniform(key, shape, dtype, low, 1.0)) * math.sqrt(2)


def draw_exponential(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Exponential numbers of rate one."""
    return -torch.log1p(-draw_unit(key, shape, dtype))


def draw_gumbel(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype, mode: str | None = None) -> Tensor:
    """Gumbel numbers; `mode` as in `gumbel`."""
    info = torch.finfo(dtype)
    if mode in (None, "low"):
        return -torch.log(-torch.log(draw_unit(key, shape, dtype).clamp(min=info.tiny)))
    high, low = draw_unit(key, (2, *shape), dtype)
    # A second word continues the fraction where the first is small and so has room for more bits.
    x = torch.where(high >= 0.5, high, high + info.eps * low + info.tiny)
    return -torch.log(-torch.log1p(-x))


def normal(key: Tensor, shape: Shape = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw standard normal numbers, of density `exp(-x**2 / 2) / sqrt(2 pi)`.

    `x = sqrt(2) * erfinv(u)` with `u` uniform in (-1, 1).

    Args:
      key: int32 `(2,)`.
      shape: the shape of the result.
      dtype: a floating type.

    Returns: `shape`, equal to `jax.random.normal` to a few ulp.

    Raises: `TypeError` for a dtype that is not floating.

    >>> from funcnet import random
    >>> normal(random.key(0), (3,))
    tensor([ 1.6226,  2.0253, -0.4336])
    """
    as_key(key, "normal")
    return draw_normal(key, sized("normal", shape), floating("normal", dtype))


def truncated_normal(
    key: Tensor,
    lower: Real,
    upper: Real,
    shape: Shape | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw normal numbers that lie in `(lower, upper)`.

    `x = sqrt(2) * erfinv(u)` with `u` uniform between `erf(lower / sqrt(2))` and `erf(upper / sqrt(2))`.

    Args:
      key: int32 `(2,)`.
      lower, upper: the bounds, which broadcast to `shape`. Differentiable inside the interval.
      shape: the shape of the result; None takes the bounds'.
      dtype: a floating type.

    Returns: `shape`.

    Raises: `TypeError` for a dtype that is not floating; `ValueError` for bounds that do not broadcast.

    >>> from funcnet import random
    >>> truncated_normal(random.key(0), -1.0, 1.0, (3,))
    tensor([ 0.8619,  0.9413, -0.2910])
    """
    as_key(key, "truncated_normal")
    low, high = parameters(key, floating("truncated_normal", dtype), lower, upper)
    shape = broadcast("truncated_normal", shape, low, high)
    root = math.sqrt(2)
    u = draw_uniform(key, shape, dtype, torch.erf(low / root), torch.erf(high / root))
    infinity = torch.full_like(low.detach(), torch.inf)
    inside = torch.nextafter(low.detach(), infinity), torch.nextafter(high.detach(), -infinity)
    return torch.minimum(torch.maximum(erfinv(u) * root, inside[0]), inside[1])


def exponential(key: Tensor, shape: Shape = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw exponential numbers of rate one, of density `exp(-x)` for `x >= 0`.

    `x = -log(1 - u)`. For another rate divide by it.

    Args:
      key: int32 `(2,)`.
      shape: the shape of the result.
      dtype: a floating type.

    Returns: `shape`.

    Raises: `TypeError` for a dtype that is not floating.

    >>> from funcnet import random
    >>> exponential(random.key(0), (3,))
    tensor([2.9501, 3.8434, 0.4039])
    """
    as_key(key, "exponential")
    return draw_exponential(key, sized("exponential", shape), floating("exponential", dtype))


def gumbel(key: Tensor, shape: Shape = (), dtype: torch.dtype = torch.float32, mode: str | None = None) -> Tensor:
    """Draw standard Gumbel numbers, of density `exp(-(x + exp(-x)))`.

    `x = -log(-log(u))`.

    Args:
      key: int32 `(2,)`.
      shape: the shape of the result.
      dtype: a floating type.
      mode: "low" (or None) takes one word a number, so that float32 reaches about 16; "high" takes two and reaches
        about 32, for choices whose probability is below 1e-7.

    Returns: `shape`.

    Raises: `TypeError` for a dtype that is not floating; `ValueError` for another mode.

    >>> from funcnet import random
    >>> gumbel(random.key(0), (3,))
    tensor([ 2.9234,  3.8326, -0.0969])
    """
    as_key(key, "gumbel")
    if mode not in (None, "low", "high"):
        raise ValueError(f"random.gumbel got mode={mode!r}. Write mode='low' or mode='high'.")
    return draw_gumbel(key, sized("gumbel", shape), floating("gumbel", dtype), mode)


def laplace(key: Tensor, shape: Shape = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw standard Laplace numbers, of density `exp(-|x|) / 2`.

    `x = sign(u) * log(1 - |u|)` with `u` uniform in (-1, 1).

    Args:
      key: int32 `(2,)`.
      shape: the shape of the result.
      dtype: a floating type.

    Returns: `shape`.

    Raises: `TypeError` for a dtype that is not floating.

    >>> from funcnet import random
    >>> laplace(random.key(0), (3,)).shape
    torch.Size([3])
    """
    as_key(key, "laplace")
    low = -1.0 + torch.finfo(floating("laplace", dtype)).eps / 2
    u = draw_uniform(key, sized("laplace", shape), dtype, low, 1.0)
    return torch.sign(u) * torch.log1p(-u.abs())


def cauchy(key: Tensor, shape: Shape = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw standard Cauchy numbers, of density `1 / (pi (1 + x**2))`.

    `x = tan(pi (u - 1/2))`.

    Args:
      key: int32 `(2,)`.
      shape: the shape of the result.
      dtype: a floating type.

    Returns: `shape`.

    Raises: `TypeError` for a dtype that is not floating.

    >>> from funcnet import random
    >>> cauchy(random.key(0), (3,)).shape
    torch.Size([3])
    """
    as_key(key, "cauchy")
    eps = torch.finfo(floating("cauchy", dtype)).eps
    u = draw_uniform(key, sized("cauchy", shape), dtype, eps, 1.0)
    return torch.tan((u - 0.5) * math.pi)


def logistic(key: Tensor, shape: Shape = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw standard logistic numbers, of density `exp(-x) / (1 + exp(-x))**2`.

    `x = log(u / (1 - u))`.

    Args:
      key: int32 `(2,)`.
      shape: the shape of the result.
      dtype: a floating type.

    Returns: `shape`.

    Raises: `TypeError` for a dtype that is not floating.

    >>> from funcnet import random
    >>> logistic(random.key(0), (3,)).shape
    torch.Size([3])
    """
    as_key(key, "logistic")
    u = draw_unit(key, sized("logistic", shape), floating("logistic", dtype)).clamp(min=torch.finfo(dtype).tiny)
    return torch.log(u) - torch.log1p(-u)
