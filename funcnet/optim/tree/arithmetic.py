"""Trees computed leaf by leaf from trees."""

import operator
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from ...tree import PyTree, map
from ...tree import zeros_like as zeros
from ..leafwise import filled

__all__ = [
    "add",
    "add_scale",
    "batch_shape",
    "cast",
    "cast_like",
    "clip",
    "conj",
    "div",
    "full_like",
    "mul",
    "real",
    "scale",
    "sub",
    "where",
]

Number = complex | Tensor


def add(tree_x: PyTree, tree_y: PyTree, *other_trees: PyTree) -> PyTree:
    """The sum of two or more trees.

    >>> add({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([5.0, 6.0])})
    {'w': tensor([ 9., 12.])}
    """
    return map(lambda *leaves: reduce(operator.add, leaves), tree_x, tree_y, *other_trees)


def sub(tree_x: PyTree, tree_y: PyTree) -> PyTree:
    """The first tree less the second.

    >>> sub({"w": torch.tensor([3.0, 2.0])}, {"w": torch.tensor([1.0, 5.0])})
    {'w': tensor([ 2., -3.])}
    """
    return map(operator.sub, tree_x, tree_y)


def mul(tree_x: PyTree, tree_y: PyTree) -> PyTree:
    """The product of two trees, element by element.

    >>> mul({"w": torch.tensor([3.0, 2.0])}, {"w": torch.tensor([2.0, 5.0])})
    {'w': tensor([ 6., 10.])}
    """
    return map(operator.mul, tree_x, tree_y)


def div(tree_x: PyTree, tree_y: PyTree) -> PyTree:
    """The first tree divided by the second, element by element.

    >>> div({"w": torch.tensor([3.0, 2.0])}, {"w": torch.tensor([2.0, 5.0])})
    {'w': tensor([1.5000, 0.4000])}
    """
    return map(operator.truediv, tree_x, tree_y)


def scale(scalar: Number, tree: PyTree) -> PyTree:
    """Every leaf times one number.

    >>> scale(0.5, {"w": torch.tensor([3.0, 2.0])})
    {'w': tensor([1.5000, 1.0000])}
    """
    return map(lambda x: scalar * x, tree)


def add_scale(tree_x: PyTree, scalar: Number, tree_y: PyTree) -> PyTree:
    """The first tree and a multiple of the second, `tree_x + scalar * tree_y`.

    >>> add_scale({"w": torch.tensor([3.0, 2.0])}, -0.5, {"w": torch.tensor([2.0, 4.0])})
    {'w': tensor([2., 0.])}
    """
    return map(lambda x, y: x + scalar * y, tree_x, tree_y)


def where(condition: bool | Tensor, tree_x: PyTree, tree_y: PyTree) -> PyTree:
    """The first tree where the condition holds, else the second; the condition broadcasts against every leaf.

    >>> where(torch.tensor([True, False]), {"w": torch.ones(2)}, {"w": torch.zeros(2)})
    {'w': tensor([1., 0.])}
    """

    def leaf(x: Any, y: Any) -> Tensor:
        x = torch.as_tensor(x)
        return torch.where(torch.as_tensor(condition, device=x.device).bool(), x, y)

    return map(leaf, tree_x, tree_y)


def clip(tree: PyTree, min_value: float | Tensor | None = None, max_value: float | Tensor | None = None) -> PyTree:
    """Every element no less than `min_value` and no more than `max_value`; None is no bound.

    >>> clip({"w": torch.tensor([-3.0, 0.5, 2.0])}, -1.0, 1.0)
    {'w': tensor([-1.0000,  0.5000,  1.0000])}
    """

    def leaf(x: Any) -> Tensor:
        x = torch.as_tensor(x)
        x = x if min_value is None else torch.clamp(x, min=min_value)
        return x if max_value is None else torch.clamp(x, max=max_value)

    return map(leaf, tree)


def conj(tree: PyTree) -> PyTree:
    """The complex conjugate of every element.

    >>> conj({"w": torch.tensor([1 + 2j])})
    {'w': tensor([1.-2.j])}
    """
    return map(lambda x: torch.conj_physical(torch.as_tensor(x)), tree)  # torch.conj is lazy, which numpy refuses


def real(tree: PyTree) -> PyTree:
    """The real part of every element.

    >>> real({"w": torch.tensor([1 + 2j])})
    {'w': tensor([1.])}
    """
    return map(lambda x: torch.real(torch.as_tensor(x)), tree)


def full_like(tree: PyTree, fill_value: float | Tensor, dtype: torch.dtype | None = None) -> PyTree:
    """One value in every element, in the shapes, devices and dtypes of a tree (or the given dtype).

    >>> full_like({"w": torch.zeros(2)}, 3)
    {'w': tensor([3., 3.])}
    """
    return filled(zeros(tree, dtype), fill_value)


def batch_shape(tree: PyTree, shape: tuple[int, ...] = ()) -> PyTree:
    """Repeat every leaf along new leading axes, without copies: `(*leaf.shape)` becomes `(*shape, *leaf.shape)`.

    >>> batch_shape({"w": torch.zeros(2)}, (5, 3))["w"].shape
    torch.Size([5, 3, 2])
    """

    def leaf(x: Any) -> Tensor:
        x = torch.as_tensor(x)
        return torch.broadcast_to(x, (*shape, *x.shape))

    return map(leaf, tree)


def cast(tree: PyTree, dtype: torch.dtype | None) -> PyTree:
    """Give every leaf a dtype, integers included; None leaves the tree as it is. `funcnet.tree.cast` keeps integers.

    >>> cast({"w": torch.ones(1), "step": torch.tensor(3)}, torch.bfloat16)
    {'w': tensor([1.], dtype=torch.bfloat16), 'step': tensor(3., dtype=torch.bfloat16)}
    """
    return tree if dtype is None else map(lambda x: torch.as_tensor(x).to(dtype), tree)


def cast_like(tree: PyTree, other_tree: PyTree) -> PyTree:
    """Give every leaf the dtype of another tree's leaf; a Python number there leaves it as it is.

    >>> cast_like({"w": torch.ones(1)}, {"w": torch.zeros(3, dtype=torch.bfloat16)})
    {'w': tensor([1.], dtype=torch.bfloat16)}
    """
    return map(lambda x, y: torch.as_tensor(x).to(y.dtype) if isinstance(y, Tensor) else x, tree, other_tree)
