"""Functions of every leaf: map, stack, cast, zeros."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .mismatch import TreeMismatchError, check_like, match
from .structure import PyTree, flatten, leaves, leaves_with_path, unflatten

__all__ = ["cast", "map", "nbytes", "ones_like", "size", "stack", "to", "unstack", "zeros_like"]


def map(f: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:
    """Apply `f` to every leaf, or to the leaves of several trees that lie at the same place.

    The result has the structure (and dict order) of the first tree. Raises `TreeMismatchError` where the structures
    differ; the leaves may differ in shape, so `f` decides what fits.

    >>> map(lambda p, g: p - g, {"w": 3.0, "b": None}, {"b": None, "w": 1.0})
    {'w': 2.0, 'b': None}
    """
    first, treedef = flatten(tree)
    columns = [first]
    for i, other in enumerate(rest, start=2):
        columns.append(match(other, tree, f"tree {i} of map", "tree 1", shape=False))
    return unflatten(treedef, [f(*values) for values in zip(*columns, strict=True)])


def stack(trees: Sequence[PyTree]) -> PyTree:
    """Join n trees of one structure and one set of shapes into one, whose leaves have a leading axis of n.

    Raises `TreeMismatchError` where a tree differs from the first, `ValueError` where there is none.

    >>> stack([{"w": torch.zeros(3)}, {"w": torch.ones(3)}])["w"].shape
    torch.Size([2, 3])
    """
    trees = list(trees)
    if not trees:
        raise ValueError("stack got no trees: it needs at least one to know the structure.")
    for i, other in enumerate(trees[1:], start=1):
        check_like(other, trees[0], f"trees[{i}]", "trees[0]", dtype=True)
    return map(lambda *values: torch.stack([torch.as_tensor(v) for v in values]), *trees)


def unstack(tree: PyTree) -> list[PyTree]:
    """Take a tree apart along the leading axis of its leaves: the inverse of `stack`. Leaves are views.

    Raises `TreeMismatchError` where the leading axes differ, naming the first leaf that does.

    >>> [member["w"].item() for member in unstack({"w": torch.tensor([1, 2])})]
    [1, 2]
    """
    named = leaves_with_path(tree)
    if not named:
        raise ValueError("unstack got a tree without leaves, which does not tell how many trees it holds.")
    first, leaf = named[0]
    length = leaf.shape[0] if leaf.ndim else None
    for path, value in named:
        if value.ndim == 0 or value.shape[0] != length:
            raise TreeMismatchError(
                f"unstack needs one leading axis in every leaf: {path!r} has shape {tuple(value.shape)} and {first!r} "
                f"{tuple(leaf.shape)}. Stack trees with tree.stack([...]), which gives them one."
            )
    values, treedef = flatten(tree)
    return [unflatten(treedef, member) for member in zip(*[v.unbind(0) for v in values], strict=True)]


def cast(tree: PyTree, dtype: torch.dtype) -> PyTree:
    """Give floating and complex leaves the dtype, and leave integers, booleans and everything else as they are.

    A complex leaf becomes the complex dtype of the same precision as `dtype`.

    >>> cast({"w": torch.ones(2), "step": torch.tensor(3)}, torch.bfloat16)
    {'w': tensor([1., 1.], dtype=torch.bfloat16), 'step': tensor(3)}
    """

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if leaf.is_complex():
            return leaf.to(dtype.to_complex())
        return leaf.to(dtype) if leaf.is_floating_point() else leaf

    return map(one, tree)


def to(tree: PyTree, device: torch.device | str) -> PyTree:
    """Move every tensor to a device.

    >>> to({"w": torch.ones(2)}, "meta")["w"].device
    device(type='meta')
    """
    return map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, tree)


def zeros_like(tree: PyTree, dtype: torch.dtype | None = None) -> PyTree:
    """Zeros of every leaf's shape, device and dtype (or the given dtype).

    >>> zeros_like({"w": torch.ones(2)})
    {'w': tensor([0., 0.])}
    """
    return map(lambda leaf: torch.zeros_like(torch.as_tensor(leaf), dtype=dtype), tree)


def ones_like(tree: PyTree, dtype: torch.dtype | None = None) -> PyTree:
    """Ones of every leaf's shape, device and dtype (or the given dtype).

    >>> ones_like({"w": torch.zeros(2)})
    {'w': tensor([1., 1.])}
    """
    return map(lambda leaf: torch.ones_like(torch.as_tensor(leaf), dtype=dtype), tree)


def size(tree: PyTree) -> int:
    """The number of elements in all leaves together; a Python number counts one.

    >>> size({"w": torch.ones(2, 3), "b": torch.ones(2)})
    8
    """
    return sum(leaf.numel() if isinstance(leaf, Tensor) else 1 for leaf in leaves(tree))


def nbytes(tree: PyTree) -> int:
    """The number of bytes that the elements of all tensors take.

    >>> nbytes({"w": torch.ones(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)})
    28
    """
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves(tree) if isinstance(leaf, Tensor))
