"""Keyed forms of the methods that fill a tensor in place, as `torch.nn.init` does."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcnet.random.arguments import FLOATS, parameters
from funcnet.random.continuous import draw_exponential, draw_normal
from funcnet.random.factories import draw_range, refuse_generator
from funcnet.random.halves import least, unit_below, wide
from funcnet.random.uniform import draw_uniform, draw_unit

__all__ = ["FILLS"]

_Fill = Callable[..., Tensor]


def _fill(draw: _Fill) -> Any:
    """Fill with `draw(key, shape, dtype, *parameters)`; an integer tensor is drawn in the default dtype.

    What is drawn is of type `wide(dtype)`, and rounded as it is written.
    """

    def replacement(
        mode: Any, tensor: Tensor, *args: Any, generator: torch.Generator | None = None, **kwargs: Any
    ) -> Tensor:
        refuse_generator(generator)
        # `from` is a word of Python's, so no function can have it as an argument's name.
        if "from" in kwargs:
            kwargs["low"] = kwargs.pop("from")
        dtype = tensor.dtype if tensor.dtype in FLOATS else torch.get_default_dtype()
        value = draw(mode.next_key().to(tensor.device), tuple(tensor.shape), dtype, *args, **kwargs)
        return tensor.copy_(value)

    return replacement


def _uniform(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype, low: float = 0.0, to: float = 1.0) -> Tensor:
    if dtype != wide(dtype):
        return unit_below(key, shape, dtype) * (to - low) + low
    return draw_uniform(key, shape, dtype, *parameters(key, dtype, low, to))


def _normal(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype, mean: float = 0.0, std: float = 1.0) -> Tensor:
    return draw_normal(key, shape, wide(dtype)) * std + mean


def _exponential(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype, lambd: float = 1.0) -> Tensor:
    # Above zero, as torch's own: F.gumbel_softmax takes the logarithm.
    low = least(dtype)
    drawn = draw_exponential(key, shape, wide(dtype)).clamp(min=low) / lambd
    return drawn if drawn.dtype == dtype else drawn.clamp(min=low)


def _cauchy(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype, median: float = 0.0, sigma: float = 1.0) -> Tensor:
    return median + sigma * torch.tan(torch.pi * (draw_unit(key, shape, wide(dtype)) - 0.5))


def _log_normal(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype, mean: float = 1.0, std: float = 2.0) -> Tensor:
    return torch.exp(draw_normal(key, shape, wide(dtype)) * std + mean)


def _geometric(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype, p: Any) -> Tensor:
    (p,) = parameters(key, wide(dtype), p)
    return torch.ceil(-draw_exponential(key, shape, wide(dtype)) / torch.log1p(-p)).clamp(min=1.0)


def _bernoulli(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype, p: Any = 0.5) -> Tensor:
    return torch.lt(draw_unit(key, shape, wide(dtype)), p)


def _random(
    mode: Any,
    tensor: Tensor,
    *args: Any,
    to: int | None = None,
    generator: torch.Generator | None = None,
    **kwargs: Any,
) -> Tensor:
    refuse_generator(generator)
    low = kwargs.get("from", 0)
    if len(args) == 2:
        low, to = args
    elif args:
        low, to = (args[0], to) if to is not None else (low, args[0])
    if to is None:
        if tensor.dtype in FLOATS:
            # Up to where every integer has a float of its own.
            to = int(2 / torch.finfo(tensor.dtype).eps) + 1
        else:
            to = 2 if tensor.dtype == torch.bool else min(torch.iinfo(tensor.dtype).max, 2**63 - 2) + 1
    return tensor.copy_(draw_range(mode.next_key().to(tensor.device), tuple(tensor.shape), low, to))


FILLS: dict[Any, Any] = {
    Tensor.uniform_: _fill(_uniform),
    Tensor.normal_: _fill(_normal),
    Tensor.exponential_: _fill(_exponential),
    Tensor.cauchy_: _fill(_cauchy),
    Tensor.log_normal_: _fill(_log_normal),
    Tensor.geometric_: _fill(_geometric),
    Tensor.bernoulli_: _fill(_bernoulli),
    Tensor.random_: _random,
}
