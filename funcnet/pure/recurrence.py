"""Recurrent layers: dropout between layers from the call's key, layer by layer through the native kernels."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from funcnet.pure.mode import PureMode

__all__ = ["RECURRENCE"]


def _recurrence(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The pure form of `torch.lstm`, `torch.gru`, `torch.rnn_tanh` or `torch.rnn_relu`."""

    def run(mode: "PureMode", *args: Any) -> Any:
        # (input, hx, weights, bias, layers, dropout, train, bidirectional, batch_first), or for packed sequences
        # (input, batch_sizes, hx, weights, bias, layers, dropout, train, bidirectional).
        packed = isinstance(args[3], Sequence)
        hx_at = 2 if packed else 1
        weights, bias, layers, dropout, train, bidirectional = args[hx_at + 1 : hx_at + 7]
        if not train or dropout == 0 or layers == 1:
            return kernel(*args)
        states = (args[hx_at],) if isinstance(args[hx_at], Tensor) else tuple(args[hx_at])
        directions = 2 if bidirectional else 1
        size = len(weights) // layers
        output, finals = args[0], []
        for layer in range(layers):
            if layer:
                with mode:
                    output = F.dropout(output, dropout, True)
            rows = slice(layer * directions, (layer + 1) * directions)
            mine = [state[rows] for state in states]
            hx = mine[0] if isinstance(args[hx_at], Tensor) else mine
            tail = args[hx_at + 7 :]
            output, *last = kernel(
                output,
                *((args[1],) if packed else ()),
                hx,
                weights[layer * size : (layer + 1) * size],
                bias,
                1,
                0.0,
                train,
                bidirectional,
                *tail,
            )
            finals.append(last)
        return (output, *(torch.cat(parts) for parts in zip(*finals, strict=True)))

    return run


RECURRENCE: dict[Any, Any] = {
    kernel: _recurrence(kernel) for kernel in (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)
}
