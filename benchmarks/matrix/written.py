"""Layers written out: the networks of the matrix, and references for layers that draw without asking anyone.

The recurrent layers are the equations of torch's documentation, one step and one example row at a time in Python.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class _Loop(nn.RNNBase):
    """The layers, directions and steps of a recurrent layer, around one step of a cell."""

    def __init__(self, single: type[nn.RNNBase], *args: Any, **kwargs: Any) -> None:
        super().__init__("RNN_TANH" if single is nn.RNN else single.__name__, *args, **kwargs)
        one = {name: value for name, value in kwargs.items() if name not in ("num_layers", "dropout")}
        width = (self.proj_size or self.hidden_size) * (1 + self.bidirectional)
        # In a list, so that their parameters are no parameters of this layer.
        self.single = [single(width if i else self.input_size, self.hidden_size, **one) for i in range(self.num_layers)]

    def step(self, gates_x: Tensor, state: tuple[Tensor, ...], weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        """The new state from the input's share of the gates and the old state."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Any:
        finals: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            if layer:
                x = F.dropout(x, self.dropout, self.training)
            x, states = self._native(layer, x) if torch.is_autocast_enabled("cpu") else self._loop(layer, x)
            finals.append(states)
        last = tuple(torch.cat(parts) for parts in zip(*finals, strict=True))
        return x, last if self.mode == "LSTM" else last[0]

    def _native(self, layer: int, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """By torch's kernel, which alone knows what autocast makes of it."""
        mark = f"_l{layer}"
        weights = {name.replace(mark, "_l0"): value for name, value in self.named_parameters() if mark in name}
        x, states = torch.func.functional_call(self.single[layer], weights, x)
        return x, states if self.mode == "LSTM" else (states,)

    def _loop(self, layer: int, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        outputs, finals = [], []
        for suffix in ("", "_reverse")[: 1 + self.bidirectional]:
            kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", *(("weight_hr",) if self.proj_size else ()))
            w_x, w_h, b_x, b_h, *project = (getattr(self, f"{kind}_l{layer}{suffix}") for kind in kinds)
            state: tuple[Tensor, ...] = (x.new_zeros(len(x), self.proj_size or self.hidden_size),)
            if self.mode == "LSTM":
                state = (*state, x.new_zeros(len(x), self.hidden_size))
            steps = range(x.shape[1])
            seen = []
            for t in reversed(steps) if suffix else steps:
                state = self.step(x[:, t] @ w_x.T + b_x, state, w_h, b_h)
                if project:
                    state = (state[0] @ project[0].T, *state[1:])
                seen.append(state[0])
            outputs.append(torch.stack(seen[::-1] if suffix else seen, 1))
            finals.append(state)
        return torch.cat(outputs, -1), tuple(torch.stack(parts) for parts in zip(*finals, strict=True))


class RNN(_Loop):
    """`nn.RNN` with tanh."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(nn.RNN, *args, **kwargs)

    def step(self, gates_x: Tensor, state: tuple[Tensor, ...], weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        return (torch.tanh(gates_x + state[0] @ weight.T + bias),)


class GRU(_Loop):
    """`nn.GRU`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(nn.GRU, *args, **kwargs)

    def step(self, gates_x: Tensor, state: tuple[Tensor, ...], weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        (h,) = state
        xr, xz, xn = gates_x.chunk(3, -1)
        hr, hz, hn = (h @ weight.T + bias).chunk(3, -1)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + r * hn)
        return ((1 - z) * n + z * h,)


class LSTM(_Loop):
    """`nn.LSTM`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(nn.LSTM, *args, **kwargs)

    def step(self, gates_x: Tensor, state: tuple[Tensor, ...], weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        h, c = state
        i, f, g, o = (gates_x + h @ weight.T + bias).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class Renormalized(nn.Embedding):
    """`nn.Embedding` with `max_norm=1.5` that writes nothing: rows that are too long are scaled by a constant."""

    def __init__(self) -> None:
        super().__init__(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.weight.detach().norm(dim=1, keepdim=True)
        return (self.weight * torch.where(norm > 1.5, 1.5 / (norm + 1e-7), 1.0))[x]


class CausalAttention(nn.Module):
    """Attention by the fused kernel, without dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.out = nn.Linear(4, 12), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4).unbind()
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class FunctionalDropout(nn.Module):
    """Dropout as a function inside a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.dropout(torch.tanh(self.first(x)), 0.4, self.training))


class TiedEmbeddings(nn.Module):
    """One matrix as input embedding and output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.embed(tokens)))


class PlainAttributes(nn.Module):
    """Tensors that are neither parameters nor buffers, one of them replaced by each call in training."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.scale = torch.tensor(1.5)
        self.shifts = [torch.rand(3), torch.rand(3)]
        self.mean = torch.rand(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x) * self.scale + self.shifts[0] - self.shifts[1]
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return torch.tanh(x - self.mean)


class Tagger(nn.Module):
    """Embedding, a two-layer LSTM with dropout, and a head."""

    def __init__(self, recurrent: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.lstm = recurrent(4, 3, num_layers=2, dropout=0.3, batch_first=True)
        self.head = nn.Linear(3, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(self.embed(tokens))[0])


class LanguageModel(nn.Module):
    """A causal transformer with dropout everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(7, 4), nn.Parameter(torch.randn(5, 4))
        self.drop = nn.Dropout(0.2)
        layer = nn.TransformerEncoderLayer(4, 2, 8, 0.2, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(4, 7)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(5))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.drop(self.embed(tokens) + self.position)
        return self.head(self.blocks(x, mask=self.mask, is_causal=True))


class Formulas(TorchFunctionMode):
    """Makes of plain operations what torch's kernels differentiate once or twice, or wrongly beyond.

    The third derivatives of `F.layer_norm` by `torch.autograd` are wrong without an error (torch 2.15).
    """

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _FORMULAS.get(func, func)(*args, **(kwargs or {}))


def _normalize(x: Tensor, axes: list[int], weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    mean, var = x.mean(axes, keepdim=True), x.var(axes, correction=0, keepdim=True)
    return (x - mean) / torch.sqrt(var + eps) * (1.0 if weight is None else weight) + (0.0 if bias is None else bias)


def _channels(values: Tensor | None, x: Tensor) -> Tensor | None:
    return None if values is None else values.reshape(-1, *(1,) * (x.ndim - 2))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm` in training. The statistics are left alone: no cell of nestings looks at them."""
    assert training
    return _normalize(x, [0, *range(2, x.ndim)], _channels(weight, x), _channels(bias, x), eps)


def _instance_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.instance_norm`, likewise."""
    assert use_input_stats
    return _normalize(x, [*range(2, x.ndim)], _channels(weight, x), _channels(bias, x), eps)


def _layer_norm(
    x: Tensor, shape: tuple[int, ...], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """`F.layer_norm`."""
    return _normalize(x, list(range(-len(shape), 0)), weight, bias, eps)


def _embedding_bag(x: Tensor, weight: Tensor, *args: Any, mode: str = "mean", **kwargs: Any) -> Tensor:
    """`F.embedding_bag` of rows of equal length."""
    rows = weight[x]
    return rows.amax(1) if mode == "max" else rows.mean(1)


def _multi_margin_loss(x: Tensor, target: Tensor, *, p: int, margin: float, weight: Tensor, **kwargs: Any) -> Tensor:
    """`F.multi_margin_loss` in the mean."""
    right = x.gather(1, target[:, None])
    others = (margin - right + x).clamp(min=0) ** p * weight[target][:, None]
    return (others.sum(1) - others.gather(1, target[:, None])[:, 0]).mean() / x.shape[1]


_FORMULAS: dict[Any, Callable[..., Any]] = {
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
    F.layer_norm: _layer_norm,
    F.embedding_bag: _embedding_bag,
    F.multi_margin_loss: _multi_margin_loss,
}
