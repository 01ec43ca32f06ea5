"""What a figure holds for."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["environment"]

_PACKAGES = ("funcnet", "torch", "torchvision", "triton", "jax", "jaxlib", "optax", "torchopt", "opacus")
_DRIVER = Path("/sys/module/nvidia/version")


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """The machine and the versions, as a dict that JSON can hold.

    On a GPU what drives it is there as well, and once jax is imported the platform that jax prefers.

    >>> found = environment()
    >>> sorted(found.keys() - {"jax"})
    ['device', 'machine', 'packages', 'python', 'system', 'threads']
    """
    on_gpu = torch.device(device).type == "cuda" and torch.cuda.is_available()
    found = {
        "device": torch.cuda.get_device_name(device) if on_gpu else str(torch.device(device)),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }
    if on_gpu:
        found["gpu"] = _gpu()
    if "jax" in sys.modules:
        found["jax"] = sys.modules["jax"].default_backend()
    return found


def _gpu() -> dict[str, Any]:
    """CUDA's versions, and in which precision products of float32 matrices and convolutions are computed."""
    return {
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]  # torch leaves it untyped
        "driver": _DRIVER.read_text().strip() if _DRIVER.exists() else None,
        "float32 products": torch.get_float32_matmul_precision(),
        "TF32 convolutions": torch.backends.cudnn.allow_tf32,
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
