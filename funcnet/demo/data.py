"""scikit-learn's handwritten digits, in two parts drawn by a key."""

from typing import TypedDict

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from funcnet import data

__all__ = ["Digits", "digits"]


class Digits(TypedDict):
    """Some of the digits, or a batch of them."""

    image: Tensor
    """float32 `(n, 1, 8, 8)`, ink between 0 and 1."""
    label: Tensor
    """int64 `(n,)`, 0 to 9."""


def digits(key: Tensor, *, test: float = 0.2) -> tuple[Digits, Digits]:
    """The 1,797 digits as `(train, test)`, of which the share `test` is held out (Alpaydin and Kaynak, UCI, 1998).

    >>> from funcnet import random
    >>> train, test = digits(random.key(0))
    >>> tuple(train["image"].shape), tuple(test["label"].shape)
    ((1438, 1, 8, 8), (359,))
    """
    bunch = load_digits()
    whole = {
        "image": torch.from_numpy(bunch.images).float().unsqueeze(1) / 16,
        "label": torch.from_numpy(bunch.target).long(),
    }
    held_out, rest = data.split(key, whole, test)
    return rest, held_out
