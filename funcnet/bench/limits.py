"""What the machine can do at most: a matrix product, and a copy."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from funcnet import random
from funcnet.bench.clock import timer

__all__ = ["Limits", "limits"]

_MATRIX = {"cpu": 1024, "cuda": 8192}
_COPIED = {"cpu": 1 << 25, "cuda": 1 << 30}  # bytes, beyond every cache


class Limits(NamedTuple):
    """The rates that a machine reaches, measured."""

    flops: float
    """FLOP/s of a product of large square matrices; a multiplication and its addition are two."""
    bandwidth: float
    """Bytes that a copy of a large tensor reads and writes, a second."""


def limits(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, *, seconds: float = 0.5) -> Limits:
    """Measure what a device can do.

    Args:
        device: the device.
        dtype: of the matrices.
        seconds: for how long each is repeated; the best run counts, since a limit is what nothing disturbed.

    >>> rates = limits(seconds=0.05)
    >>> rates.flops > 1e8, rates.bandwidth > 1e8
    (True, True)
    """
    kind = "cpu" if torch.device(device).type == "cpu" else "cuda"
    size = _MATRIX[kind]
    a, b = (random.normal(key, (size, size)).to(device, dtype) for key in random.split(random.key(0)))
    product = torch.empty_like(a)
    source = torch.ones(_COPIED[kind], dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return Limits(
        2 * size**3 / _best(lambda: torch.mm(a, b, out=product), seconds),
        2 * _COPIED[kind] / _best(lambda: target.copy_(source), seconds),
    )


def _best(work: Callable[[], object], seconds: float) -> float:
    best, end = float("inf"), timer() + seconds
    while (start := timer()) < end or best == float("inf"):
        work()
        best = min(best, timer() - start)
    return best
