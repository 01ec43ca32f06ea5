"""What losses take: floating predictions, targets of the same shape, axes to sum over and what to leave out."""

from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Axis", "check", "check_floating", "elements", "log_probabilities", "of_class", "over", "rows", "total"]

Axis: TypeAlias = int | tuple[int, ...] | None
"""An axis, several, or None for all: the elements along them make one example."""


def check_floating(rule: str, **values: Tensor) -> None:
    """Raise `TypeError` unless all are floating tensors."""
    for name, value in values.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise TypeError(f"{rule} got {name} that is {kind}, and needs a floating tensor: write {name}.float().")


def check(rule: str, **values: Tensor) -> None:
    """Raise `TypeError` unless the first is a floating tensor, `ValueError` unless all have its shape."""
    (name, first), *others = values.items()
    check_floating(rule, **{name: first})
    for name, other in others:
        if other.shape != first.shape:
            raise ValueError(
                f"{rule} got {name} of shape {tuple(other.shape)} for {tuple(first.shape)}: the shapes must be equal, "
                f"nothing is broadcast. Write {name}.expand_as(...) or .reshape(...) where that is meant."
            )


def rows(value: Tensor, axis: Axis) -> Tensor:
    """The axes laid out as one last axis, `(..., n)`."""
    if axis is None:
        return value.reshape(-1)
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    return value.movedim(axes, tuple(range(-len(axes), 0))).flatten(-len(axes))


def elements(rule: str, where: Tensor | None, value: Tensor, axis: Axis) -> Tensor | None:
    """Which elements of `rows(value, axis)` count: from a mask of the value's shape, or of one element an example."""
    if where is None:
        return None
    if where.shape == value.shape:
        return rows(where, axis).bool()
    wide = rows(value, axis)
    if where.shape != wide.shape[:-1]:
        raise ValueError(
            f"{rule} got where of shape {tuple(where.shape)}, and needs {tuple(value.shape)} or, for whole examples, "
            f"{tuple(wide.shape[:-1])}."
        )
    return where.bool()[..., None].expand(wide.shape)


def over(where: Tensor | None, value: Tensor) -> Tensor:
    """The values that count, and zeros."""
    return value if where is None else torch.where(where, value, 0)


def total(value: Tensor, where: Tensor | None) -> Tensor:
    """The sum along the last axis of what counts."""
    return over(where, value).sum(-1)


def log_probabilities(logits: Tensor, where: Tensor | None) -> Tensor:
    """The log-softmax along the last axis of what counts; zero elsewhere."""
    if where is not None:
        # A row of which nothing counts is left as it is, since one of minus infinities would have NaN for a slope.
        logits = torch.where(where | ~where.any(-1, keepdim=True), logits, -torch.inf)
    return over(where, F.log_softmax(logits, -1))


def of_class(rule: str, scores: Tensor, labels: Tensor) -> Tensor:
    """The scores `(..., n)` of integer labels `(...)`."""
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"{rule} got labels that are {labels.dtype}, and needs class numbers: write labels.long().")
    if labels.shape != scores.shape[:-1]:
        raise ValueError(
            f"{rule} got labels of shape {tuple(labels.shape)}, and needs one class number an example, "
            f"{tuple(scores.shape[:-1])}."
        )
    return scores.gather(-1, labels.long()[..., None])[..., 0]
