"""`associative_scan`: all prefixes under an associative operation, in logarithmically many steps."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.control.contract import Results, at, described, name_of

__all__ = ["associative_scan"]


def associative_scan(fn: Callable[[Any, Any], Any], elems: Any, reverse: bool = False, axis: int = 0) -> Any:
    """All prefixes of an axis under an associative operation: `jax.lax.associative_scan`, of trees.

    Element `i` of the result is `fn(... fn(fn(x[0], x[1]), x[2]) ..., x[i])`, computed on many elements at once: about
    `2 n` applications for `n` elements, in `2 log2(n)` calls (Blelloch 1990, "Prefix sums and their applications"). It
    is made of slices and calls of `fn` alone, so it works under every transform as `fn` does.

    Args:
        fn: an associative function of two trees like `elems`, each of which has any length along `axis`; element by
            element along it, and with a result like either.
        elems: a tree of tensors with one length along `axis`.
        reverse: whether to start at the end: element `i` is then `fn(... fn(x[-1], x[-2]) ..., x[i])`.
        axis: the axis of every leaf.

    Raises:
        TypeError: a leaf has no such axis, or the result of `fn` is not like its arguments.
        ValueError: the lengths differ.

    >>> associative_scan(torch.add, torch.tensor([1, 2, 3, 4]))
    tensor([ 1,  3,  6, 10])
    """
    leaves, treedef = tree.flatten(elems)
    length = _length(elems, axis)
    moved = [leaf.movedim(axis, 0) for leaf in leaves]
    needs = f"associative_scan needs from {name_of(fn)} a result like its arguments"

    def combined(left: Sequence[Tensor], right: Sequence[Tensor]) -> list[Tensor]:
        a, b = ([t.movedim(0, axis) for t in side] for side in (left, right))
        like = Results(tree.unflatten(treedef, a), "an argument", needs, "its arguments", fn)
        out = fn(like.filled(a), like.filled(b))
        return [t.movedim(axis, 0) for t in like.matched(out)]

    if reverse:
        moved = [t.flip(0) for t in moved]
    prefixes = _prefixes(combined, moved, length)
    if reverse:
        prefixes = [t.flip(0) for t in prefixes]
    return tree.unflatten(treedef, [t.movedim(0, axis) for t in prefixes])


def _prefixes(
    combined: Callable[[Sequence[Tensor], Sequence[Tensor]], list[Tensor]], xs: list[Tensor], length: int
) -> list[Tensor]:
    if length < 2:
        return xs
    half = length // 2
    pairs = combined([x[: 2 * half : 2] for x in xs], [x[1::2] for x in xs])
    odd = _prefixes(combined, pairs, half)
    rest = (length - 1) // 2  # how many even places there are after the first
    even = [x[:1] for x in xs]
    if rest:
        later = combined([t[:rest] for t in odd], [x[2::2] for x in xs])
        even = [torch.cat(both) for both in zip(even, later, strict=True)]
    return [_interleaved(e, o) for e, o in zip(even, odd, strict=True)]


def _interleaved(even: Tensor, odd: Tensor) -> Tensor:
    """`even[0], odd[0], even[1] ...`, where there may be one more of the first."""
    both = torch.stack([even[: len(odd)], odd], 1).flatten(0, 1)
    return both if len(even) == len(odd) else torch.cat([both, even[-1:]])


def _length(elems: Any, axis: int) -> int:
    lengths: dict[int, str] = {}
    for path, leaf in tree.leaves_with_path(elems):
        if not isinstance(leaf, Tensor) or not -leaf.ndim <= axis < leaf.ndim:
            raise TypeError(
                f"associative_scan takes tensors with an axis {axis}, not {described(leaf)}{at(path)}, which has none."
            )
        lengths.setdefault(leaf.shape[axis], path)
    if len(lengths) != 1:
        found = ", ".join(f"{length}{at(path)}" for length, path in lengths.items()) or "no tensor"
        raise ValueError(f"associative_scan needs one length along axis {axis}, and found {found}.")
    return next(iter(lengths))
