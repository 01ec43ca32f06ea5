"""One of two results, as a tensor tells."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ... import _compat
from ...tree import map


def decided(condition: Tensor) -> bool:
    """Whether `choose` runs one of its functions alone: in eager mode, where a look at it waits for nothing."""
    return condition.device.type == "cpu" and _compat.plain()


def choose(condition: Tensor | bool, then: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
    """The tree that one of two functions returns: trees of one structure, shapes and dtypes.

    An ordinary eager step decides in Python, where reading the condition waits for no device, and runs one of them.
    Everywhere else both are run and selected from, which fuses with what is around it, and lets a CUDA graph be.
    """
    if not isinstance(condition, Tensor) or decided(condition):
        return then() if bool(condition) else otherwise()
    return map(lambda a, b: torch.where(condition, a, b), then(), otherwise())
