"""Batches of a tree of tensors, in an order drawn from a key."""

from collections.abc import Iterator
from typing import Any

import torch

from funcnet import random, tree

__all__ = ["batches", "split"]


def batches(key: torch.Tensor | None, data: Any, batch_size: int, *, drop_last: bool = True) -> Iterator[Any]:
    """The batches of one epoch: rows of every leaf, shuffled by `key`.

    Args:
        key: the order is `random.permutation(key, n)`; None keeps the rows as they are.
        data: a pytree of tensors whose first axes have one size `n`.
        batch_size: rows a batch.
        drop_last: whether to leave out a last batch of fewer rows, for which a compiled step would compile again.

    Raises:
        ValueError: the leaves differ in their first axis, or `batch_size` is not positive.

    >>> data = {"x": torch.arange(5)}
    >>> [batch["x"].tolist() for batch in batches(None, data, 2)]
    [[0, 1], [2, 3]]
    """
    size = _rows(data)
    if batch_size <= 0:
        raise ValueError(f"batch_size is {batch_size}; it counts the rows of a batch and must be positive.")
    order = None if key is None else random.permutation(key, size)
    end = size - size % batch_size if drop_last else size

    def generate() -> Iterator[Any]:
        for start in range(0, end, batch_size):
            rows = slice(start, start + batch_size)
            yield _take(data, rows if order is None else order[rows])

    return generate()


def split(key: torch.Tensor, data: Any, fraction: float) -> tuple[Any, Any]:
    """Two disjoint parts of the rows, drawn by `key`: the first has `round(fraction * n)` of them.

    >>> first, second = split(random.key(0), torch.arange(10), 0.8)
    >>> len(first), sorted([*first.tolist(), *second.tolist()])
    (8, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    size = _rows(data)
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction is {fraction}; it is the share of the first part, between 0 and 1.")
    order = random.permutation(key, size)
    cut = round(fraction * size)
    return _take(data, order[:cut]), _take(data, order[cut:])


def _take(data: Any, rows: slice | torch.Tensor) -> Any:
    return tree.map(lambda leaf: leaf[rows if isinstance(rows, slice) else rows.to(leaf.device)], data)


def _rows(data: Any) -> int:
    sizes = {
        path: leaf.shape[0] if isinstance(leaf, torch.Tensor) and leaf.ndim else None
        for path, leaf in tree.leaves_with_path(data)
    }
    if len(set(sizes.values())) != 1 or None in sizes.values():
        found = ", ".join(f"{path or 'data'}: {size}" for path, size in list(sizes.items())[:5]) or "no tensor"
        raise ValueError(f"data needs tensors with one common size on their first axis, and has {found}.")
    (size,) = set(sizes.values())
    assert size is not None
    return size
