"""Draws inside a jitted function need a key: the global generator is hidden state, in a compiled graph as elsewhere."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from funcnet.random.seeded import RANDOM, KeyedMode, Replacement

__all__ = ["Keyless"]

_UNINITIALISED: tuple[Any, ...] = (torch.empty, torch.empty_like, Tensor.new_empty)


class Keyless(KeyedMode):
    """Refuses draws without a key while a function is traced.

    A `random.seeded` around the jitted call would otherwise leave its key in the graph, for all later calls.
    """

    table: ClassVar[dict[Any, Replacement]] = {f: r for f, r in RANDOM.items() if f not in _UNINITIALISED}

    def __init__(self, name: str) -> None:
        """Take the name of the jitted function."""
        super().__init__(None)
        self._name = name

    def missing_key(self) -> Exception:
        """The error of a draw."""
        return TypeError(
            f"{self._name} is jitted, and draws random numbers without a key. Give it a key as an argument, and "
            f"inside write model.apply(..., key=key), random.normal(key, shape), or `with random.seeded(key):`."
        )
