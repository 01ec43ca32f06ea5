"""Recurrent layers written out: one product for all inputs, then a step for each time. Every derivative, under `vmap`.

The equations are those of torch's documentation of `nn.RNN`, `nn.GRU` and `nn.LSTM`, with the same order of gates.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from funcnet import _compat
from funcnet.control.scan import scan

__all__ = ["CELLS", "Cell", "Weights", "layer"]

States = tuple[Tensor, ...]


class Weights(NamedTuple):
    """The parameters of one layer in one direction."""

    input: Tensor  # (gates * hidden, channels)
    hidden: Tensor  # (gates * hidden, state)
    input_bias: Tensor | None = None  # (gates * hidden,)
    hidden_bias: Tensor | None = None
    projection: Tensor | None = None  # (state, hidden), of LSTM alone

    @classmethod
    def of(cls, tensors: Sequence[Tensor], bias: bool) -> "Weights":
        """Take them from torch's flat list."""
        biases = tensors[2:4] if bias else (None, None)
        return cls(tensors[0], tensors[1], *biases, *tensors[4 if bias else 2 :])


def _gates(h: Tensor, weights: Weights) -> Tensor:
    # Under autocast the weights are lowered and the states may not be.
    return F.linear(h.to(weights.hidden.dtype), weights.hidden, weights.hidden_bias)


# `cell(projected, states, weights)`: the new states, of which the first is the output. `projected` is the input's part
# of the gates, (..., gates * hidden).
Cell = Callable[[Tensor, States, Weights], States]


def _rnn(nonlinearity: Callable[[Tensor], Tensor]) -> Cell:
    def cell(projected: Tensor, states: States, weights: Weights) -> States:
        return (nonlinearity(projected + _gates(states[0], weights)),)

    return cell


def _gru(projected: Tensor, states: States, weights: Weights) -> States:
    (h,) = states
    reset, update, new = projected.chunk(3, -1)
    own_reset, own_update, own_new = _gates(h, weights).chunk(3, -1)
    update = torch.sigmoid(update + own_update)
    new = torch.tanh(new + torch.sigmoid(reset + own_reset) * own_new)
    return (new + update * (h - new),)


def _lstm(projected: Tensor, states: States, weights: Weights) -> States:
    h, c = states
    gates = projected + _gates(h, weights)
    enter, forget, new, out = gates.chunk(4, -1)
    c = torch.sigmoid(forget) * c + torch.sigmoid(enter) * torch.tanh(new)
    h = torch.sigmoid(out) * torch.tanh(c)
    return (h if weights.projection is None else F.linear(h.to(weights.projection.dtype), weights.projection)), c


CELLS: dict[str, Cell] = {"rnn_tanh": _rnn(torch.tanh), "rnn_relu": _rnn(torch.relu), "gru": _gru, "lstm": _lstm}


def layer(
    cell: Cell, input: Tensor, states: States, weights: Weights, reverse: bool, valid: Tensor | None = None
) -> tuple[Tensor, States]:
    """One layer in one direction.

    Args:
        cell: one of `CELLS`.
        input: `(time, batch, channels)`.
        states: the first states, each `(batch, state)`.
        weights: of the layer and direction.
        reverse: whether time runs backwards.
        valid: bool `(time, batch, 1)`: where False, the sequence has no such time, and the states stay.

    Returns:
        The outputs, `(time, batch, state)`, and the last states.
    """
    projected = F.linear(input, weights.input, weights.input_bias)

    def step(states: States, x: tuple[Tensor, ...]) -> tuple[States, Tensor]:
        new = cell(x[0], states, weights)
        if len(x) > 1:
            new = tuple(torch.where(x[1], after, before) for after, before in zip(new, states, strict=True))
        return new, new[0]

    xs = (projected,) if valid is None else (projected, valid)
    if _compat.tracing():
        states, outputs = scan(step, states, xs, reverse=reverse)
        return outputs, states
    rows = list(zip(*(x.unbind(0) for x in xs), strict=True))
    found = []
    for row in reversed(rows) if reverse else rows:
        states, output = step(states, row)
        found.append(output)
    return torch.stack(found[::-1] if reverse else found), states
