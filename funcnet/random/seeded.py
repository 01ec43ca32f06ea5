"""Any torch code, drawing from a key."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from funcnet.random.attention import ATTENTION
from funcnet.random.dropout import DROPOUT
from funcnet.random.factories import FACTORIES
from funcnet.random.fills import FILLS
from funcnet.random.keys import fold_in, peek
from funcnet.random.reopen import mentioning, reopened

__all__ = ["RANDOM", "KeyedMode", "Replacement", "seeded"]

# `replacement(mode, *args, **kwargs)` answers in place of the torch function; `mode.next_key()` gives it a key.
Replacement = Callable[..., Any]

RANDOM: dict[Any, Replacement] = {**DROPOUT, **ATTENTION, **FACTORIES, **FILLS}


def _open_composites() -> None:
    # Making zeros of uninitialised memory matters only where something is made of them afterwards.
    names = {f.__name__ for f in RANDOM} - {"empty", "empty_like", "new_empty"}
    for module in (torch.nn.functional, torch.nn.init, torch.functional):
        for function in mentioning(module, names).values():
            RANDOM.setdefault(function, reopened(function))


_open_composites()


class KeyedMode(TorchFunctionMode):
    """A function mode in which every draw takes the next key of a stream: `fold_in(key, 0)`, `fold_in(key, 1)` ...

    A subclass may extend `table`, from torch function to replacement, and override `missing_key`.
    """

    table: ClassVar[dict[Any, Replacement]] = RANDOM
    watching: ClassVar[bool] = False  # whether it is to see every call, and not only those of the table

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Take a subclass with a handler of its own for one that watches."""
        super().__init_subclass__(**kwargs)
        cls.watching = cls.__torch_function__ is not KeyedMode.__torch_function__

    def __init__(self, key: Tensor | None) -> None:
        """Take the key, or None where a draw shall raise `missing_key()`."""
        super().__init__()
        self.key = key
        self.draws = 0
        self.updates: dict[str, Tensor] = {}

    def next_key(self) -> Tensor:
        """The key of the next draw."""
        if self.key is None:
            raise self.missing_key()
        n = self.draws
        self.draws = n + 1
        return fold_in(self.key, n)

    # What a body that runs again, or elsewhere, has to know of the mode around it (see control.closure). A mode that
    # also keeps state has names and new values for its tensors.

    def fork(self, key: Tensor | None, draws: int) -> Self:
        """A mode of the same kind that has given `draws` keys, and records its updates apart."""
        fork = copy(self)
        fork.key, fork.draws, fork.updates = key, draws, dict(self.updates)
        return fork

    def name_of(self, tensor: Tensor) -> str | None:
        """The name of a state tensor."""
        return None

    def current(self, tensor: Tensor) -> Tensor:
        """The value by now of a tensor: itself, if it is no state of this call, or not updated."""
        name = self.name_of(tensor)
        return tensor if name is None else self.updates.get(name, tensor)

    def holds(self, tensor: Tensor | None) -> bool:
        """Whether this is a state tensor of the call."""
        return tensor is not None and self.name_of(tensor) is not None

    def stand_in(self, value: Tensor, tensor: Tensor) -> None:
        """Take `value` for the state tensor `tensor`."""

    def held(self) -> list[Any]:
        """What the attributes of the module that is being called hold."""
        return []

    def put(self, held: Sequence[Any]) -> None:
        """Let the attributes hold what they held."""

    def missing_key(self) -> Exception:
        """The error of a draw without a key."""
        return TypeError("This code draws random numbers and has no key. Write `with random.seeded(random.key(0)):`.")

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Answer with the table's replacement, else with the function itself. Every torch call passes here."""
        replacement = self.table.get(func)
        if replacement is not None:
            return replacement(self, *args, **(kwargs or {}))
        return func(*args, **kwargs) if kwargs else func(*args)


@contextmanager
def seeded(key: Tensor) -> Iterator[KeyedMode]:
    """Make any torch code inside the block draw from `key` instead of the global generator.

    The n-th draw takes `fold_in(key, n)`. Dropout of every kind, `torch.rand` and its family, in-place fills,
    `torch.nn.init`, module constructors, `torch.distributions`, attention's dropout and torchvision's transforms are
    covered; uninitialised memory (`torch.empty`) reads as zeros. A `generator=` argument is refused. Python's `random`
    and `numpy.random` are not torch and draw as before. It works inside `grad`, `vmap` over keys and `torch.compile`.

    Args:
      key: int32 `(2,)`.

    Yields: the mode, whose `draws` counts the draws so far.

    Raises: `TypeError` or `ValueError` for what is no key.

    >>> from funcnet import random
    >>> with random.seeded(random.key(0)):
    ...     a = torch.nn.Linear(2, 2).weight
    >>> with random.seeded(random.key(0)):
    ...     b = torch.nn.Linear(2, 2).weight
    >>> torch.equal(a, b)
    True
    """
    mode = KeyedMode(peek(key, "seeded"))
    with mode:
        yield mode
