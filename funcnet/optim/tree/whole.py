"""One value from all leaves of a tree."""

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from ...tree import PyTree, check_like, global_norm, leaves, leaves_with_path, map
from ..leafwise import abs_sq, wide
from .arithmetic import conj, mul

__all__ = ["allclose", "dtype", "max", "min", "norm", "sum", "vdot"]


def sum(tree: PyTree, associative_reduction: bool = False) -> Tensor:
    """The sum of all elements: a 0-dim tensor, in at least float32; exact for integers. An empty tree gives 0.

    `associative_reduction` says how jax is to compile it, and changes nothing here.

    >>> sum({"w": torch.tensor([1.0, 2.0]), "b": torch.tensor(3.0)})
    tensor(6.)
    """
    parts = [torch.sum(leaf) for leaf in leaves(_wide(tree))]
    return reduce(torch.add, parts) if parts else torch.zeros(())


def vdot(tree_x: PyTree, tree_y: PyTree) -> Tensor:
    r"""The inner product of two trees, $\sum_i \bar x_i y_i$: a 0-dim tensor, in at least float32.

    Raises `TreeMismatchError` where names or shapes differ.

    >>> vdot({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 4.0])})
    tensor(11.)
    """
    check_like(tree_y, tree_x, "tree_y", "tree_x")
    return sum(mul(conj(_wide(tree_x)), _wide(tree_y)))


def norm(tree: PyTree, ord: float | str | None = None, squared: bool = False) -> Tensor:
    """The length of a tree taken as one vector: a 0-dim tensor, in at least float32.

    Args:
        tree: the tree.
        ord: 2 (or None) for the Euclidean length, whose gradient at zero is zero; 1 for the sum of the absolute
            values; infinity (or "inf") for the largest.
        squared: whether to return its square.

    Raises:
        ValueError: another `ord`.

    >>> vector = {"w": torch.tensor([3.0, -4.0])}
    >>> norm(vector), norm(vector, 1), norm(vector, "inf", squared=True)
    (tensor(5.), tensor(7.), tensor(16.))
    """
    if ord is None or ord == 2:
        return sum(map(abs_sq, _wide(tree))) if squared else global_norm(tree)
    if ord == 1:
        length = sum(map(torch.abs, _wide(tree)))
    elif ord in (math.inf, "inf", "infinity"):
        length = max(map(torch.abs, _wide(tree)))
    else:
        raise ValueError(
            f"norm got ord={ord!r}, and knows 1, 2 and 'inf': for another write tree.ravel and vector_norm."
        )
    return length * length if squared else length


def max(tree: PyTree) -> Tensor:
    """The largest element: a 0-dim tensor; minus infinity where there is none.

    >>> max({"w": torch.tensor([1.0, 2.0]), "b": torch.tensor(3.0)})
    tensor(3.)
    """
    return _extreme(tree, torch.amax, torch.maximum, -math.inf)


def min(tree: PyTree) -> Tensor:
    """The smallest element: a 0-dim tensor; infinity where there is none.

    >>> min({"w": torch.tensor([1.0, 2.0]), "b": torch.tensor(3.0)})
    tensor(1.)
    """
    return _extreme(tree, torch.amin, torch.minimum, math.inf)


def _extreme(
    tree: PyTree, within: Callable[[Tensor], Tensor], between: Callable[[Tensor, Tensor], Tensor], nothing: float
) -> Tensor:
    parts = [within(leaf) for leaf in leaves(map(torch.as_tensor, tree)) if leaf.numel()]
    return reduce(between, parts) if parts else torch.tensor(nothing)


def allclose(a: PyTree, b: PyTree, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    """Whether every element of `a` is within `atol + rtol * |b|` of that of `b`: a bool 0-dim tensor.

    >>> allclose({"w": torch.ones(2)}, {"w": torch.tensor([1.0, 1.0 + 1e-6])})
    tensor(True)
    """

    def near(x: Any, y: Any) -> Tensor:
        x, y = torch.as_tensor(x), torch.as_tensor(y)
        common = torch.promote_types(
            torch.promote_types(x.dtype, y.dtype), torch.int8
        )  # has differences, as bool has not
        x, y = x.to(common), y.to(common)
        close = (x == y) | (torch.isfinite(y) & (torch.abs(x - y) <= atol + rtol * torch.abs(y)))
        return torch.all(close | (torch.isnan(x) & torch.isnan(y)) if equal_nan else close)

    return reduce(torch.logical_and, leaves(map(near, a, b)), torch.tensor(True))


def dtype(tree: PyTree, mixed_dtype_handler: str | None = None) -> torch.dtype:
    """The dtype of all leaves; torch's default for an empty tree.

    Where they differ, `mixed_dtype_handler="promote"` takes the dtype that holds all, "highest" and "lowest" one of
    theirs.

    Raises:
        ValueError: they differ without a handler, "highest" or "lowest" meet two of which neither holds the other, or
            the handler is another word.

    >>> mixed = {"w": torch.ones(2), "b": torch.ones(2, dtype=torch.bfloat16)}
    >>> dtype(mixed, "promote"), dtype(mixed, "lowest")
    (torch.float32, torch.bfloat16)
    """
    if mixed_dtype_handler not in (None, "promote", "highest", "lowest"):
        raise ValueError(
            f"dtype got mixed_dtype_handler={mixed_dtype_handler!r}: write 'promote', 'highest' or 'lowest', or leave "
            "it out where all leaves have one dtype."
        )
    named = [(path, torch.as_tensor(leaf).dtype) for path, leaf in leaves_with_path(tree)]
    if not named:
        return torch.get_default_dtype()
    (first, chosen), *rest = named
    for path, own in rest:
        if mixed_dtype_handler is None and own != chosen:
            raise ValueError(
                f"dtype found {chosen} at {first!r} and {own} at {path!r}: write mixed_dtype_handler='promote' for the "
                "dtype that holds both, or 'highest' or 'lowest' for one of them."
            )
        common = torch.promote_types(chosen, own)
        if mixed_dtype_handler in ("highest", "lowest") and common not in (chosen, own):
            raise ValueError(
                f"dtype cannot tell which is {mixed_dtype_handler}: {own} at {path!r} and {chosen} hold one another's "
                f"values neither way. Write mixed_dtype_handler='promote' for {common}, which holds both."
            )
        if mixed_dtype_handler != "lowest":
            chosen = common
        elif common == chosen:
            chosen = own
    return chosen


def _wide(tree: PyTree) -> PyTree:
    """The tree with what is of less than float32 in float32: sums of many halves are no halves."""
    return map(
        lambda x: x.to(wide(x.dtype)) if x.is_floating_point() or x.is_complex() else x, map(torch.as_tensor, tree)
    )
