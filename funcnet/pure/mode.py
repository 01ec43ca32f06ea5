"""The torch function mode of one pure call."""

from typing import ClassVar

from torch import Tensor

from funcnet.pure.embedding import EMBEDDING
from funcnet.pure.normalization import NORMALIZATION
from funcnet.pure.recurrence import RECURRENCE
from funcnet.random.seeded import RANDOM, KeyedMode, Replacement

__all__ = ["MissingKeyError", "PureMode"]


class MissingKeyError(ValueError):
    """A call drew random numbers and was given no key."""

    __module__ = "funcnet"


class PureMode(KeyedMode):
    """Draws come from the call's key, and running statistics become new state instead of being written."""

    table: ClassVar[dict[object, Replacement]] = {**RANDOM, **NORMALIZATION, **EMBEDDING, **RECURRENCE}

    def __init__(self, key: Tensor | None, statistics: dict[int, str]) -> None:
        """Take the call's key, and the name of each state tensor that is not to be written, by `id`."""
        super().__init__(key)
        self.statistics = statistics
        self.updates: dict[str, Tensor] = {}

    def current(self, statistic: Tensor) -> Tensor | None:
        """The value by now of a state tensor, or None if the tensor is no state of this call."""
        name = self.statistics.get(id(statistic))
        return None if name is None else self.updates.get(name, statistic)

    def update(self, statistic: Tensor, value: Tensor) -> None:
        """Record the new value of a state tensor."""
        self.updates[self.statistics[id(statistic)]] = value

    def missing_key(self) -> Exception:
        """The error of a draw without a key; the model adds where."""
        return MissingKeyError("draws random numbers, and the call was given no key")
