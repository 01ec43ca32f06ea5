"""Tensors as matrices, for rules that are made for these."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from ...tree import PyTree
from ..wrappers.masking import spread

__all__ = ["Layout", "dimension_numbers"]


class Layout(NamedTuple):
    """Which axes of a tensor are the rows and the columns of its matrices; any others count these."""

    batch: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, shape: Sequence[int], numbers: tuple[Sequence[int] | int, Sequence[int] | int], rule: str) -> "Layout":
        """That of a shape whose axes are named by `(reduction_axis, output_axis)`; `ValueError` where they overlap."""
        rank = len(shape)
        if rank < 2:
            raise ValueError(
                f"{rule} works on matrices, and got a leaf of shape {tuple(shape)}: give it two axes or more."
            )
        rows, columns = (
            tuple(axis % rank for axis in ((axes,) if isinstance(axes, int) else axes)) for axes in numbers
        )
        for axis in [axis for axes in numbers for axis in ((axes,) if isinstance(axes, int) else axes)]:
            if not -rank <= axis < rank:
                raise ValueError(f"{rule} got the axis {axis} for a leaf of shape {tuple(shape)}, which has none such.")
        if set(rows) & set(columns):
            raise ValueError(
                f"{rule} got the reduction axes {rows} and the output axes {columns} for a leaf of shape "
                f"{tuple(shape)}, and no axis may be both: write reduction_axis=0, output_axis=(1, 2)."
            )
        rest = tuple(axis for axis in range(rank) if axis not in (*rows, *columns))
        return cls(rest, rows, columns, tuple(shape))

    @property
    def fans(self) -> tuple[int, int]:
        """The number of rows and of columns."""
        return math.prod(self.shape[i] for i in self.rows), math.prod(self.shape[i] for i in self.columns)

    def matrices(self, leaf: Tensor) -> Tensor:
        """The tensor as `(*batch, rows, columns)`."""
        axes = (*self.batch, *self.rows, *self.columns)
        return leaf.permute(axes).reshape(*(self.shape[i] for i in self.batch), *self.fans)

    def leaf(self, matrices: Tensor) -> Tensor:
        """The tensor that `matrices` took apart."""
        axes = (*self.batch, *self.rows, *self.columns)
        return matrices.reshape([self.shape[i] for i in axes]).permute([axes.index(i) for i in range(len(axes))])


def dimension_numbers(given: PyTree | Callable[[PyTree], PyTree], tree: PyTree, kind: type) -> list[Any]:
    """Those of every leaf of a tree, or None, from a tree of them (or a prefix of it) or a function that makes one."""
    return spread(given, tree, kind | None, "tree of dimension numbers")
