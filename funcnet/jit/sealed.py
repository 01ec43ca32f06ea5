"""What a traced function may not do: draw without a key, or read the value of a tensor that it closes over.

Both are hidden state, in a compiled graph as elsewhere.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from funcnet import _compat
from funcnet.random.seeded import RANDOM, KeyedMode, Replacement

__all__ = ["Sealed"]

_UNINITIALISED: tuple[Any, ...] = (torch.empty, torch.empty_like, Tensor.new_empty)
_READS: tuple[Any, ...] = (
    Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__int__, Tensor.__float__, Tensor.__complex__,
    Tensor.__index__, Tensor.__bool__, Tensor.__contains__, Tensor.is_nonzero, torch.is_nonzero, Tensor.equal,
    torch.equal, Tensor.allclose, torch.allclose,
)  # fmt: skip


def _refused(read: Any) -> Replacement:
    def reading(mode: "Sealed", *args: Any, **kwargs: Any) -> Any:
        # As no traced tensor has, which the tracer itself refuses to read; a dry run may be looked at.
        known = [_compat.has_values(value) for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if _compat.tracing() and all(known):
            raise mode.frozen_value(read.__name__)
        return read(*args, **kwargs)

    return reading


class Sealed(KeyedMode):
    """Refuses draws without a key, and reading the values of tensors, while a function is traced.

    A `random.seeded` around the jitted call would otherwise leave its key in the graph, for all later calls; and a
    tensor that the function closes over the value that it has by now.
    """

    table: ClassVar[dict[Any, Replacement]] = {
        **{f: r for f, r in RANDOM.items() if f not in _UNINITIALISED},
        **{f: _refused(f) for f in _READS},
    }

    def __init__(self, name: str) -> None:
        """Take the name of the jitted function."""
        super().__init__(None)
        self._name = name

    def frozen_value(self, read: str) -> Exception:
        """The error of reading a tensor's value."""
        return TypeError(
            f"{self._name} is jitted, and reads the value of a tensor that it closes over ({read}), which would be "
            f"frozen into the graph. Compute with the tensor itself, or close over a Python number."
        )

    def missing_key(self) -> Exception:
        """The error of a draw."""
        return TypeError(
            f"{self._name} is jitted, and draws random numbers without a key. Give it a key as an argument, and "
            f"inside write model.apply(..., key=key), random.normal(key, shape), or `with random.seeded(key):`."
        )
