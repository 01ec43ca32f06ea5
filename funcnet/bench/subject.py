"""What is raced: one piece of work, and the ways to do it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import tree

__all__ = ["Running", "Setting", "Subject", "Way", "bytes_of", "unseen"]


class Setting(NamedTuple):
    """Where and how work is done."""

    device: torch.device
    autocast: torch.dtype | None = None
    """The dtype of matrix products, if they are cast."""
    smoke: bool = False
    """Whether the smallest sizes do, since only the results count."""


class Running(NamedTuple):
    """A way at work."""

    step: Callable[[], Any]
    """One step on the way's own state; returns what all ways must agree about, such as the loss."""
    held: Callable[[], int]
    """The bytes that are kept from one step to the next."""
    wait: Callable[[], object] = lambda: None
    """Returns once what steps have begun is done, where that is not torch's work, for which the clock waits itself."""
    taken: Callable[[], int | None] | None = None
    """The bytes that a step takes beyond those held, None if nobody can tell; for a step whose memory torch's allocator
    or the process does not show."""

    def finish(self) -> Any:
        """A step, and the end of its work."""
        result = self.step()
        self.wait()
        return result


@dataclass(frozen=True)
class Way:
    """One way to do a piece of work."""

    make: Callable[[], Running]
    """Start from the beginning: every call makes the same, so that ways can be compared step by step."""
    compiled: bool = False
    """Whether the first step compiles."""
    agrees: bool = True
    """Whether it must return what the others do, but for rounding."""
    absent: str | None = None
    """Why it cannot be run on this machine, if so."""


@dataclass(frozen=True)
class Subject:
    """A piece of work."""

    name: str
    ways: Mapping[str, Way]
    reference: tuple[str, ...]
    """The ways that the others are set against: the fastest of them counts."""
    size: int = 1
    """How many units a step works on."""
    unit: str = "step"
    settings: Mapping[str, Any] = field(default_factory=dict)
    flops: int | None = None
    """The FLOPs of a step, done in the plainest way."""
    rtol: float = 2e-3
    """How far ways may differ after some steps of their own, relative to what they return: rounding, amplified."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    memory: int | None = None
    """About how many bytes one way needs, where that is known: one that has not as many is left out."""


def bytes_of(*trees: Any) -> int:
    """The bytes of every tensor or array in some trees, each object once.

    >>> weight = torch.zeros(3)
    >>> bytes_of({"a": weight, "b": weight}, [torch.zeros(2, dtype=torch.int64)])
    28
    """
    leaves = {id(leaf): leaf for leaf in tree.leaves(trees)}.values()
    return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor) or hasattr(leaf, "nbytes"))


def unseen(mode: str | None) -> Callable[[], int | None] | None:
    """`Running.taken` for a mode of torch.compile: CUDA graphs work in a pool taken once, which no step shows.

    >>> unseen("default") is None, unseen("reduce-overhead")() is None
    (True, True)
    """
    return None if mode in (None, "default") else lambda: None
