"""Drawn modules as text that builds them: a layer is its class with its arguments."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from funcnet import random

__all__ = ["Architecture", "Attention", "Layer", "Mean", "Recurrent", "Residual"]


@dataclass(frozen=True)
class Layer:
    """A constructor with its arguments, some of which are layers; calling it builds the module.

    >>> Layer(nn.Sequential, (Layer(nn.Linear, (3, 2)), Layer(nn.Tanh)))
    Sequential(Linear(3, 2), Tanh())
    """

    kind: Callable[..., nn.Module]
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()

    def __call__(self) -> nn.Module:
        """Build the module."""
        args = [arg() if isinstance(arg, Layer) else arg for arg in self.args]
        return self.kind(*args, **{name: arg() if isinstance(arg, Layer) else arg for name, arg in self.kwargs})

    def __repr__(self) -> str:
        """The call that builds it."""
        words = [repr(arg) for arg in self.args] + [f"{name}={arg!r}" for name, arg in self.kwargs]
        return f"{self.kind.__name__}({', '.join(words)})"


@dataclass(frozen=True)
class Architecture:
    """A constructor of a module, and what the module is called with: `Model(architecture)` and `example(key)`."""

    layer: Layer
    shape: tuple[int, ...]
    tokens: int | None = None  # whole numbers below it; None: normal numbers

    def __call__(self) -> nn.Module:
        """Build the module."""
        return self.layer()

    @property
    def __name__(self) -> str:
        """What a `Model` of it is called."""
        return repr(self.layer)

    def example(self, key: Tensor, batch: int | None = None) -> Tensor:
        """An input, of another batch size where one is given."""
        shape = self.shape if batch is None else (batch, *self.shape[1:])
        if self.tokens is not None:
            return random.randint(key, shape, 0, self.tokens).to(torch.int64)
        return random.normal(key, shape)

    def __repr__(self) -> str:
        """The call that builds it, and the input."""
        what = f"tokens below {self.tokens}" if self.tokens is not None else "numbers"
        return f"{self.layer!r} on {what} of shape {self.shape}"


class Residual(nn.Module):
    """`x + body(x)` (He et al. 2016)."""

    def __init__(self, body: nn.Module) -> None:
        """Take the body, which keeps the shape."""
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Add what the body makes of the input to it."""
        output: Tensor = x + self.body(x)
        return output


class Recurrent(nn.Module):
    """The outputs of a recurrent layer, without its final states."""

    def __init__(self, layer: nn.Module) -> None:
        """Take an `nn.RNN`, `nn.GRU` or `nn.LSTM`."""
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Run over time."""
        output: Tensor = self.layer(x)[0]
        return output


class Attention(nn.Module):
    """Self-attention, without its weights."""

    def __init__(self, layer: nn.Module) -> None:
        """Take an `nn.MultiheadAttention` with `batch_first=True`."""
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Attend to all places."""
        output: Tensor = self.layer(x, x, x, need_weights=False)[0]
        return output


class Mean(nn.Module):
    """The mean over one axis."""

    def __init__(self, axis: int) -> None:
        """Take the axis."""
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """Average."""
        output: Tensor = x.mean(self.axis)
        return output
