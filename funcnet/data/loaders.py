"""Torch's datasets, and whatever else gives examples one by one, in batches that depend on a key alone."""

import random as python_random
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from funcnet import random
from funcnet.data.rows import batch_count
from funcnet.data.streams import Items, Position, Stream, end_of, positions, start_of

__all__ = ["loader"]

Seed = tuple[int, int]
_APART = 2**32 - 1  # what the seeds of an epoch are folded with: its order is drawn from the splits of the same key


def loader(
    dataset: Any,
    batch_size: int,
    *,
    key: Tensor,
    workers: int = 0,
    shuffle: bool = True,
    epochs: int | None = None,
    steps: int | None = None,
    start: Sequence[int] = Position(),
    drop_last: bool = True,
    collate: Callable[[list[Any]], Any] = default_collate,
) -> Stream:
    """Batches of a dataset with the position after each, as `stream` has them, for data that is no tensor in memory.

    The order of epoch e is `random.permutation(fold_in(key, e), n)`. While a batch is made, the global generators of
    torch (on the CPU), numpy and Python's `random` are seeded from the key, the epoch and the number of the batch: the
    same batch comes whatever the workers, and after a start in the middle. Without workers they are put back after each
    batch, so that nobody else shall draw from them meanwhile, in another thread. A generator that the dataset owns is
    its own affair.

    Args:
        dataset: what has `len` and an example at every index, such as a `torch.utils.data.Dataset`; or any iterable of
            examples, which keeps its order, and of which those before `start` are made and thrown away.
        batch_size: examples a batch.
        key: int32 `(2,)`.
        workers: processes that make batches ahead; for an indexed dataset only.
        shuffle: whether an indexed dataset is taken in the order of the key.
        epochs, steps, start, drop_last: as for `stream`.
        collate: makes a batch of a list of examples.

    Raises:
        ValueError: as `stream`; an iterable with workers, or with `steps` that were counted from an epoch before; an
            epoch of an iterable has no batch.

    >>> found = list(loader(range(5), 2, key=random.key(0), epochs=1))
    >>> [batch.tolist() for _, batch in found]
    [[0, 2], [4, 1]]
    """
    random.check_key(key, "loader")
    if workers < 0:
        raise ValueError(f"workers is {workers}; it counts processes and is not negative.")
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        return _of_iterable(dataset, batch_size, key, workers, epochs, steps, start, drop_last, collate)
    size = len(dataset)
    count = batch_count(size, batch_size, drop_last)
    end = end_of(epochs, steps, count)
    fetch = _Fetch(dataset, collate, restore=not workers)

    def order(epoch: int) -> Tensor:
        return random.permutation(random.fold_in(key, epoch), size) if shuffle else torch.arange(size, device="cpu")

    def requests(first: Position) -> Iterator[Any]:
        epoch, rows, seeds = -1, list[int](), key
        for before, _ in positions(first, count, end):
            if before.epoch != epoch:
                epoch, seeds = before.epoch, _seeds(key, before.epoch)
                rows = order(epoch).tolist()
            yield _seed(seeds, before.batch), rows[before.batch * batch_size : (before.batch + 1) * batch_size]

    def generate(first: Position) -> Items:
        made: Iterable[Any] = map(fetch.__getitems__, requests(first))
        if workers:
            with torch.device("cpu"):  # where torch draws the workers' seeds, which it would do on the default device
                # The generator gives each worker a seed of its own, which else would come from the global one.
                made = iter(
                    DataLoader(
                        fetch,
                        batch_sampler=requests(first),
                        num_workers=workers,
                        collate_fn=_collated,
                        generator=torch.Generator().manual_seed(0),
                    )
                )
        try:
            for (_, after), batch in zip(positions(first, count, end), made, strict=True):
                yield after, batch
        except Exception as error:
            if workers:  # these frames hold the pool, and torch takes five seconds to end one that is found later
                traceback.clear_frames(error.__traceback__)
            raise
        finally:
            made = ()

    def make(start: Sequence[int]) -> Items:
        return generate(start_of(start, count))

    return Stream(make, make(start), lambda epoch, batch: torch.split(order(epoch), batch_size)[batch])


def _of_iterable(
    dataset: Iterable[Any],
    batch_size: int,
    key: Tensor,
    workers: int,
    epochs: int | None,
    steps: int | None,
    start: Sequence[int],
    drop_last: bool,
    collate: Callable[[list[Any]], Any],
) -> Stream:
    batch_count(batch_size, batch_size, drop_last)
    end_of(epochs, steps, 1)
    if workers:
        raise ValueError(
            f"workers is {workers}, and each would give every example of an iterable. Use workers=0 and prefetch(...), "
            f"or a dataset with len and indices."
        )

    def generate(first: Position) -> Items:
        epoch, skip = first
        given = skip  # since position (0, 0), where that matters
        while (steps is None or given < steps) and (epochs is None or epoch < epochs):
            number = 0
            made = _batches(dataset, batch_size, _seeds(key, epoch), drop_last, collate, skip)
            for number, (batch, last) in enumerate(_marked(made), start=1):
                if number > skip:
                    yield Position(epoch + 1, 0) if last else Position(epoch, number), batch
                    given += 1
                    if given == steps:
                        return
            if number < max(skip, 1):
                raise ValueError(
                    f"epoch {epoch} has {number} batches of {batch_size}, and was to have {max(skip, 1)} at least. A "
                    f"generator is spent after one epoch: pass a list, or what starts again with every iter()."
                )
            epoch, skip = epoch + 1, 0

    def make(start: Sequence[int]) -> Items:
        first = start_of(start, 2**62)
        if steps is not None and first.epoch:
            raise ValueError(
                f"steps is {steps} and start is epoch {first.epoch}: nobody knows how many batches of an iterable were "
                f"before. End it by epochs."
            )
        return generate(first)

    return Stream(make, make(start))


def _marked(items: Iterable[Any]) -> Iterator[tuple[Any, bool]]:
    """Each item with whether it is the last, which the next one tells."""
    iterator = iter(items)
    for held in iterator:
        for item in iterator:
            yield held, False
            held = item  # the one that is held back
        yield held, True


def _batches(
    dataset: Iterable[Any],
    batch_size: int,
    seeds: Tensor,
    drop_last: bool,
    collate: Callable[[list[Any]], Any],
    skip: int,
) -> Iterator[Any]:
    """The batches of one epoch, the first `skip` of them as None."""
    with _generators(_seed(seeds, 0), restore=True):
        iterator = iter(dataset)
    number = 0
    while True:
        with _generators(_seed(seeds, number + 1), restore=True):
            examples = list(islice(iterator, batch_size))
            if not examples or (drop_last and len(examples) < batch_size):
                return
            batch = collate(examples) if number >= skip else None
        yield batch
        number += 1


class _Fetch(Dataset[Any]):
    """The batch for a seed and its rows; what a worker process has of the loader."""

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any], restore: bool) -> None:
        self.dataset, self.collate, self.restore = dataset, collate, restore

    def __getitems__(self, request: tuple[Seed, list[int]]) -> Any:
        seed, rows = request
        with _generators(seed, self.restore):
            many = getattr(self.dataset, "__getitems__", None)
            return self.collate(many(rows) if callable(many) else [self.dataset[row] for row in rows])


def _collated(batch: Any) -> Any:
    return batch


def _seeds(key: Tensor, epoch: int) -> Tensor:
    return random.fold_in(random.fold_in(key, epoch), _APART)


def _seed(seeds: Tensor, number: int) -> Seed:
    high, low = random.fold_in(seeds, number).tolist()
    return high & 0xFFFFFFFF, low & 0xFFFFFFFF


_lock = threading.RLock()


@contextmanager
def _generators(seed: Seed, restore: bool) -> Iterator[None]:
    """The global generators from a seed on, and as they were afterwards."""
    whole = seed[0] << 32 | seed[1]
    with _lock if restore else nullcontext():  # a forked worker, which is alone, may find the lock held for ever
        before = (torch.get_rng_state(), np.random.get_state(), python_random.getstate()) if restore else None
        try:
            torch.default_generator.manual_seed(whole)
            np.random.seed(seed)
            python_random.seed(whole)
            yield
        finally:
            if before is not None:
                torch.set_rng_state(before[0])
                np.random.set_state(before[1])
                python_random.setstate(before[2])
