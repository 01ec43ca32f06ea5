"""What a source gives: two sets of rows, and what is known of them."""

from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from funcnet.data.errors import DataError

__all__ = ["Dataset", "Kind", "Statistics", "check_labels", "near", "statistics"]

Kind = Literal["classification", "regression", "language"]


class Statistics(NamedTuple):
    """The mean and the standard deviation of each channel or feature."""

    mean: Tensor
    """float32 `(channels,)` or `(features,)`, of pixels between 0 and 1."""
    std: Tensor
    """The same; 1 where nothing varies, so that dividing by it does no harm."""


class Dataset(NamedTuple):
    """Two sets of rows, each a dict of tensors.

    `x` is what a model sees: pictures `(n, channels, height, width)`, uint8 or float32 between 0 and 1; or features,
    float32 `(n, features)`. `label` is what it shall say: int64 `(n,)`, a place in `classes`, or float32 `(n,)`. Text
    is one row of int64 `token` `(n,)` for `windows` and `chunks`, which make `x` and `label` of it.
    """

    train: dict[str, Tensor]
    test: dict[str, Tensor]
    kind: Kind
    classes: tuple[str, ...]
    """The names of the classes, or the vocabulary of text; none where numbers are predicted, or bytes."""
    statistics: Statistics | None
    """Those of the training set's `x`, to normalize by; None for text."""
    info: dict[str, Any]
    """What else is known, fit for JSON: the source, the names of features, files and lines that were left out ..."""


def statistics(x: Tensor) -> Statistics:
    """The mean and standard deviation of each channel of pictures, or of each feature.

    Args:
        x: `(n, channels, height, width)`, of which uint8 counts as `x / 255`; or `(n, features)`.

    Raises:
        ValueError: `x` has other axes, or no rows.

    >>> statistics(torch.tensor([[0.0, 5.0], [2.0, 5.0]]))
    Statistics(mean=tensor([1., 5.]), std=tensor([1., 1.]))
    """
    if x.ndim not in (2, 4) or not x.numel():
        raise ValueError(
            f"x has shape {tuple(x.shape)}; statistics takes pictures (n, channels, height, width) or rows "
            f"(n, features)."
        )
    if x.dtype == torch.uint8:  # by counts, which are exact and need no floating copy of all pixels
        values = torch.arange(256, dtype=torch.float64, device="cpu") / 255
        counts = torch.stack([torch.bincount(x[:, i].flatten(), minlength=256) for i in range(x.shape[1])]).cpu()
        share = counts / counts.sum(1, keepdim=True, dtype=torch.float64)
        mean = share @ values
        variance = (share * (values - mean[:, None]) ** 2).sum(1)
    else:
        axes = [axis for axis in range(x.ndim) if axis != 1]
        mean = x.double().mean(axes)
        variance = x.double().var(axes, correction=0)
    std = variance.sqrt()
    return Statistics(mean.float(), torch.where(std > 0, std, 1).float())


def check_labels(labels: Tensor, classes: int, where: str = "labels") -> None:
    """Raise unless every label is one of `classes` classes.

    Raises:
        DataError: a label is negative, or too great, or no integer; the message has the first and its row.

    >>> check_labels(torch.tensor([0, 3]), 3)
    Traceback (most recent call last):
    funcnet.data.errors.DataError: labels: row 1 has the label 3, and there are 3 classes, 0 to 2.
    """
    if labels.is_floating_point() or labels.is_complex() or labels.ndim != 1:
        raise DataError(f"{where}: {labels.dtype} of shape {tuple(labels.shape)}; classes are integers of shape (n,).")
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        row = int(wrong.nonzero()[0, 0])
        raise DataError(
            f"{where}: row {row} has the label {int(labels[row])}, and there are {classes} classes, 0 to {classes - 1}."
        )


def near(name: str, names: list[str]) -> str:
    """The end of a message about an unknown name: those near it, or all."""
    found = get_close_matches(name.lower(), names, 3, 0.5)
    return f"near names: {', '.join(found)}" if found else f"there are {', '.join(names)}"
