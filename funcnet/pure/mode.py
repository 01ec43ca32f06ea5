"""The torch function mode of one pure call."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor

from funcnet.pure.attention import ATTENTION
from funcnet.pure.embedding import EMBEDDING
from funcnet.pure.formulas import FORMULAS
from funcnet.pure.linear import LINEAR
from funcnet.pure.normalization import NORMALIZATION
from funcnet.pure.recurrence import RECURRENCE
from funcnet.pure.spectral import SPECTRAL
from funcnet.pure.writes import DATA
from funcnet.random.seeded import RANDOM, KeyedMode, Replacement

if TYPE_CHECKING:
    from funcnet.pure.skeleton import Loan

__all__ = ["MissingKeyError", "PureMode"]


class MissingKeyError(ValueError):
    """A call drew random numbers and was given no key."""

    __module__ = "funcnet"


class PureMode(KeyedMode):
    """Draws come from the call's key, and running statistics become new state instead of being written."""

    table: ClassVar[dict[object, Replacement]] = {
        **RANDOM,
        **NORMALIZATION,
        **EMBEDDING,
        **FORMULAS,
        **LINEAR,
        **ATTENTION,
        **RECURRENCE,
        **SPECTRAL,
        **DATA,
    }

    def __init__(self, key: Tensor | None, statistics: dict[int, str], loan: "Loan", aside: bool = False) -> None:
        """Take the call's key, the name of each state tensor that is not to be written, by `id`, and the module.

        `aside` says whether modules of torch's own may take the mode off the stack for their calls (`pure/aside.py`).
        What runs a part of the module again holds the mode, and by it the module.
        """
        super().__init__(key)
        self.statistics = statistics
        self.loan = loan
        self.aside = aside
        # Of `pure/writes.py`, by the tensor's `id`, which is its own as long as the tensor lies beside.
        self.peeked: dict[int, list[tuple[Tensor, Tensor | None, list[int]]]] = {}

    def name_of(self, tensor: Tensor) -> str | None:
        """The name of a state tensor of this call."""
        return self.statistics.get(id(tensor))

    def update(self, statistic: Tensor, value: Tensor) -> None:
        """Record the new value of a state tensor."""
        self.updates[self.statistics[id(statistic)]] = value

    def fork(self, key: Tensor | None, draws: int) -> Self:
        """A mode of the same kind with names of its own, beside what it inherits."""
        fork = super().fork(key, draws)
        fork.statistics = dict(self.statistics)
        return fork

    def stand_in(self, value: Tensor, tensor: Tensor) -> None:
        """Give `value` the name of the state tensor `tensor`, and forget what was recorded for it before."""
        name = self.name_of(tensor)
        if name is not None:
            self.statistics[id(value)] = name
            self.updates.pop(name, None)

    def held(self) -> list[Any]:
        """What the attributes of the module that is being called hold."""
        return self.loan.body.held()

    def put(self, held: Sequence[Any]) -> None:
        """Let the attributes hold what they held."""
        self.loan.body.put(held)

    def missing_key(self) -> Exception:
        """The error of a draw without a key; the model adds where."""
        return MissingKeyError("draws random numbers, and the call was given no key")
