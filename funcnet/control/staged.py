"""A user's function as a part of a traced graph."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext

from torch import Tensor

from funcnet import _compat
from funcnet.control.closure import ambient, close, visible

__all__ = ["Staged", "next_key"]


class Staged:
    """A function of lists of tensors, whose surroundings are made explicit: what it reads, writes and draws there."""

    def __init__(self, f: Callable[..., list[Tensor]], *example: Sequence[Tensor]) -> None:
        """Take the function and examples of its arguments, of whose values no use is made."""
        with _compat.sketch() if _compat.graphing() else nullcontext():
            # Clones, so that these and all that transforms wrap in them are known to be of the sketch.
            self._closed = close(f, *([t.clone() for t in some] for some in example))
        self.reads: list[Tensor] = visible(self._closed.reads)
        self.written: list[Tensor] = visible(self._closed.written)
        self.draws, self.commit = self._closed.draws, self._closed.commit
        self._autocast = _compat.autocast_state()

    @property
    def targets(self) -> list[int]:
        """What stands for each tensor of `written`, the same in two functions staged one after the other."""
        return [id(t) for t in self._closed.written]

    def __call__(
        self, reads: Sequence[Tensor], writes: Sequence[Tensor], key: Tensor | None, *args: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The results, and the new values of what is written, from what is read and has been written so far."""
        with ExitStack() as stack:
            if _compat.autocast_state() != self._autocast:
                _compat.enter_autocast(stack, self._autocast)
            return self._closed(self._closed.replaced(reads, writes), key, *args)


def next_key() -> Tensor | None:
    """A key from the mode around, if it has one: this takes one number of its stream, whether anything draws or not."""
    mode = ambient()
    return None if mode is None or mode.key is None else mode.next_key()
