"""Continuous laws with parameters, made of the ones in `continuous`."""

import torch
from torch import Tensor

from funcnet.random.arguments import Real, Shape, broadcast, floating, parameters, sized
from funcnet.random.continuous import draw_exponential, draw_normal
from funcnet.random.discrete import draw_signs
from funcnet.random.keys import as_key, split_words
from funcnet.random.uniform import draw_unit

__all__ = [
    "double_sided_maxwell", "lognormal", "maxwell", "pareto", "rayleigh", "triangular", "wald", "weibull_min",
]  # fmt: skip


def pareto(key: Tensor, b: Real, shape: Shape | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw Pareto numbers of scale one, of density `b / x**(b + 1)` for `x >= 1`.

    `x = exp(e / b)` with `e` exponential. Arguments as in `rayleigh`; differentiable in `b`.

    >>> from funcnet import random
    >>> pareto(random.key(0), 3.0, (2,)) >= 1
    tensor([True, True])
    """
    as_key(key, "pareto")
    (b,) = parameters(key, floating("pareto", dtype), b)
    return torch.exp(draw_exponential(key, broadcast("pareto", shape, b), dtype) / b)


def rayleigh(key: Tensor, scale: Real, shape: Shape | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw Rayleigh numbers, of density `x exp(-x**2 / (2 scale**2)) / scale**2` for `x >= 0`.

    `x = scale * sqrt(-2 log(u))`.

    Args:
      key: int32 `(2,)`.
      scale: positive; broadcasts to `shape`. Differentiable.
      shape: the shape of the result; None takes the parameter's.
      dtype: a floating type.

    Returns: `shape`.

    Raises: `TypeError` for a dtype that is not floating; `ValueError` for a parameter that does not broadcast.

    >>> from funcnet import random
    >>> rayleigh(random.key(0), 2.0, (2,)) >= 0
    tensor([True, True])
    """
    as_key(key, "rayleigh")
    (scale,) = parameters(key, floating("rayleigh", dtype), scale)
    # jax lets u be 0, once in 2**23 float32 draws, and returns infinity; the smallest u otherwise keeps it finite.
    u = draw_unit(key, broadcast("rayleigh", shape, scale), dtype).clamp(min=torch.finfo(dtype).tiny)
    return scale * torch.sqrt(torch.log(u) * -2.0)


def lognormal(key: Tensor, sigma: Real = 1.0, shape: Shape | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw log-normal numbers: `x = exp(sigma * z)` with `z` standard normal.

    Arguments as in `rayleigh`; differentiable in `sigma`.

    >>> from funcnet import random
    >>> lognormal(random.key(0), 0.5, (2,)) > 0
    tensor([True, True])
    """
    as_key(key, "lognormal")
    (sigma,) = parameters(key, floating("lognormal", dtype), sigma)
    return torch.exp(draw_normal(key, broadcast("lognormal", shape, sigma), dtype) * sigma)


def maxwell(key: Tensor, shape: Shape = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw Maxwell numbers: the length of three standard normal numbers.

    Args:
      key: int32 `(2,)`.
      shape: the shape of the result.
      dtype: a floating type.

    Returns: `shape`, of density `sqrt(2 / pi) x**2 exp(-x**2 / 2)`.

    Raises: `TypeError` for a dtype that is not floating.

    >>> from funcnet import random
    >>> maxwell(random.key(0), (2,)) > 0
    tensor([True, True])
    """
    as_key(key, "maxwell")
    return _maxwell(key, sized("maxwell", shape), floating("maxwell", dtype))


def _maxwell(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    draw: Tensor = torch.linalg.vector_norm(draw_normal(key, (*shape, 3), dtype), dim=-1)
    return draw


def double_sided_maxwell(
    key: Tensor, loc: Real, scale: Real, shape: Shape = (), dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw `loc + scale * s * m` with `m` Maxwell and `s` a fair sign.

    As in jax, `shape` comes before the parameters' own broadcast shape, which is also taken where `shape` is `()`.
    Differentiable in `loc` and `scale`.

    >>> from funcnet import random
    >>> double_sided_maxwell(random.key(0), 0.0, 1.0, (2,)).shape
    torch.Size([2])
    """
    as_key(key, "double_sided_maxwell")
    loc, scale = parameters(key, floating("double_sided_maxwell", dtype), loc, scale)
    own = broadcast("double_sided_maxwell", None, loc, scale)
    full = (*(sized("double_sided_maxwell", shape) or own), *own)
    keys = split_words(key, (2,))
    return draw_signs(keys[1], full, dtype) * _maxwell(keys[0], full, dtype) * scale + loc


def weibull_min(
    key: Tensor, scale: Real, concentration: Real, shape: Shape = (), dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw Weibull numbers: `x = scale * (-log(1 - u)) ** (1 / concentration)`.

    Args:
      key: int32 `(2,)`.
      scale, concentration: positive; broadcast against a draw of `shape`. Differentiable.
      shape: the shape of the uniform numbers.
      dtype: a floating type.

    Returns: the broadcast shape of `shape` and the parameters.

    Raises: `TypeError` for a dtype that is not floating.

    >>> from funcnet import random
    >>> weibull_min(random.key(0), 1.0, 2.0, (2,)) >= 0
    tensor([True, True])
    """
    as_key(key, "weibull_min")
    scale, concentration = parameters(key, floating("weibull_min", dtype), scale, concentration)
    e = draw_exponential(key, sized("weibull_min", shape), dtype)
    return torch.pow(e, 1.0 / concentration) * scale


def triangular(
    key: Tensor, left: Real, mode: Real, right: Real, shape: Shape | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw from the triangle over `[left, right]` whose peak is at `mode`, by inversion.

    Arguments as in `rayleigh`; differentiable in all three.

    >>> from funcnet import random
    >>> triangular(random.key(0), 0.0, 0.5, 1.0, (2,)) < 1
    tensor([True, True])
    """
    as_key(key, "triangular")
    left, mode, right = parameters(key, floating("triangular", dtype), left, mode, right)
    u = draw_unit(key, broadcast("triangular", shape, left, mode, right), dtype)
    rising = u < (mode - left) / (right - left)
    # The square root's argument is chosen before it is taken: the other side would put a NaN in the gradient.
    area = torch.where(rising, u * (right - left) * (mode - left), (1 - u) * (right - left) * (right - mode))
    root = torch.sqrt(area)
    return torch.where(rising, left + root, right - root)


def wald(key: Tensor, mean: Real, shape: Shape | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw Wald (inverse Gaussian) numbers of the given mean and scale one.

    Michael, Schucany and Haas, "Generating random variates using transformations with multiple roots", The American
    Statistician 30, 1976: of the two roots of `(x - mean)**2 = mean**2 x y`, `y` the square of a normal number, the
    smaller is taken with probability `mean / (mean + x)`. Arguments as in `rayleigh`; the choice of the root makes
    the draw no reparametrisation, so do not differentiate through it.

    >>> from funcnet import random
    >>> wald(random.key(0), 1.0, (2,)) > 0
    tensor([True, True])
    """
    as_key(key, "wald")
    (mean,) = parameters(key, floating("wald", dtype), mean)
    shape = broadcast("wald", shape, mean)
    keys = split_words(key, (2,))
    y = draw_normal(keys[0], shape, dtype) ** 2
    z = draw_unit(keys[1], shape, dtype)
    x = mean + mean * mean * y / 2 - mean / 2 * torch.sqrt(4 * mean * y + mean * mean * (y * y))
    return torch.where(z <= mean / (mean + x), x, mean * mean / x)
