"""Whole small random networks."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from torch import nn

from funcnet.testing.strategies.layers import Architecture, Attention, Layer, Mean, Recurrent, Residual

__all__ = ["architectures"]

Layers = tuple[list[Layer], int]
"""Layers in a row, and how many features come out of them."""

_ACTIVATIONS = [nn.Tanh, nn.GELU, nn.ReLU, nn.Sigmoid, nn.SiLU, nn.ELU]
_WIDTHS = st.integers(1, 4)
_DEPTH = 2  # how deep bodies are nested


def _layer(kind: Callable[..., nn.Module], *args: Any, **kwargs: Any) -> Layer:
    return Layer(kind, args, tuple(kwargs.items()))


def _row(layers: list[Layer]) -> Layer:
    return layers[0] if len(layers) == 1 else _layer(nn.Sequential, *layers)


def _blocks(draw: st.DrawFn, width: int, depth: int, block: Callable[..., Layers]) -> Layers:
    """Blocks in a row."""
    layers: list[Layer] = []
    for _ in range(draw(st.integers(1, 3))):
        more, width = block(draw, width, depth)
        layers += more
    return layers, width


def _common(draw: st.DrawFn, width: int, depth: int, block: Callable[..., Layers], last: Layer) -> Layers:
    """What every kind of network has: activations, dropout, nested rows and residual bodies.

    `last` takes any width back to the width of the input of a body.
    """
    kind = draw(st.sampled_from(["activation", "dropout", *(["residual", "nested"] if depth else [])]))
    if kind == "activation":
        return [_layer(draw(st.sampled_from(_ACTIVATIONS)))], width
    if kind == "dropout":
        return [_layer(nn.Dropout, draw(st.sampled_from([0.5, 0.1])))], width
    inner, out = _blocks(draw, width, depth - 1, block)
    if kind == "nested":
        return [_layer(nn.Sequential, *inner)], out
    back = Layer(last.kind, (out, width, *last.args), last.kwargs)
    return [_layer(Residual, _row([*inner, *([back] if out != width else [])]))], width


def _dense(draw: st.DrawFn, width: int, depth: int) -> Layers:
    kind = draw(st.sampled_from(["linear", "norm", "batch norm", "common"]))
    if kind == "linear":
        out = draw(_WIDTHS)
        return [_layer(nn.Linear, width, out, **_bias(draw))], out
    if kind == "norm":
        return [_layer(nn.LayerNorm, width)], width
    if kind == "batch norm":
        return [_layer(nn.BatchNorm1d, width)], width
    return _common(draw, width, depth, _dense, _layer(nn.Linear))


def _convolutional(draw: st.DrawFn, width: int, depth: int) -> Layers:
    kind = draw(st.sampled_from(["conv", "norm", "batch norm", "common"]))
    if kind == "conv":
        out, kernel = draw(_WIDTHS), draw(st.sampled_from([3, 1]))
        return [_layer(nn.Conv2d, width, out, kernel, padding=kernel // 2, **_bias(draw))], out
    if kind == "norm":
        return [_layer(nn.GroupNorm, 1, width)], width
    if kind == "batch norm":
        return [_layer(nn.BatchNorm2d, width)], width
    return _common(draw, width, depth, _convolutional, _layer(nn.Conv2d, 1))


def _recurrent(draw: st.DrawFn, width: int, depth: int) -> Layers:
    if draw(st.booleans()):
        return _common(draw, width, depth, _recurrent, _layer(nn.Linear))
    kind = draw(st.sampled_from([nn.GRU, nn.LSTM, nn.RNN]))
    hidden, layers, both = draw(_WIDTHS), draw(st.integers(1, 2)), draw(st.booleans())
    options: dict[str, Any] = {"batch_first": True}
    if layers > 1:
        options |= {"num_layers": layers, "dropout": draw(st.sampled_from([0.0, 0.3]))}
    if both:
        options["bidirectional"] = True
    return [_layer(Recurrent, _layer(kind, width, hidden, **options))], hidden * (2 if both else 1)


def _attention(draw: st.DrawFn, width: int, depth: int) -> Layers:
    kind = draw(st.sampled_from(["attention", "encoder", "norm", "common"]))
    heads, dropout = draw(st.sampled_from([1, width])), draw(st.sampled_from([0.0, 0.2]))
    if kind == "attention":
        layer = _layer(nn.MultiheadAttention, width, heads, dropout=dropout, batch_first=True)
        return [_layer(Residual, _layer(Attention, layer))], width
    if kind == "encoder":
        first = draw(st.booleans())
        layer = _layer(
            nn.TransformerEncoderLayer, width, heads, 2 * width, dropout=dropout, batch_first=True, norm_first=first
        )
        return [layer], width
    if kind == "norm":
        return [_layer(nn.LayerNorm, width)], width
    return _common(draw, width, depth, _attention, _layer(nn.Linear))


def _bias(draw: st.DrawFn) -> dict[str, bool]:
    return {} if draw(st.booleans()) else {"bias": False}


_KINDS: dict[str, Callable[..., Layers]] = {
    "dense": _dense,
    "convolutional": _convolutional,
    "recurrent": _recurrent,
    "attention": _attention,
}


def architectures(*kinds: str, max_batch: int = 4) -> st.SearchStrategy[Architecture]:
    """Small networks with an input that they take: nested rows, residual, recurrent and attention blocks.

    Each is a constructor, so `Model(architecture)` is the model; `architecture.example(key)` is an input.

    Args:
        *kinds: among `"dense"`, `"convolutional"`, `"recurrent"` and `"attention"`. Default: all.
        max_batch: the largest batch; the smallest is 2, since BatchNorm needs two values.

    >>> from hypothesis import find
    >>> find(architectures("dense"), lambda architecture: "Residual" in repr(architecture))
    Sequential(Residual(LayerNorm(2)), Linear(2, 1)) on numbers of shape (2, 2)
    """
    unknown = [kind for kind in kinds if kind not in _KINDS]
    if unknown:
        raise ValueError(f"architectures draws no kind {unknown[0]!r}; there are {', '.join(_KINDS)}.")
    return _architectures(kinds or tuple(_KINDS), max_batch)


@st.composite
def _architectures(draw: st.DrawFn, kinds: tuple[str, ...], max_batch: int) -> Architecture:
    kind = draw(st.sampled_from(kinds))
    batch, width = draw(st.integers(2, max_batch)), draw(st.integers(2, 4))
    layers, out = _blocks(draw, width, _DEPTH, _KINDS[kind])
    head = _layer(nn.Linear, out, draw(_WIDTHS))
    if kind == "dense":
        return Architecture(_layer(nn.Sequential, *layers, head), (batch, width))
    if kind == "convolutional":
        side = draw(st.integers(2, 4))
        pooled = [_layer(nn.AdaptiveAvgPool2d, 1), _layer(nn.Flatten), head]
        return Architecture(_layer(nn.Sequential, *layers, *pooled), (batch, width, side, side))
    length = draw(st.integers(1, 4))
    row = [*layers, *([_layer(Mean, 1)] if draw(st.booleans()) else []), head]
    if draw(st.booleans()):
        return Architecture(_layer(nn.Sequential, *row), (batch, length, width))
    tokens = draw(st.integers(2, 5))
    return Architecture(_layer(nn.Sequential, _layer(nn.Embedding, tokens, width), *row), (batch, length), tokens)
