"""The clock of all timings."""

from time import perf_counter

import torch

__all__ = ["timer"]


def timer() -> float:
    """Seconds, once every GPU that is in use has done its work.

    As `torch.utils.benchmark.timer`, whose import takes a tenth of a second and looks for compilers.
    """
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.cuda.synchronize()
    return perf_counter()
