"""What a figure holds for."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["environment"]

_PACKAGES = ("funcnet", "torch", "jax", "optax", "torchopt", "opacus")


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """The machine and the versions, as a dict that JSON can hold.

    >>> sorted(environment())
    ['device', 'machine', 'packages', 'python', 'system', 'threads']
    """
    on_gpu = torch.device(device).type == "cuda" and torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else str(torch.device(device)),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
