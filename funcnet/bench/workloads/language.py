"""A language model: a transformer that attends to the past."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from funcnet import random
from funcnet.bench.workloads.workload import Workload, cross_entropy, pick

__all__ = ["GPT", "Block", "gpt", "gpt_small", "passages"]


class Block(nn.Module):
    """Attention and a perceptron of four times the width, each behind a LayerNorm and added to its input.

    Args:
        heads: how many parts attention has.
        width: of a token's vector.
        deviation: of the initial weights of the two layers that write to the stream.
    """

    def __init__(self, heads: int, width: int, deviation: float) -> None:
        """Build the layers."""
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.before_mlp = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        for layer, scale in (
            (self.qkv, 0.02),
            (self.expand, 0.02),
            (self.project, deviation),
            (self.contract, deviation),
        ):
            nn.init.normal_(layer.weight, std=scale)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, length, width)` to the same."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.before_attention(x)).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(mixed.transpose(1, 2).flatten(-2))
        x = x + self.contract(F.gelu(self.expand(self.before_mlp(x)), approximate="tanh"))
        return x


class GPT(nn.Module):
    """Tokens to logits of the next one; the embedding is the head's kernel as well.

    Args:
        layers: how many blocks.
        heads: how many parts attention has.
        width: of a token's vector.
        context: how many positions are learned.
        vocabulary: how many tokens there are.
    """

    def __init__(self, layers: int, heads: int, width: int, context: int, vocabulary: int) -> None:
        """Build the layers, with GPT-2's initial deviations."""
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList([Block(heads, width, 0.02 / (2 * layers) ** 0.5) for _ in range(layers)])
        self.last = nn.LayerNorm(width)
        for table in (self.tokens, self.positions):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `(batch, length, vocabulary)` for int64 tokens `(batch, length)`."""
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return F.linear(self.last(x), self.tokens.weight)


def passages(key: Tensor, *, batch: int, length: int, vocabulary: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """Random tokens, and the ones that follow them."""
    tokens = random.randint(key, (batch, length + 1), 0, vocabulary).long()
    return (tokens[:, :-1].contiguous(),), tokens[:, 1:].contiguous()


def gpt_small(machine: str) -> Workload:
    """A GPT that a laptop trains."""
    small = {"layers": 4, "heads": 4, "width": 128, "context": 128, "vocabulary": 512, "batch": 8, "length": 128}
    large = {"layers": 8, "heads": 8, "width": 512, "context": 512, "vocabulary": 8192, "batch": 32, "length": 512}
    return _gpt("gpt-small", machine, small, large)


def gpt(machine: str) -> Workload:
    """GPT-2's smallest size: 124 million parameters, with the vocabulary rounded up to a multiple of 128."""
    shape = {"layers": 12, "heads": 12, "width": 768, "context": 1024, "vocabulary": 50304}
    return _gpt("gpt", machine, {**shape, "batch": 1, "length": 64}, {**shape, "batch": 16, "length": 1024})


def _gpt(name: str, machine: str, small: dict[str, int], large: dict[str, int]) -> Workload:
    tiny = {"layers": 2, "heads": 2, "width": 16, "context": 12, "vocabulary": 32, "batch": 3, "length": 8}
    settings = pick(machine, name, {"cpu": small, "gpu": large, "smoke": tiny})
    size, length, vocabulary = settings["batch"], settings["length"], settings["vocabulary"]
    return Workload(
        name,
        partial(GPT, **{key: value for key, value in settings.items() if key not in ("batch", "length")}),
        partial(passages, batch=size, length=length, vocabulary=vocabulary),
        cross_entropy,
        size * length,
        "token",
        "funcnet.bench.workloads.in_jax.language:gpt",
        settings=settings,
    )
