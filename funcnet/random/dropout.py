"""Keyed forms of dropout and of what else torch makes random in a forward pass. `p` is the drop probability."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from funcnet.random.arguments import parameters
from funcnet.random.halves import unit_in, wide
from funcnet.random.uniform import draw_uniform, draw_unit

__all__ = ["DROPOUT"]

# The value that a SELU unit has when its input is very negative, which alpha dropout puts in place of zero.
SATURATION = -1.7580993408473766


def _check(p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def _kept(mode: Any, x: Tensor, p: float, shape: tuple[int, ...]) -> Tensor:
    return draw_unit(mode.next_key().to(x.device), shape, torch.float32) >= p


def _scaled(x: Tensor, kept: Tensor, p: float) -> Tensor:
    # `where` and not a product: what is dropped is gone, an infinity too.
    return torch.where(kept, x * (1.0 / (1.0 - p)), 0.0)


def dropout(mode: Any, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`F.dropout`; `inplace` is a hint about memory, and does not write."""
    _check(p)
    if not training or p == 0.0 or input.numel() == 0:
        return input
    if p == 1.0:
        return torch.where(torch.zeros((), dtype=torch.bool, device=input.device), input, 0.0)
    return _scaled(input, _kept(mode, input, p, tuple(input.shape)), p)


def _plain_dropout(mode: Any, input: Tensor, p: float, train: bool) -> Tensor:
    return dropout(mode, input, p, train)


def _native_dropout(mode: Any, input: Tensor, p: float, train: bool | None = True) -> tuple[Tensor, Tensor]:
    _check(p)
    if train is False or p == 0.0:
        return input, torch.ones_like(input, dtype=torch.bool)
    kept = _kept(mode, input, p, tuple(input.shape))
    return (torch.zeros_like(input) if p == 1.0 else _scaled(input, kept, p)), kept


def _channels(input: Tensor) -> tuple[int, ...]:
    if input.dim() < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    return (*input.shape[:2], *(1,) * (input.dim() - 2))


def _feature_dropout(mode: Any, input: Tensor, p: float, train: bool) -> Tensor:
    _check(p)
    if not train or p == 0.0 or input.numel() == 0:
        return input
    if p == 1.0:
        return dropout(mode, input, p)
    return _scaled(input, _kept(mode, input, p, _channels(input)), p)


def _alpha(mode: Any, input: Tensor, p: float, train: bool, shape: tuple[int, ...]) -> Tensor:
    _check(p)
    if not train or p == 0.0 or input.numel() == 0:
        return input
    if p == 1.0:
        return dropout(mode, input, p)
    a = 1.0 / math.sqrt((SATURATION**2 * p + 1.0) * (1.0 - p))
    return torch.where(_kept(mode, input, p, shape), input, SATURATION) * a - a * SATURATION * p


def _alpha_dropout(mode: Any, input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    return _alpha(mode, input, p, training, tuple(input.shape))


def _feature_alpha(mode: Any, input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    return _alpha(mode, input, p, training, _channels(input))


def _plain_alpha(mode: Any, input: Tensor, p: float, train: bool) -> Tensor:
    return _alpha(mode, input, p, train, tuple(input.shape))


def _plain_feature_alpha(mode: Any, input: Tensor, p: float, train: bool) -> Tensor:
    return _alpha(mode, input, p, train, _channels(input))


def _rrelu(
    mode: Any,
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    generator: torch.Generator | None = None,
    inplace: bool = False,
) -> Tensor:
    if not training:
        return F.leaky_relu(input, (lower + upper) / 2)
    key = mode.next_key().to(input.device)
    dtype = wide(input.dtype)
    slope = draw_uniform(key, tuple(input.shape), dtype, *parameters(key, dtype, lower, upper))
    return torch.where(input >= 0, input, input * slope.to(input.dtype))


def _f_rrelu(
    mode: Any,
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    return _rrelu(mode, input, lower, upper, training)


def _fractional(function: Any, dimensions: int) -> Any:
    def replacement(mode: Any, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        # The samples are the fifth argument after the input.
        if len(args) < 5 and kwargs.get("_random_samples") is None:
            batch = 1 if input.dim() == dimensions + 1 else input.shape[0]
            shape = (batch, input.shape[-dimensions - 1], dimensions)
            kwargs["_random_samples"] = unit_in(mode.next_key().to(input.device), shape, input.dtype)
        return function(input, *args, **kwargs)

    return replacement


DROPOUT: dict[Any, Any] = {
    F.dropout: dropout,
    F.alpha_dropout: _alpha_dropout,
    F.feature_alpha_dropout: _feature_alpha,
    torch.dropout: _plain_dropout,
    torch.dropout_: _plain_dropout,
    torch.native_dropout: _native_dropout,
    torch.feature_dropout: _feature_dropout,
    torch.feature_dropout_: _feature_dropout,
    torch.alpha_dropout: _plain_alpha,
    torch.alpha_dropout_: _plain_alpha,
    torch.feature_alpha_dropout: _plain_feature_alpha,
    torch.feature_alpha_dropout_: _plain_feature_alpha,
    F.rrelu: _f_rrelu,
    torch.rrelu: _rrelu,
    torch.rrelu_: _rrelu,
    F.fractional_max_pool2d: _fractional(F.fractional_max_pool2d, 2),
    F.fractional_max_pool3d: _fractional(F.fractional_max_pool3d, 3),
    F.fractional_max_pool2d_with_indices: _fractional(F.fractional_max_pool2d_with_indices, 2),
    F.fractional_max_pool3d_with_indices: _fractional(F.fractional_max_pool3d_with_indices, 3),
}
