"""oneDNN's layer of an LSTM and its pullback as operators that a traced graph can hold.

`torch.lstm` runs them on the CPU in float32; traced, its pullback would fall apart into the operations of every step.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet._compat.packing import untraced

# Checked on 2.11.0 and 2.15.0.
_layer: Any = getattr(torch.ops.aten, "mkldnn_rnn_layer", None)
_layer_backward: Any = getattr(torch.ops.aten, "mkldnn_rnn_layer_backward", None)
_LSTM = 2  # oneDNN's number for the kind of cell
_ASKED = -1  # a workspace of whatever size it has


def has_lstm_layer() -> bool:
    """Whether this torch has the kernel and is not told to leave it alone. Checked on 2.11.0 and 2.15.0."""
    return None not in (_layer, _layer_backward) and torch._C._has_mkldnn and torch._C._get_mkldnn_enabled()


@torch.library.custom_op("funcnet::lstm_layer", mutates_args=())
def lstm_layer(
    input: Tensor, weights: Sequence[Tensor], hidden: Tensor, cell: Tensor, reverse: bool, workspace: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One direction of one layer: its outputs, the last states, and what the pullback needs.

    Args:
        input: float32 `(time, batch, channels)`, contiguous, as are all others.
        weights: the four of `nn.LSTM`.
        hidden: the first states, `(1, batch, hidden)`.
        cell: likewise.
        reverse: whether time runs backwards.
        workspace: the bytes that `lstm_workspace` tells, or 0 where no pullback follows.
    """
    train = workspace != 0
    with torch.set_grad_enabled(train):  # which the kernel asks, too, before it makes a workspace
        output, hidden, cell, made = _layer(
            input, *weights, hidden, cell, reverse, [], _LSTM, hidden.shape[-1], 1, True, False, False, train
        )
    made = input.new_empty(0, dtype=torch.uint8) if made is None else made
    if workspace not in (_ASKED, made.numel()):
        raise RuntimeError(
            f"the LSTM's workspace has {made.numel()} bytes here and had {workspace} where the graph was compiled."
        )
    return output, hidden, cell, made


@lstm_layer.register_fake
def _(
    input: Tensor, weights: Sequence[Tensor], hidden: Tensor, cell: Tensor, reverse: bool, workspace: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    output = input.new_empty((*input.shape[:2], hidden.shape[-1]))
    return output, torch.empty_like(hidden), torch.empty_like(cell), input.new_empty(workspace, dtype=torch.uint8)


def lstm_workspace(input: Tensor, weights: Sequence[Tensor], hidden: Tensor, reverse: bool) -> int:
    """How many bytes `lstm_layer` hands to its pullback: oneDNN alone knows, so one call with such shapes tells."""
    with untraced():
        x, *ws, h = (torch.zeros(t.shape, dtype=torch.float32, device="cpu") for t in (input, *weights, hidden))
        workspace: Tensor = lstm_layer(x, ws, h, h.clone(), reverse, _ASKED)[3]
    return workspace.numel()


@torch.library.custom_op("funcnet::lstm_layer_backward", mutates_args=())
def lstm_layer_backward(
    input: Tensor,
    weights: Sequence[Tensor],
    states: Sequence[Tensor],
    outputs: Sequence[Tensor],
    cotangents: Sequence[Tensor],
    reverse: bool,
) -> list[Tensor]:
    """The cotangents of the input, the weights, and the states.

    Args:
        input: as `lstm_layer` got it, and so are `weights`, the two `states` and `reverse`.
        weights: see above.
        states: see above.
        outputs: the four that it returned.
        cotangents: of its first three outputs.
        reverse: see above.
    """
    *seen, workspace = outputs
    # A zero without memory, as transforms make them, would be read all the same.
    cotangents = [torch.zeros_like(c) if c._is_zerotensor() else c for c in cotangents]
    found = _layer_backward(
        input, *weights, *states, *seen, *cotangents,
        reverse, _LSTM, states[0].shape[-1], 1, True, True, False, [], False, workspace,
    )  # fmt: skip
    return list(found)


@lstm_layer_backward.register_fake
def _(
    input: Tensor,
    weights: Sequence[Tensor],
    states: Sequence[Tensor],
    outputs: Sequence[Tensor],
    cotangents: Sequence[Tensor],
    reverse: bool,
) -> list[Tensor]:
    return [torch.empty_like(t) for t in (input, *weights, *states)]
