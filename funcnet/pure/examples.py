"""Batch normalization where each example is a batch of its own: what that means, said once."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

__all__ = ["examples_apart", "mind_single_examples"]


class _Thread(threading.local):
    apart = False


_thread = _Thread()
_said = False

_ADVICE = (
    "Evaluate it with train=False, by running statistics, or use GroupNorm or LayerNorm, which look at one example."
)


@contextmanager
def examples_apart() -> Iterator[None]:
    """Inside, each batch is one example."""
    before, _thread.apart = _thread.apart, True
    try:
        yield
    finally:
        _thread.apart = before


def mind_single_examples(input: Tensor) -> None:
    """Before the statistics of a batch are taken: warn once a process where it is one example, and refuse one value.

    Raises `ValueError` where a channel has one value, of which there is no variance.
    """
    global _said
    if input.numel() == input.shape[1] > 0:
        advice = _ADVICE if _thread.apart else "Give a batch of two or more, or evaluate with train=False."
        apart = ", since per_example_grad makes each example a batch of one" if _thread.apart else ""
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {tuple(input.shape)}{apart}: batch "
            f"normalization has no variance of one value. {advice}"
        )
    if _thread.apart and not _said:
        _said = True
        warnings.warn(
            "per_example_grad gives each example to batch normalization as a batch of one: in train mode it is "
            "normalized by the statistics of its own pixels, not of the batch's, and the mean of these gradients is "
            f"not the gradient of the batch. {_ADVICE} (This is said once.)",
            stacklevel=2,
        )
