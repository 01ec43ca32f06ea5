"""Looking at each operation of a call as it runs on real values, and telling where in the forward it belongs."""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Watch", "backward_node", "sequence", "watching"]


class _Watches(threading.local):
    count = 0


_watches = _Watches()


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's modes are untyped
    """A dispatch mode that hands every operation, below all transforms, to who runs it and looks at what it does.

    Tensors have values under it, so that it is no tracing. Checked on 2.11.0 and 2.15.0; public but for its module.
    """

    def __init__(self, run: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]) -> None:
        """Take what is called for each operation and returns its result: `run(operation, args, kwargs)`."""
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self._run = run

    def __enter__(self) -> Any:
        """Start to watch."""
        entered = super().__enter__()  # type: ignore[no-untyped-call]  # as above
        _watches.count += 1
        return entered

    def __exit__(self, *exception: Any) -> None:
        """Stop."""
        _watches.count -= 1
        super().__exit__(*exception)  # type: ignore[no-untyped-call]  # as above

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Have the operation run, with no mode around it."""
        return self._run(func, args, kwargs or {})


def watching() -> int:
    """How many `Watch`es are open in this thread."""
    return _watches.count


def sequence() -> int:
    """The number that autograd gives to the next node it makes in this thread; 0 where torch does not tell.

    Checked on 2.11.0 and 2.15.0.
    """
    number: Callable[[], int] | None = getattr(torch._C._autograd, "_get_sequence_nr", None)
    return number() if number is not None else 0


def backward_node() -> tuple[str, int] | None:
    """The name and number of the autograd node whose backward is running, or None in a forward.

    A torch that does not tell is always in a forward. Checked on 2.11.0 and 2.15.0.
    """
    current: Callable[[], Any] | None = getattr(torch._C, "_current_autograd_node", None)
    node = current() if current is not None else None
    return None if node is None else (node.name(), node._sequence_nr())
