"""The C kernel of large eager draws (not yet built: numpy serves)."""

import numpy as np

__all__ = ["fill", "wanted"]


def wanted(n: int) -> bool:
    """Whether the kernel is there and serves a draw of `n`."""
    return False


def fill(k0: int, k1: int, n: int, kind: str, start: int) -> np.ndarray[tuple[int], np.dtype[np.generic]]:
    """`threefry.fill` in C."""
    raise NotImplementedError
