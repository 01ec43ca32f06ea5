"""What the demo trains: ordinary torch.nn modules, and a recipe for each."""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

__all__ = ["BATCH_SIZE", "CLIP", "CNN", "LABEL_SMOOTHING", "MLP", "WEIGHT_DECAY", "Recipe", "cnn", "mlp"]

BATCH_SIZE = 64
CLIP = 1.0
"""The largest global norm of a gradient."""
WEIGHT_DECAY = 0.05
LABEL_SMOOTHING = 0.1


class Recipe(NamedTuple):
    """A model and how it is trained."""

    name: str
    about: str
    build: Callable[[], nn.Module]
    epochs: int
    learning_rate: float
    """The peak of the warm-up-cosine schedule."""
    target: float
    """The test accuracy below which the demo has failed."""


def mlp() -> nn.Module:
    """Two hidden layers with dropout, which draws from the step's key."""
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(64, 512), nn.ReLU(), nn.Dropout(0.3)),
        *(nn.Linear(512, 128), nn.ReLU(), nn.Dropout(0.3)),
        nn.Linear(128, 10),
    )


def cnn() -> nn.Module:
    """Three convolutions with BatchNorm, whose running statistics travel in the model's state."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(64 * 4 * 4, 10)),
    )


MLP = Recipe("MLP", "64-512-128-10 with dropout 0.3", mlp, epochs=60, learning_rate=3e-3, target=0.97)
CNN = Recipe("CNN", "three 3x3 convolutions with BatchNorm", cnn, epochs=40, learning_rate=3e-3, target=0.985)
