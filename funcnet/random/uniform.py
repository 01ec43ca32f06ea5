"""Random bits, and uniform numbers made of them."""

import math

import torch
from torch import Tensor

from funcnet.random import threefry
from funcnet.random.arguments import Real, Shape, broadcast, floating, parameters, sized
from funcnet.random.keys import as_key
from funcnet.random.operator import words

__all__ = ["bits", "draw_bits", "draw_uniform", "draw_unit", "uniform"]

# Bits drawn, bits of mantissa kept. bfloat16 takes 8 of a word although it is 16 wide, as its mantissa needs only 7.
_MANTISSA = {torch.float16: (16, 10), torch.bfloat16: (8, 7), torch.float32: (32, 23)}
_WIDTH = {
    torch.int8: 8, torch.uint8: 8, torch.int16: 16, torch.uint16: 16,
    torch.int32: 32, torch.uint32: 32, torch.int64: 64, torch.uint64: 64,
}  # fmt: skip


def draw_bits(key: Tensor, shape: tuple[int, ...], width: int = 32) -> Tensor:
    """Random words: int32 (of which the lower `width` bits count) for 8, 16 and 32 bits, int64 for 64."""
    host = threefry.host_words(key)
    if host is not None:
        n = math.prod(shape)
        if width == 64:
            return torch.from_numpy(threefry.fill(*host, n, "pair").view("i8")).reshape(shape)
        return torch.from_numpy(threefry.fill(*host, n, "bits").view("i4")).reshape(shape)
    a, b = words(key, shape)
    if width == 64:
        return (a.to(torch.int64) << 32) | (b.to(torch.int64) & threefry.WORD)
    return a ^ b


def draw_unit(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Uniform in [0, 1): the upper bits of a word as a fixed-point fraction of the mantissa's length."""
    if dtype == torch.float64:
        return ((draw_bits(key, shape, 64) >> 12) & ((1 << 52) - 1)).to(dtype) * 2.0**-52
    if dtype == torch.float32:
        host = threefry.host_words(key)
        if host is not None:
            return torch.from_numpy(threefry.fill(*host, math.prod(shape), "unit")).reshape(shape)
    width, kept = _MANTISSA[dtype]
    fraction = (draw_bits(key, shape) >> (width - kept)) & ((1 << kept) - 1)
    return fraction.to(dtype) * 2.0**-kept


def draw_uniform(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype, low: Real, high: Real) -> Tensor:
    """Uniform in [low, high). `low` and `high` are floats that `dtype` holds exactly, or tensors of `dtype`."""
    unit = draw_unit(key, shape, dtype)
    if isinstance(low, float) and isinstance(high, float):
        if low == 0.0 and high == 1.0:
            return unit
        span = high - low
        # Scaling by a power of two is exact, so there is one rounding either way.
        if math.frexp(span)[0] == 0.5:
            return torch.clamp(unit * span + low, min=low)
    low, high = parameters(key, dtype, low, high)
    if dtype == torch.float32:
        # One rounding, as the fused multiply-add that jax's compiler emits has: the product is exact in float64.
        scaled = (unit.double() * (high - low).double() + low.double()).to(dtype)
    else:
        scaled = unit * (high - low) + low
    # Rounding may carry a sum below `low`.
    return torch.maximum(scaled, low)


def bits(key: Tensor, shape: Shape = (), dtype: torch.dtype = torch.int32) -> Tensor:
    """Draw random bits.

    Args:
      key: int32 `(2,)`.
      shape: the shape of the result.
      dtype: an integer type of 8, 16, 32 or 64 bits. The default is int32, which torch can add, shift and compare;
        torch.uint32 holds the same bits and is what `jax.random.bits` returns.

    Returns: `shape`, every bit fair. Words of 8 and 16 bits are the lower part of one word of 32.

    Raises: `TypeError` for another dtype.

    >>> from funcnet import random
    >>> bits(random.key(0), (3,), torch.uint8)
    tensor([167, 146,  40], dtype=torch.uint8)
    """
    as_key(key, "bits")
    shape = sized("bits", shape)
    if dtype not in _WIDTH:
        raise TypeError(
            f"random.bits takes an integer dtype, and got {dtype}. Write random.bits(key, shape, torch.int32)."
        )
    width = _WIDTH[dtype]
    drawn = draw_bits(key, shape, width)
    if width < 32:
        drawn = drawn & ((1 << width) - 1)
        if dtype.is_signed:
            drawn = torch.where(drawn >= 1 << (width - 1), drawn - (1 << width), drawn)
    return drawn.to(dtype)


def uniform(
    key: Tensor,
    shape: Shape = (),
    dtype: torch.dtype = torch.float32,
    minval: Real = 0.0,
    maxval: Real = 1.0,
) -> Tensor:
    """Draw uniform numbers in `[minval, maxval)`.

    `u = minval + (maxval - minval) * b / 2**m`, where `b` is the upper `m` bits of a random word and `m` the length
    of the mantissa: 23 for float32, 52 for float64, 10 for float16, 7 for bfloat16 (from 8 bits).

    Args:
      key: int32 `(2,)`.
      shape: the shape of the result.
      dtype: a floating type.
      minval, maxval: floats, or tensors that broadcast to `shape`. Differentiable.

    Returns: `shape`, equal to `jax.random.uniform`.

    Raises: `TypeError` for a dtype that is not floating; `ValueError` for bounds that do not broadcast.

    >>> from funcnet import random
    >>> uniform(random.key(42), (4,))
    tensor([0.4887, 0.6798, 0.6163, 0.5610])
    """
    as_key(key, "uniform")
    shape = sized("uniform", shape)
    floating("uniform", dtype)
    if isinstance(minval, int | float) and isinstance(maxval, int | float) and (minval, maxval) == (0, 1):
        return draw_unit(key, shape, dtype)
    low, high = parameters(key, dtype, minval, maxval)
    broadcast("uniform", shape, low, high)
    return draw_uniform(key, shape, dtype, low, high)
