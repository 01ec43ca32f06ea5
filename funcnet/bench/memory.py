"""The most memory that a call takes beyond what is held before it."""

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

__all__ = ["free", "peak_of"]

_STATUS, _RESET, _MACHINE = Path("/proc/self/status"), Path("/proc/self/clear_refs"), Path("/proc/meminfo")


def peak_of(call: Callable[[], Any], device: torch.device | str = "cpu") -> int | None:
    """The bytes that a call takes at its peak beyond those held before it; None where that cannot be told.

    On a GPU torch's allocator tells. On the CPU it is the resident memory of the process, whatever allocates it, which
    Linux alone lets a process reset; freed memory is given back first, so that none is used again unseen.

    >>> found = peak_of(lambda: torch.ones(1 << 24).sum())
    >>> found is None or 60 < found / 2**20 < 80
    True
    """
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if sys.platform != "linux":
        return None
    ctypes.CDLL(None).malloc_trim(0)
    try:
        _RESET.write_text("5")  # the peak starts again from what is resident
    except OSError:
        return None
    before = _resident("VmRSS")
    call()
    return max(_resident("VmHWM") - before, 0)


def free(device: torch.device | str = "cpu") -> int | None:
    """The bytes that may still be had, on a GPU with those that torch keeps unused; None where that cannot be told.

    >>> found = free()
    >>> found is None or found > 2**20
    True
    """
    if torch.device(device).type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    try:
        lines = _MACHINE.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable")), None)


def _resident(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) << 10
