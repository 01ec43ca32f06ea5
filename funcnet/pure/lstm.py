"""A layer of an LSTM as one node of a traced graph, with the derivative that torch's own kernel loses there."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet import _compat

__all__ = ["traced_lstm", "traces_as_one"]


def traces_as_one(*tensors: Tensor) -> bool:
    """Whether the kernel takes all that a layer without projection computes with, and has the derivative asked for."""
    plain = all(t.dtype == torch.float32 and t.device.type == "cpu" and t.numel() for t in tensors)
    asked = _compat.asked_of(*tensors)
    return plain and not (asked.batched or asked.forward or asked.reverse > 1) and _compat.has_lstm_layer()


def traced_lstm(
    input: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], reverse: bool
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One layer in one direction, with one derivative in reverse.

    Args:
        input: `(time, batch, channels)`.
        states: the first states, two of `(batch, hidden)`.
        weights: two of torch's, or four with biases.
        reverse: whether time runs backwards.

    Returns:
        The outputs, `(time, batch, hidden)`, and the last states.
    """
    if len(weights) == 2:
        weights = (*weights, *(weights[0].new_zeros(weights[0].shape[0]) for _ in range(2)))
    hidden, cell = (state[None].contiguous() for state in states)
    input, *weights = (t.contiguous() for t in (input, *weights))
    pulled = _compat.asked_of(input, *weights, hidden, cell).reverse
    workspace = _compat.lstm_workspace(input, weights, hidden, reverse) if pulled else 0
    output, hidden, cell, _ = _Layer.apply(input, *weights, hidden, cell, reverse, workspace)
    return output, (hidden[0], cell[0])


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:
        input, *weights, hidden, cell, reverse, workspace = args
        outputs: tuple[Tensor, ...] = _compat.lstm_layer(input, weights, hidden, cell, reverse, workspace)
        return outputs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.reverse, _ = inputs
        ctx.save_for_backward(*tensors, *output)
        ctx.mark_non_differentiable(output[3])
        ctx.set_materialize_grads(True)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        input, *rest = ctx.saved_tensors
        cotangents = tuple(c.contiguous() for c in cotangents[:3])
        found = _compat.lstm_layer_backward(input, rest[:4], rest[4:6], rest[6:], cotangents, ctx.reverse)
        return *found, None, None
