"""What losses take: floating predictions, targets of the same shape, axes to sum over and what to leave out."""

from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _compat

__all__ = [
    "Axis",
    "check",
    "check_floating",
    "check_numbers",
    "check_range",
    "check_weights",
    "elements",
    "log_probabilities",
    "of_class",
    "over",
    "rows",
    "total",
]

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
        if not isinstance(other, Tensor) or other.is_complex():
            kind = other.dtype if isinstance(other, Tensor) else f"a {type(other).__name__}"
            raise TypeError(
                f"{rule} got {name} that is {kind}, and needs a real tensor of the shape of {next(iter(values))}."
            )
        if other.shape != first.shape:
            raise ValueError(
                f"{rule} got {name} of shape {tuple(other.shape)} for {tuple(first.shape)}: the shapes must be equal, "
                f"nothing is broadcast. Write {name}.expand_as(...) or .reshape(...) where that is meant."
            )


def check_numbers(rule: str, **values: float | Tensor | None) -> None:
    """Raise `TypeError` unless all are numbers, tensors or None."""
    for name, value in values.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float | Tensor)):
            raise TypeError(
                f"{rule} got {name} that is a {type(value).__name__}, and needs a number: write {name}=1.0."
            )


def check_weights(rule: str, name: str, weights: Tensor | None, classes: int) -> None:
    """Raise unless weights, where there are any, are a tensor with one for each class."""
    if weights is None:
        return
    check_floating(rule, **{name: weights})
    if weights.shape != (classes,):
        raise ValueError(f"{rule} got {name} of shape {tuple(weights.shape)}, and needs one a class, ({classes},).")


def rows(value: Tensor, axis: Axis) -> Tensor:
    """The axes laid out as one last axis, `(..., n)`; `ValueError` for axes that are not there."""
    if axis is None:
        return value.reshape(-1)
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    rank = max(value.ndim, 1)
    if any(not isinstance(one, int) or not -rank <= one < rank for one in axes) or (
        len({one % rank for one in axes}) < len(axes)
    ):
        raise ValueError(
            f"axis is {axis!r} for a tensor of shape {tuple(value.shape)}: write one axis, a tuple of different ones, "
            f"or None for all, each from {-rank} to {rank - 1}."
        )
    return value.movedim(axes, tuple(range(-len(axes), 0))).flatten(-len(axes))


def elements(rule: str, where: Tensor | None, value: Tensor, axis: Axis) -> Tensor | None:
    """Which elements of `rows(value, axis)` count: from a mask of the value's shape, or of one element an example."""
    if where is None:
        return None
    if not isinstance(where, Tensor):
        raise TypeError(f"{rule} got where that is a {type(where).__name__}, and needs a tensor of booleans.")
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
    if not isinstance(labels, Tensor):
        raise TypeError(f"{rule} got labels that are a {type(labels).__name__}: write torch.tensor(labels).")
    if not scores.ndim:
        raise ValueError(f"{rule} got scores of shape (), and needs one for each class, (..., n).")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"{rule} got labels that are {labels.dtype}, and needs class numbers: write labels.long().")
    if labels.shape != scores.shape[:-1]:
        raise ValueError(
            f"{rule} got labels of shape {tuple(labels.shape)}, and needs one class number an example, "
            f"{tuple(scores.shape[:-1])}."
        )
    check_range(rule, "labels", labels, scores.shape[-1])
    return scores.gather(-1, labels.long()[..., None])[..., 0]


def check_range(rule: str, name: str, labels: Tensor, classes: int) -> None:
    """Raise `ValueError` for class numbers that there are not, where they can be read: eagerly, on the CPU."""
    if not labels.numel() or labels.device.type != "cpu" or not _compat.plain():
        return
    least, most = (int(value) for value in labels.aminmax())
    if least < 0 or most >= classes:
        raise ValueError(
            f"{rule} got {name} from {least} to {most} for {classes} classes, which are numbered from 0 to "
            f"{classes - 1}. What is to be left out goes into where=, or into ignore_index= of cross_entropy."
        )
