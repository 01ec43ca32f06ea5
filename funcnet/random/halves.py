"""Draws of half precision for torch code: made in float32, and rounded.

`random.uniform` and its kin have jax's bits, which in bfloat16 are 128 numbers, one of them 0. Torch code expects the
law itself: a zero once in 2**23, so that `bernoulli_(0.995)` and the logarithm of an exponential number are right.
"""

import torch
from torch import Tensor

from funcnet.random.continuous import draw_normal
from funcnet.random.uniform import draw_unit

__all__ = ["least", "normal_in", "unit_below", "unit_in", "wide"]


def wide(dtype: torch.dtype) -> torch.dtype:
    """The floating type that numbers of `dtype` are drawn in: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def least(dtype: torch.dtype) -> float:
    """The smallest number above 0 that stays above it, rounded to `dtype`: a logarithm is finite there."""
    info = torch.finfo(dtype)
    # float16 needs its subnormal numbers, or one number in 10,000 would be raised; bfloat16 has float32's exponents.
    return max(float(info.tiny * info.eps), float(torch.finfo(torch.float32).tiny)) if info.bits < 32 else info.tiny


def unit_below(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Uniform in [0, 1) of type `wide(dtype)`, and below 1 after rounding to `dtype` as well."""
    unit = draw_unit(key, shape, wide(dtype))
    return unit if unit.dtype == dtype else unit.clamp(max=1 - torch.finfo(dtype).eps / 2)


def unit_in(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """`unit_below`, rounded to `dtype`."""
    return unit_below(key, shape, dtype).to(dtype)


def normal_in(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Standard normal numbers, rounded to `dtype`."""
    return draw_normal(key, shape, wide(dtype)).to(dtype)
