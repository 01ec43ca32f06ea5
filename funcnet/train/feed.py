"""Where a run takes its batches from: a stream with positions, a function of the epoch, or a list."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

__all__ = ["Batches", "Feed"]


@runtime_checkable
class _Stream(Protocol):
    """What `fit` knows of `data.Stream`: batches with the position after each, from any position on."""

    def at(self, start: Sequence[int], /) -> Any: ...

    def rows(self, epoch: int, batch: int, /) -> Tensor | None: ...

    def close(self) -> None: ...


Batches = _Stream | Callable[[int], Iterable[Any]] | Sequence[Any]


class Feed:
    """The batches of one epoch after the other."""

    def __init__(self, batches: Batches) -> None:
        """Take batches as `fit` is given them."""
        self._batches = batches
        self._items: Any = None
        self._place: tuple[int, int] | None = None

    def epoch(self, epoch: int, batch: int) -> Iterator[Any]:
        """The batches of an epoch without the first few."""
        if isinstance(self._batches, _Stream):
            return self._streamed(self._batches, epoch, batch)
        self._items = iter(self._batches(epoch) if callable(self._batches) else self._batches)
        return islice(self._items, batch, None)

    def rows(self, epoch: int, batch: int) -> Tensor | None:
        """The rows of a batch of the epoch at hand, if they are known: of `data.batches`, `stream` and `loader`."""
        if isinstance(self._batches, _Stream):
            return self._batches.rows(epoch, batch)
        known = getattr(self._items, "rows", None)
        return known(batch) if callable(known) else None

    @staticmethod
    def empty(epoch: int) -> ValueError:
        """The error for an epoch without a batch."""
        return ValueError(
            f"epoch {epoch} has no batch. A generator is spent after one epoch: pass a list, or a function of the "
            f"epoch; a stream with epochs= or steps= of its own may end before the run; and a batch size over the size "
            f"of the data leaves no full batch."
        )

    def close(self) -> None:
        """End the threads and processes with which a stream makes batches ahead."""
        if isinstance(self._items, _Stream):
            self._items.close()

    def _streamed(self, stream: _Stream, epoch: int, batch: int) -> Iterator[Any]:
        if self._place != (epoch, batch):
            self._items = stream.at((epoch, batch))
        for place, values in self._items:
            if place[0] != epoch and tuple(place) != (epoch + 1, 0):
                self._place = None  # nothing was left of this epoch: the next begins with this batch
                return
            self._place = place
            yield values
            if place[0] != epoch:
                return
