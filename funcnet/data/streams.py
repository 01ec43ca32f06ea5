"""Epochs one after the other, each in an order of its own, from any place on."""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.data.rows import batch_count, row_count

__all__ = ["Position", "Stream", "end_of", "positions", "start_of", "stream"]


class Position(NamedTuple):
    """A place in a stream, as plain integers: `json.dumps(position)` and `Position(*json.loads(text))`."""

    epoch: int = 0
    """Epochs that are behind."""
    batch: int = 0
    """Batches of this epoch that are behind."""


Items = Generator[tuple[Position, Any], None, None]


class Stream(Iterator[tuple[Position, Any]]):
    """Batches, each with the position after it: what `stream`, `loader` and `prefetch` of these return."""

    def __init__(
        self,
        make: Callable[[Sequence[int]], Items],
        items: Items,
        rows: Callable[[int, int], Tensor] | None = None,
    ) -> None:
        """Give these items; `make(start)` gives those from a position on, and `rows` the rows of the batch there."""
        self._make, self._items, self._rows = make, items, rows

    def __next__(self) -> tuple[Position, Any]:
        """The next batch with the position after it."""
        return next(self._items)

    def at(self, start: Sequence[int]) -> Self:
        """The same stream from a position on, which leaves this one where it is."""
        return type(self)(self._make, self._make(start), self._rows)

    def rows(self, epoch: int, batch: int) -> Tensor | None:
        """The rows of the batch at a position, `(batch_size,)`; None where they have no numbers."""
        return None if self._rows is None else self._rows(epoch, batch)

    def mapped(self, change: Callable[[Iterator[Any]], Items]) -> Self:
        """This stream, changed: `change` is applied to its items, wherever they begin."""
        return type(self)(lambda start: change(self.at(start)), change(self), self._rows)

    def close(self) -> None:
        """End it, with the threads and processes that make its batches."""
        self._items.close()


def stream(
    key: Tensor,
    data: Any,
    batch_size: int,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    start: Sequence[int] = Position(),
    drop_last: bool = True,
) -> Stream:
    """Batches of epoch after epoch with the position after each, which is where to start for exactly the rest.

    Epoch e is `batches(fold_in(key, e), data, batch_size)`, the same on every device.

    Args:
        key: int32 `(2,)`.
        data: a pytree of tensors whose first axes have one size `n`.
        batch_size: rows a batch.
        epochs: where the stream ends, counted from position (0, 0) wherever it starts.
        steps: the same in batches. With neither it has no end.
        start: the position to go on from, a `Position` or its two integers.
        drop_last: whether to leave out a last batch of fewer rows.

    Raises:
        ValueError: as `batches`; `start` is no position of this stream; both `epochs` and `steps` are given.

    >>> data = torch.arange(5)
    >>> found = list(stream(random.key(0), data, 2, epochs=2))
    >>> [(position, batch.tolist()) for position, batch in found][:2]
    [(Position(epoch=0, batch=1), [0, 2]), (Position(epoch=1, batch=0), [4, 1])]
    >>> rest = list(stream(random.key(0), data, 2, epochs=2, start=found[1][0]))
    >>> [batch.tolist() for _, batch in rest] == [batch.tolist() for _, batch in found[2:]]
    True
    """
    size = row_count(data)
    count = batch_count(size, batch_size, drop_last)
    end = end_of(epochs, steps, count)
    random.check_key(key, "stream")
    leaves, treedef = tree.flatten(data)

    def order(epoch: int) -> Tensor:
        return random.permutation(random.fold_in(key, epoch), size)

    def generate(first: Position) -> Items:
        epoch, rows = -1, dict[Any, tuple[Tensor, ...]]()
        for before, after in positions(first, count, end):
            if before.epoch != epoch:
                epoch = before.epoch
                drawn = order(epoch)
                rows = {leaf.device: torch.split(drawn.to(leaf.device), batch_size) for leaf in leaves}
            # index_select rather than leaf[rows]: the same rows, and half of what a small batch costs.
            taken = [leaf.index_select(0, rows[leaf.device][before.batch]) for leaf in leaves]
            yield after, tree.unflatten(treedef, taken)

    def make(start: Sequence[int]) -> Items:
        return generate(start_of(start, count))

    return Stream(make, make(start), lambda epoch, batch: torch.split(order(epoch), batch_size)[batch])


def positions(first: Position, count: int, end: int | None) -> Iterator[tuple[Position, Position]]:
    """The position before and after each batch: of `count` an epoch, and `end` in all."""
    step, before = first.epoch * count + first.batch, first
    while end is None or step < end:
        step += 1
        after = Position(before.epoch, before.batch + 1) if before.batch + 1 < count else Position(before.epoch + 1, 0)
        yield before, after
        before = after


def end_of(epochs: int | None, steps: int | None, count: int) -> int | None:
    """How many batches a stream has from position (0, 0) on.

    Raises:
        ValueError: both are given, or one is negative; there is no batch to repeat.
    """
    if epochs is not None and steps is not None:
        raise ValueError(f"a stream ends after epochs={epochs} or after steps={steps}: give one of the two.")
    for name, number in (("epochs", epochs), ("steps", steps)):
        if number is not None and number < 0:
            raise ValueError(f"{name} is {number}; it counts from the first batch on and is not negative.")
    if not count and (epochs is None or steps is not None):
        raise ValueError("the data has no rows, so that a stream of them would never give a batch.")
    return epochs * count if epochs is not None else steps


def start_of(start: Sequence[int], count: int) -> Position:
    """A place to start, with the end of an epoch as the beginning of the next.

    Raises:
        ValueError: it is no position, or beyond the batches of an epoch.
    """
    if len(start) != 2 or not all(isinstance(number, int) and number >= 0 for number in start):
        raise ValueError(f"start is {start!r}; a position is two integers from 0 on, Position(epoch, batch).")
    epoch, batch = start
    if batch > count:
        raise ValueError(
            f"start is batch {batch} of epoch {epoch}, and an epoch has {count} batches: the position is one of other "
            f"data or of another batch_size."
        )
    return Position(epoch + 1, 0) if batch == count else Position(epoch, batch)
