"""Batches and parts of a tree of tensors, in an order drawn from a key."""

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, overload

import torch
from torch import Tensor

from funcnet import random, tree

__all__ = ["batch_count", "batches", "order", "row_count", "split", "take"]


def batches(key: Tensor | None, data: Any, batch_size: int, *, drop_last: bool = True) -> Iterator[Any]:
    """The batches of one epoch: rows of every leaf, shuffled by `key`.

    Args:
        key: the order is `random.permutation(key, n)`; None keeps the rows as they are.
        data: a pytree of tensors whose first axes have one size `n`.
        batch_size: rows a batch.
        drop_last: whether to leave out a last batch of fewer rows, for which a compiled step would compile again.

    Raises:
        ValueError: the leaves differ in their first axis, `batch_size` is not positive, or `drop_last` would leave no
            batch at all.

    >>> data = {"x": torch.arange(5)}
    >>> [batch["x"].tolist() for batch in batches(None, data, 2)]
    [[0, 1], [2, 3]]
    """
    size = row_count(data)
    count = batch_count(size, batch_size, drop_last)
    return _Batches(data, None if key is None else random.permutation(key, size), batch_size, size, count)


class _Batches(Iterator[Any]):
    """An epoch's batches, which tells the rows of each."""

    def __init__(self, data: Any, drawn: Tensor | None, batch_size: int, size: int, count: int) -> None:
        self._data, self._drawn, self._batch_size, self._size = data, drawn, batch_size, size
        self._starts = iter(range(0, count * batch_size, batch_size))

    def __next__(self) -> Any:
        start = next(self._starts)
        part = slice(start, start + self._batch_size)
        return take(self._data, part if self._drawn is None else self._drawn[part])

    def rows(self, batch: int) -> Tensor:
        """The rows of a batch, `(batch_size,)`; what `train.fit` names where a loss is not finite."""
        start, end = batch * self._batch_size, min((batch + 1) * self._batch_size, self._size)
        return torch.arange(start, end, device="cpu") if self._drawn is None else self._drawn[start:end]


def order(key: Tensor, n: int, batch_size: int) -> Tensor:
    """The rows of each full batch of an epoch, for a step that gathers them itself, as in a compiled epoch by `scan`.

    Args:
        key: int32 `(2,)`, this epoch's own: `stream` takes `fold_in(key, epoch)`.
        n: rows in all.
        batch_size: rows a batch.

    Returns: int64 `(n // batch_size, batch_size)`, on the key's device: row i is what batch i of `batches` takes.

    Raises:
        ValueError: `batch_size` is not positive, or greater than `n`.

    >>> order(random.key(0), 5, 2)
    tensor([[0, 1],
            [4, 3]])
    """
    count = batch_count(n, batch_size, drop_last=True)
    return random.permutation(key, n)[: count * batch_size].reshape(count, batch_size)


@overload
def split(key: Tensor, data: Any, fraction: float, *, labels: Tensor | None = None) -> tuple[Any, Any]: ...


@overload
def split(key: Tensor, data: Any, fraction: Sequence[float], *, labels: Tensor | None = None) -> tuple[Any, ...]: ...


def split(
    key: Tensor, data: Any, fraction: float | Sequence[float], *, labels: Tensor | None = None
) -> tuple[Any, ...]:
    """Disjoint parts of the rows, drawn by `key`.

    Args:
        key: int32 `(2,)`.
        data: a pytree of tensors whose first axes have one size `n`.
        fraction: the share of the first of two parts, which has `round(fraction * n)` rows; or one share for each part,
            which sum to 1.
        labels: integers `(n,)`, of which every part has these shares of each value, give or take a row (stratified).

    Raises:
        ValueError: a share is outside 0 to 1, the shares do not sum to 1, or `labels` has another size.

    >>> first, second = split(random.key(0), torch.arange(10), 0.8)
    >>> len(first), sorted([*first.tolist(), *second.tolist()])
    (8, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    >>> [len(part) for part in split(random.key(0), torch.arange(10), (0.5, 0.3, 0.2))]
    [5, 3, 2]
    """
    size = row_count(data)
    shares = _shares(fraction)
    rows = random.permutation(key, size)
    if labels is None:
        cuts = _cuts(shares, size)
        return tuple(take(data, rows[a:b]) for a, b in zip([0, *cuts], [*cuts, size], strict=True))
    if labels.shape != (size,) or labels.is_floating_point():
        raise ValueError(
            f"labels is {labels.dtype} of shape {tuple(labels.shape)}; a stratified split needs an integer for each "
            f"of the {size} rows."
        )
    parts = torch.zeros(size, dtype=torch.int64, device=rows.device)  # of each position in `rows`
    drawn = labels.to(rows.device)[rows]
    start = 0
    for value in sorted(set(drawn.tolist())):
        places = torch.nonzero(drawn == value)[:, 0]
        # Rounded over the labels so far, so that what each loses by rounding goes to the next and the sum is right.
        ends = zip(_cuts(shares, start + len(places)), _cuts(shares, start), strict=True)
        for cut in accumulate((end - begin for end, begin in ends), max):
            parts[places[cut:]] += 1
        start += len(places)
    return tuple(take(data, rows[parts == part]) for part in range(len(shares)))


def _shares(fraction: float | Sequence[float]) -> list[float]:
    if not isinstance(fraction, Sequence):
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction is {fraction}; it is the share of the first part, between 0 and 1.")
        return [fraction, 1 - fraction]
    shares = list(fraction)
    if not all(0 <= share <= 1 for share in shares) or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ValueError(
            f"fraction is {tuple(shares)}, which sums to {sum(shares):g}; give each part its share, between 0 and 1, "
            f"and 1 in all, as in (0.7, 0.15, 0.15)."
        )
    return shares


def _cuts(shares: Sequence[float], size: int) -> list[int]:
    """Where a part ends and the next begins."""
    return [min(size, round(math.fsum(shares[: i + 1]) * size)) for i in range(len(shares) - 1)]


def take(data: Any, rows: slice | Tensor) -> Any:
    """These rows of every leaf, wherever it lies."""
    return tree.map(lambda leaf: leaf[rows if isinstance(rows, slice) else rows.to(leaf.device)], data)


def batch_count(size: int, batch_size: int, drop_last: bool) -> int:
    """How many batches an epoch has.

    Raises:
        ValueError: `batch_size` is not positive, or more than all rows where only full batches count.
    """
    if batch_size <= 0:
        raise ValueError(f"batch_size is {batch_size}; it counts the rows of a batch and must be positive.")
    if drop_last and batch_size > size:
        raise ValueError(
            f"batch_size is {batch_size} and the data has {size} rows, so that there is no full batch. Take a smaller "
            f"batch_size, or drop_last=False for one batch of all rows."
        )
    return size // batch_size if drop_last else -(-size // batch_size)


def row_count(data: Any) -> int:
    """The common size of the leaves' first axes.

    Raises:
        ValueError: they have none.
    """
    sizes = {
        path: leaf.shape[0] if isinstance(leaf, Tensor) and leaf.ndim else None
        for path, leaf in tree.leaves_with_path(data)
    }
    if len(set(sizes.values())) != 1 or None in sizes.values():
        found = ", ".join(f"{path or 'data'}: {size}" for path, size in list(sizes.items())[:5]) or "no tensor"
        raise ValueError(f"data needs tensors with one common size on their first axis, and has {found}.")
    (size,) = set(sizes.values())
    assert size is not None
    return size
