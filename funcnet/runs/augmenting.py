"""Augmentation of pictures by name."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet import random
from funcnet.data import augment
from funcnet.runs.errors import RunError, known, refusing
from funcnet.runs.grammar import Named, call, parse
from funcnet.runs.rows import Facts

__all__ = ["NAMES", "build"]

Augment = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""`(key, pictures, labels) -> (pictures, labels)`"""

_MIXING = ("mixup", "cutmix")
NAMES = [name for name in augment.__all__ if name not in ("Augmentation", "compose", "each", "normalize")]


def build(texts: Sequence[str], facts: Facts) -> Augment | None:
    """All of these, one after the other; `mixup` and `cutmix` make labels soft, `(n, classes)`.

    Args:
        texts: such as `flip`, `crop:28,padding=4`, `color-jitter:brightness=0.2`. A crop has by default the size that
            the pictures have.
        facts: of the data.

    Raises:
        RunError: there is no such augmentation or option, a value that it refuses, or the data has no pictures.
    """
    if not texts:
        return None
    if len(facts.shape) != 3:
        raise RunError(f"--augment {texts[0]} is for pictures, and the data has {facts.told}: leave it out.")
    named = [parse(text) for text in texts]
    functions = []
    for each in named:
        name = known(each.name.replace("-", "_"), NAMES, "augmentation")
        functions.append(_one(each, getattr(augment, name), facts))
    if sum(each.name in _MIXING for each in named) > 1 or any(each.name in _MIXING for each in named[:-1]):
        raise RunError(f"--augment: {' and '.join(_MIXING)} change labels: write one of the two, as the last.")
    if facts.kind != "classification" and named[-1].name in _MIXING:
        raise RunError(f"--augment {named[-1].text} mixes classes, and the data has {facts.told}: leave it out.")

    def augmented(key: Tensor, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        for own, function in zip(random.split(key, len(functions)), functions, strict=True):
            x, label = function(own, x, label)
        return x, label

    empty = torch.zeros(2, *facts.shape, dtype=torch.uint8)
    with refusing("--augment"):
        shape = augmented(random.key(0), empty, torch.zeros(2, dtype=torch.int64))[0].shape[1:]
    if tuple(shape) != facts.shape:
        raise RunError(
            f"--augment makes pictures of {'x'.join(map(str, shape))}, which are evaluated at "
            f"{'x'.join(map(str, facts.shape))}: crop to that size, or give the data another with --size."
        )
    return augmented


def _one(named: Named, function: Callable[..., Any], facts: Facts) -> Augment:
    parameters = inspect.signature(function).parameters
    sized = "size" in parameters and function is not augment.cutout and "size" not in named.options and not named.args
    fixed = ("key", "images", "labels", "classes")
    given = {"size": facts.shape[1:]} if sized else {}

    def one(key: Tensor, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        def applied(**options: Any) -> Any:
            if named.name in _MIXING:
                return function(key, x, label, classes=facts.outputs, **options)
            return function(key, x, **options), label

        # What can be written are the function's own parameters.
        applied.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # which inspect reads
            [p.replace(kind=p.KEYWORD_ONLY) for name, p in parameters.items() if name not in fixed]
        )
        found: tuple[Tensor, Tensor] = call(named, applied, given)
        return found

    return one
