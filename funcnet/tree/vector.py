"""A tree as one vector: ravel, and its length."""

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from .structure import PyTree, TreeDef, flatten, leaves, leaves_with_path, unflatten

__all__ = ["Unravel", "global_norm", "ravel"]


@dataclass(frozen=True)
class Unravel:
    """From a vector back to the tree: what `ravel` returns beside the vector. Hashable, and equal for equal layouts.

    Called with a vector of shape `(n,)` it returns the tree, whose leaves are views of the vector where no cast is
    needed. Where all leaves had one dtype, they take the vector's; else each gets its own back, and the vector must
    have the promoted dtype.
    """

    treedef: TreeDef
    shapes: tuple[torch.Size, ...]
    dtypes: tuple[torch.dtype, ...]
    dtype: torch.dtype

    def __call__(self, vector: Tensor) -> PyTree:
        """The tree of a vector of shape `(n,)`; `ValueError` for another shape, `TypeError` for a wrong dtype."""
        sizes = [shape.numel() for shape in self.shapes]
        if vector.shape != (sum(sizes),):
            batched = vector.ndim == 2 and vector.shape[1] == sum(sizes)
            advice = "for a batch of vectors write vmap(unravel)(vectors)" if batched else "it fits only its own tree's"
            raise ValueError(
                f"unravel got a vector of shape {tuple(vector.shape)} for a tree of {sum(sizes)} elements in "
                f"{len(sizes)} leaves: {advice}."
            )
        if any(dtype != self.dtype for dtype in self.dtypes) and vector.dtype != self.dtype:
            raise TypeError(
                f"unravel got {vector.dtype} for a tree of mixed dtypes that ravels to {self.dtype}: "
                f"write unravel(vector.to({self.dtype}))."
            )
        if not sizes:
            return unflatten(self.treedef, [])
        # One split, whose backward is one concatenation; a slice per leaf would fill and add one whole vector each.
        chunks = torch.split_with_sizes(vector, sizes)
        uniform = all(dtype == self.dtype for dtype in self.dtypes)
        shaped = [chunk.view(shape) for chunk, shape in zip(chunks, self.shapes, strict=True)]
        if not uniform:
            shaped = [_narrowed(chunk, dtype) for chunk, dtype in zip(shaped, self.dtypes, strict=True)]
        return unflatten(self.treedef, shaped)


def _narrowed(chunk: Tensor, dtype: torch.dtype) -> Tensor:
    # .real first: torch warns where a cast drops the imaginary part, and here it is zero by construction.
    return (chunk.real if chunk.is_complex() and not dtype.is_complex else chunk).to(dtype)


def ravel(tree: PyTree) -> tuple[Tensor, Unravel]:
    """Lay all leaves end to end in one vector, and return the way back: `(vector, unravel)`.

    The vector has shape `(size(tree),)` and the promoted dtype of the leaves; it shares no memory with them. The order
    is that of `leaves`, dict keys as inserted (jax's `ravel_pytree` sorts them). Both ways are differentiable, and the
    gradient of `f(unravel(vector))` is put together by one concatenation. An empty tree gives an empty vector.

    Raises `TypeError` where integers or booleans lie among floats: they would be rounded and have no gradient.

    >>> vector, unravel = ravel({"w": torch.tensor([[1.0, 2.0]]), "b": torch.tensor(3.0)})
    >>> vector
    tensor([1., 2., 3.])
    >>> unravel(2 * vector)
    {'w': tensor([[2., 4.]]), 'b': tensor(6.)}
    """
    values, treedef = flatten(tree)
    tensors = [torch.as_tensor(value) for value in values]
    shapes, dtypes = tuple(t.shape for t in tensors), tuple(t.dtype for t in tensors)
    dtype = reduce(torch.promote_types, dtypes, dtypes[0]) if dtypes else torch.get_default_dtype()
    if dtype.is_floating_point or dtype.is_complex:
        for (path, _), own in zip(leaves_with_path(tree), dtypes, strict=True):
            if not (own.is_floating_point or own.is_complex):
                raise TypeError(
                    f"ravel cannot lay {path!r}, which is {own}, in one vector with floating leaves: it would be "
                    f"rounded to {dtype} and has no gradient. Split it off first: "
                    f"`counts, rest = tree.split(params, {path!r})`."
                )
    flat = [t.reshape(-1).to(dtype) for t in tensors]
    return torch.cat(flat) if flat else torch.zeros(0, dtype=dtype), Unravel(treedef, shapes, dtypes, dtype)


def global_norm(tree: PyTree) -> Tensor:
    r"""The Euclidean length of all leaves taken as one vector, $\sqrt{\sum_i |x_i|^2}$: a 0-dim tensor.

    Squares of bfloat16 and float16 leaves are summed in float32. The gradient at zero is zero (that of a plain square
    root would be NaN), as are all higher ones. An empty tree has length 0.

    >>> global_norm({"w": torch.tensor([3.0, 0.0]), "b": torch.tensor(4.0)})
    tensor(5.)
    """
    squares = [_sum_of_squares(torch.as_tensor(leaf)) for leaf in leaves(tree)]
    if not squares:
        return torch.zeros(())
    total = reduce(torch.add, squares)
    # Two `where`s: with one, the square root's infinite slope at zero would still be multiplied into the gradient.
    positive = total > 0
    return torch.where(positive, torch.where(positive, total, 1).sqrt(), total)


def _sum_of_squares(leaf: Tensor) -> Tensor:
    if leaf.is_complex():
        leaf = torch.view_as_real(leaf)
    if leaf.dtype not in (torch.float32, torch.float64):
        leaf = leaf.to(torch.float32)
    return leaf.square().sum()
