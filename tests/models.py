"""Models that together use everything a module may do, and a way to build plain ones without the global generator."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from funcnet import random


class Everything(nn.Module):
    """Tied weights, a non-persistent buffer, plain tensors, BatchNorm, dropout as a module and as a function."""

    def __init__(self) -> None:
        super().__init__()
        # No bias before a BatchNorm, which takes it out again: its gradient would be rounding noise.
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("offset", torch.arange(4.0), persistent=False)
        self.scale = torch.tensor(2.0)
        self.shifts = [torch.ones(4), 3, torch.full((4,), 0.5)]

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(self.norm(self.conv(x)).relu().mean((2, 3)))
        h = F.dropout(self.second(torch.tanh(self.first(h))), 0.2, self.training)
        return h * self.scale + self.offset + self.shifts[0] * self.shifts[1] + self.shifts[2]

    def features(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3))


class Counter(nn.Module):
    """Writes its buffers in every way a module can: in place, by assignment, in a view."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("rows", torch.zeros(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        self.rows[0] = x[0]
        return x + self.mean


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


def lstm() -> nn.Module:
    return nn.LSTM(5, 4, num_layers=2, dropout=0.4, bidirectional=True, batch_first=True)


def transformer() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)


def built(constructor: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A plain module whose values come from a key, so that no test touches the global generator."""
    with random.seeded(random.key(seed)):
        return constructor()


def twin(module: nn.Module) -> nn.Module:
    """A separate copy."""
    return copy.deepcopy(module)
