"""Recurrent layers: native kernels where those suffice, cells where not, dropout between layers from the call's key."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from funcnet import _compat
from funcnet.pure.cells import CELLS, Weights, layer
from funcnet.pure.lstm import traced_lstm, traces_as_one
from funcnet.pure.packing import PACKING, Packing
from funcnet.random.attention import lowered

if TYPE_CHECKING:
    from funcnet.pure.mode import PureMode

__all__ = ["RECURRENCE"]


class _Call(NamedTuple):
    """The arguments of `torch.lstm` and its kind, which come in two orders."""

    input: Tensor
    batch_sizes: Tensor | None  # of packed sequences: how many of them have each time
    states: tuple[Tensor, ...]
    weights: Sequence[Tensor]
    bias: bool
    layers: int
    dropout: float
    train: bool
    bidirectional: bool
    batch_first: bool

    @classmethod
    def of(cls, input: Tensor, *args: Any) -> "_Call":
        # (input, hx, weights, bias, layers, dropout, train, bidirectional, batch_first), or for packed sequences
        # (input, batch_sizes, hx, weights, bias, layers, dropout, train, bidirectional).
        packed = isinstance(args[2], Sequence)
        hx, weights, *rest = args[packed:]
        states = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        batch_sizes = _compat.bare(args[0]) if packed else None
        return cls(input, batch_sizes, states, weights, *rest, *((False,) if packed else ()))

    def args(self) -> tuple[Any, ...]:
        """The call as torch takes it."""
        hx = self.states[0] if len(self.states) == 1 else self.states
        packed = () if self.batch_sizes is None else (self.batch_sizes,)
        rest = self[4:9] if self.batch_sizes is not None else self[4:]
        return self.input, *packed, hx, list(self.weights), *rest

    def layer(self, index: int, input: Tensor) -> "_Call":
        """One layer, of both directions."""
        directions = 2 if self.bidirectional else 1
        size = len(self.weights) // self.layers
        rows = slice(index * directions, (index + 1) * directions)
        return self._replace(
            input=input,
            states=tuple(state[rows] for state in self.states),
            weights=self.weights[index * size : (index + 1) * size],
            layers=1,
            dropout=0.0,
        )


# One layer: its outputs, in the layout of the input, and the last states.
Layer = Callable[[_Call], tuple[Tensor, ...]]


def _recurrence(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The pure form of `torch.lstm`, `torch.gru`, `torch.rnn_tanh` or `torch.rnn_relu`."""
    kind = kernel.__name__

    def one(call: _Call) -> tuple[Tensor, ...]:
        return native(call) if _native_suffices(kind, call) else _by_cells(kind, call)

    def native(call: _Call) -> tuple[Tensor, ...]:
        # oneDNN makes a workspace for the pullback wherever there may be one: a fifth of the LSTM's time.
        reverse = _compat.asked_of(call.input, *call.states, *call.weights).reverse
        with torch.set_grad_enabled(reverse > 0):
            return tuple(kernel(*call.args()))

    def run(mode: "PureMode", *args: Any) -> Any:
        call = _Call.of(*args)
        drops = call.train and call.dropout and call.layers > 1
        return native(call) if not drops and _native_suffices(kind, call) else _layer_by_layer(mode, call, one)

    return run


def _layer_by_layer(mode: "PureMode", call: _Call, one: Layer) -> tuple[Tensor, ...]:
    output, finals = call.input, []
    for index in range(call.layers):
        if index and call.train and call.dropout:
            with mode:
                output = F.dropout(output, call.dropout, True)
        output, *last = one(call.layer(index, output))
        finals.append(last)
    return (output, *(torch.cat(parts) for parts in zip(*finals, strict=True)))


def _native_suffices(kind: str, call: _Call) -> bool:
    """Whether torch's own kernel has what is asked for.

    None has a batching rule, and inside a transform none can read the lengths of packed sequences. The LSTM has no
    forward mode, and off the CPU none has more than one derivative in reverse. Traced, they are unrolled.
    """
    asked = _compat.asked_of(call.input, *call.states, *call.weights)
    if call.input.device.type != "cpu":
        return not (asked.batched or asked.forward or asked.reverse > 1 or _compat.tracing())
    forward = asked.forward and kind == "lstm"
    packed = asked.transformed and call.batch_sizes is not None
    return not (asked.batched or forward or packed or _compat.tracing())


def _count(call: _Call) -> int:
    """The parameters of one layer in one direction."""
    return len(call.weights) // (call.layers * (2 if call.bidirectional else 1))


def _autocast(kind: str, call: _Call) -> _Call:
    """The call with what torch's kernel would lower under autocast lowered."""
    if not torch.is_autocast_enabled(call.input.device.type):
        return call
    input, *states = lowered(call.input, *call.states)
    projected = _count(call) % 2 == 1
    if kind == "gru" or (kind == "lstm" and (projected or call.batch_sizes is not None)):
        # Only the products are lowered there, and with them a state that is nothing but a product.
        states = [states[0] if projected else call.states[0], *call.states[1:]]
    return call._replace(input=input, states=tuple(states), weights=lowered(*call.weights))


def _by_cells(kind: str, call: _Call) -> tuple[Tensor, ...]:
    """One layer by steps in plain operations."""
    call = _autocast(kind, call)
    input, valid = (call.input.transpose(0, 1) if call.batch_first else call.input), None
    if call.batch_sizes is not None:
        packing = Packing.of(call.batch_sizes, input.device)
        input, valid = packing.pad(input), packing.valid[..., None]
    count = _count(call)
    fits = kind == "lstm" and count % 2 == 0 and valid is None  # no projection, one length
    as_one = fits and _compat.tracing() and traces_as_one(input, *call.states, *call.weights)

    def directed(direction: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        states = tuple(state[direction] for state in call.states)
        weights = call.weights[direction * count : (direction + 1) * count]
        if as_one:
            return traced_lstm(input, states, weights, direction == 1)
        return layer(CELLS[kind], input, states, Weights.of(weights, call.bias), direction == 1, valid)

    results = [directed(direction) for direction in range(2 if call.bidirectional else 1)]
    output = torch.cat([output for output, _ in results], -1) if call.bidirectional else results[0][0]
    finals = [torch.stack(states) for states in zip(*(states for _, states in results), strict=True)]
    if call.batch_sizes is not None:
        output = packing.pack(output)
    return (output.transpose(0, 1) if call.batch_first else output, *finals)


def _cell(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The pure form of `torch.lstm_cell` and its kind."""
    kind = kernel.__name__.removesuffix("_cell")

    def run(mode: "PureMode", input: Tensor, hx: Any, *weights: Any) -> Any:
        states = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        given = [w for w in weights if w is not None]
        asked = _compat.asked_of(input, *states, *given)
        if not (asked.batched or asked.forward or asked.reverse > 1):
            return kernel(input, hx, *weights)
        input, *given = lowered(input, *given)
        states = lowered(*states) if kind.startswith("rnn") else states
        own = Weights.of(given, len(given) == 4)
        new = CELLS[kind](F.linear(input, own.input, own.input_bias), states, own)
        return new[0] if len(new) == 1 else new

    return run


RECURRENCE: dict[Any, Any] = (
    PACKING
    | {kernel: _recurrence(kernel) for kernel in (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)}
    | {kernel: _cell(kernel) for kernel in (torch.lstm_cell, torch.gru_cell, torch.rnn_tanh_cell, torch.rnn_relu_cell)}
)
