"""Rows drawn from a key, to try things on."""

from collections.abc import Mapping
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from funcnet import random
from funcnet.data.dataset import near
from funcnet.data.errors import DataError

__all__ = ["KINDS", "draw"]

Rows = dict[str, Tensor]

# The options of each kind with their defaults; all but noise are whole and positive.
KINDS: dict[str, dict[str, float]] = {
    "classification": {"n": 1000, "features": 20, "classes": 5, "noise": 1.0},
    "regression": {"n": 1000, "features": 8, "noise": 0.1},
    "images": {"n": 1000, "size": 28, "channels": 1, "classes": 10, "noise": 0.2},
}
_MOST = 2**31


def draw(key: Tensor, kind: str, texts: Mapping[str, str]) -> tuple[Rows, int]:
    """Rows of a kind, and how many classes they have (0 where numbers are predicted).

    Classes are equally frequent. Those of `classification` are normal clouds around normal centres; `images` are smooth
    patterns, one a class, with noise; the label of `regression` is a linear function and a wave of another.

    Args:
        key: int32 `(2,)`.
        kind: a name in `KINDS`.
        texts: its options as they were written.

    Raises:
        DataError: an unknown kind or option, or a value that it cannot have.
    """
    if kind not in KINDS:
        raise DataError(f"synthetic:{kind} is no kind of synthetic data; {near(kind, list(KINDS))}.")
    options = KINDS[kind] | {name: _number(kind, name, text) for name, text in texts.items()}
    noise = options.pop("noise")
    n, *sizes = (int(value) for value in options.values())
    drawn = _drawn(kind, n, sizes)
    if drawn > _MOST:
        raise DataError(f"synthetic:{kind} would have {drawn:,} numbers; the most is {_MOST:,}.")
    keys = random.split(key, 4)
    if kind == "regression":
        x = random.normal(keys[0], (n, *sizes))
        along, across = random.normal(keys[1], (2, *sizes)) / sqrt(sizes[0])
        return {"x": x, "label": x @ along + torch.sin(2 * x @ across) + noise * random.normal(keys[2], (n,))}, 0
    classes = sizes[-1]
    label = random.permutation(keys[0], torch.arange(n) % classes)
    if kind == "classification":
        centres = random.normal(keys[1], (classes, sizes[0]))
        return {"x": centres[label] + noise * random.normal(keys[2], (n, sizes[0])), "label": label}, classes
    size, channels, _ = sizes
    coarse = random.uniform(keys[1], (classes, channels, 4, 4))
    patterns = F.interpolate(coarse, (size, size), mode="bilinear")
    x = patterns[label] + noise * random.normal(keys[2], (n, channels, size, size))
    return {"x": (255 * x.clamp(0, 1)).round().to(torch.uint8), "label": label}, classes


def _drawn(kind: str, n: int, sizes: list[int]) -> int:
    """How many numbers are held at once: the rows, and what each class is drawn around."""
    if kind == "regression":
        return n * sizes[0]
    if kind == "classification":
        features, classes = sizes
        return (n + classes) * features
    size, channels, classes = sizes
    return (n + classes) * channels * size**2


def _number(kind: str, name: str, text: str) -> float:
    if name not in KINDS[kind]:
        raise DataError(f"synthetic:{kind} has no option {name!r}; {near(name, list(KINDS[kind]))}.")
    try:
        value = float(text) if name == "noise" else int(text)
    except ValueError:
        value = -1
    if not (0 <= value < float("inf") if name == "noise" else value > 0):
        what = "a number from 0 on" if name == "noise" else "a whole number from 1 on"
        raise DataError(f"synthetic:{kind}: {name} is {text!r}; it is {what}.")
    return value
