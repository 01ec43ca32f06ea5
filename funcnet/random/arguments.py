"""The arguments that every draw has: a shape, a dtype, and parameters that broadcast."""

import operator
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["FLOATS", "Real", "Shape", "broadcast", "floating", "integral", "joint", "parameters", "sized"]

Shape = int | Sequence[int]
Real = float | Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)


def sized(by: str, shape: Shape) -> tuple[int, ...]:
    """`shape` as a tuple of sizes."""
    if isinstance(shape, tuple | list | torch.Size):
        sizes = tuple(shape)
    else:
        try:
            sizes = (operator.index(shape),)  # type: ignore[arg-type]  # what is no index raises TypeError
        except TypeError:
            raise TypeError(
                f"random.{by} takes a shape, a tuple of sizes, and got {type(shape).__name__}. Write shape=(3, 4), "
                "or () for one number."
            ) from None
    if any(n < 0 for n in sizes):
        raise ValueError(f"random.{by} got shape {sizes}: a size is not negative.")
    return sizes


def floating(by: str, dtype: torch.dtype) -> torch.dtype:
    """`dtype`, which must be one of the floating types that a draw can have."""
    if dtype not in FLOATS:
        raise TypeError(
            f"random.{by} draws float16, bfloat16, float32 or float64, and got dtype={dtype}. "
            "Leave dtype out for float32."
        )
    return dtype


def integral(by: str, dtype: torch.dtype) -> torch.dtype:
    """`dtype`, which must be one of the integer types that a draw can have."""
    if dtype not in INTEGERS:
        raise TypeError(
            f"random.{by} draws int8, int16, int32, int64 or uint8, and got dtype={dtype}. Leave dtype out for int32."
        )
    return dtype


def parameters(key: Tensor, dtype: torch.dtype, *values: Real) -> list[Tensor]:
    """Each parameter as a tensor of `dtype` on the key's device."""
    return [
        v.to(device=key.device, dtype=dtype)
        if isinstance(v, Tensor)
        else torch.tensor(v, dtype=dtype, device=key.device)
        for v in values
    ]


def joint(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that these broadcast to; raises `RuntimeError` where they do not."""
    return tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]  # torch's own function


def broadcast(by: str, shape: Shape | None, *values: Tensor) -> tuple[int, ...]:
    """The shape of a draw with the parameters `values`: theirs when `shape` is None, else `shape`, which they fit."""
    try:
        own = joint(*(tuple(v.shape) for v in values))
        if shape is None:
            return own
        sizes = sized(by, shape)
        fits = joint(sizes, own) == sizes
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"random.{by} got parameters of shapes {[tuple(v.shape) for v in values]} and shape={shape}: the "
            "parameters must broadcast to the shape. "
            "Leave shape=None to take theirs, or write the full shape, batch first."
        )
    return sizes
