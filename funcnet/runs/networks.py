"""The networks that have a name of their own, made of torch's layers."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GPT", "LSTM", "convolutional", "perceptron"]


def perceptron(widths: tuple[int, ...], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers of these widths, the first being the input's, with ReLU and dropout between.

    >>> [type(layer).__name__ for layer in perceptron((4, 3, 2))]
    ['Flatten', 'Linear', 'ReLU', 'Linear']
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths[:-1]):
        layers += [nn.Linear(before, after), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def convolutional(channels: tuple[int, ...], shape: tuple[int, ...], outputs: int, dropout: float = 0.0) -> nn.Module:
    """Stages of convolution, BatchNorm, ReLU and a halving MaxPool, and a linear layer.

    Args:
        channels: of each stage.
        shape: of a picture, `(channels, height, width)`, with sides of at least `2 ** len(channels)`.
        outputs: how many numbers come out.
        dropout: before the linear layer.
    """
    layers: list[nn.Module] = []
    height, width = shape[1:]
    for before, after in pairwise((shape[0], *channels)):
        conv = nn.Conv2d(before, after, 3, padding=1, bias=False)  # the BatchNorm has the bias
        layers += [conv, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        height, width = height // 2, width // 2
    layers += [nn.Flatten(), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(*layers, nn.Linear(channels[-1] * height * width, outputs))


class LSTM(nn.Module):
    """Tokens to logits of the next one, through an LSTM.

    Args:
        vocabulary: how many tokens there are.
        width: of a token's vector and of the LSTM's state.
        layers: of the LSTM.
        dropout: between them, and before the last layer.
    """

    def __init__(self, vocabulary: int, width: int, layers: int, dropout: float) -> None:
        """Build the layers."""
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `(batch, length, vocabulary)` for int64 tokens `(batch, length)`."""
        logits: Tensor = self.head(self.dropout(self.lstm(self.tokens(tokens))[0]))
        return logits


class GPT(nn.Module):
    """Tokens to logits of the next one, through blocks that attend to the past; the embedding is the head's kernel too.

    Args:
        vocabulary: how many tokens there are.
        context: the most tokens that it sees at once.
        width: of a token's vector, a multiple of `heads`.
        layers: how many blocks.
        heads: how many parts attention has.
        dropout: of the embedding and in the blocks.
    """

    def __init__(self, vocabulary: int, context: int, width: int, layers: int, heads: int, dropout: float) -> None:
        """Build the layers; what writes to the stream begins small, the more so the more blocks there are."""
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.last = nn.LayerNorm(width)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                writes = name.endswith(("out_proj.weight", "linear2.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * layers) ** 0.5 if writes else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `(batch, length, vocabulary)` for int64 tokens `(batch, length)`, `length` at most the context."""
        length = tokens.shape[1]
        x = self.dropout(self.tokens(tokens) + self.positions.weight[:length])
        mask = torch.full((length, length), -torch.inf, dtype=x.dtype, device=x.device).triu(1)
        for block in self.blocks:
            x = block(x, src_mask=mask, is_causal=True)
        return F.linear(self.last(x), self.tokens.weight)
