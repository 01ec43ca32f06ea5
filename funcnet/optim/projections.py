"""The nearest tree in a set: Euclidean projections.

All leaves count as one vector. Each is the solution of $\\min_p |x - p|^2$ over the set, keeps structure, shapes and
dtypes, and may follow `apply_updates` for projected gradient descent. `TreeMismatchError` where two trees differ.
"""

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from ..losses.simplex import unit_simplex
from ..tree import PyTree, flatten, leaves, map, ravel, unflatten
from ..tree.mismatch import match
from .arguments import check_floating
from .leafwise import wide
from .values import Scalar, scalar

__all__ = [
    "projection_box",
    "projection_halfspace",
    "projection_hypercube",
    "projection_hyperplane",
    "projection_l1_ball",
    "projection_l1_sphere",
    "projection_l2_ball",
    "projection_l2_sphere",
    "projection_linf_ball",
    "projection_non_negative",
    "projection_simplex",
    "projection_vector",
]


def projection_non_negative(tree: PyTree) -> PyTree:
    r"""On what is nowhere negative, $\max(0, x)$.

    >>> projection_non_negative({"w": torch.tensor([-1.0, 2.0])})
    {'w': tensor([0., 2.])}
    """
    return map(torch.relu, tree)


def projection_box(tree: PyTree, lower: PyTree, upper: PyTree) -> PyTree:
    r"""On what lies between bounds, $\min(u, \max(l, x))$.

    Bounds are numbers, 0-dim tensors, or trees like the first. Raises `ValueError` where a number is above the other.

    >>> projection_box({"w": torch.tensor([-3.0, 0.5])}, -1.0, {"w": torch.tensor([1.0, 0.2])})
    {'w': tensor([-1.0000,  0.2000])}
    """
    if isinstance(lower, int | float) and isinstance(upper, int | float) and lower > upper:
        raise ValueError(f"projection_box got lower={lower} and upper={upper}: nothing lies between.")
    values, treedef = flatten(tree)
    for value in values:
        if not isinstance(value, Tensor) or value.is_complex():
            kind = value.dtype if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise TypeError(f"projection_box got a leaf that is {kind}, and needs real tensors.")
    below, above = _bound(lower, tree, "lower"), _bound(upper, tree, "upper")
    clamped = [x.clamp(min=low).clamp(max=high) for x, low, high in zip(values, below, above, strict=True)]
    return unflatten(treedef, [new.to(x.dtype) for new, x in zip(clamped, values, strict=True)])


def projection_hypercube(tree: PyTree, scale: PyTree = 1) -> PyTree:
    r"""On the cube $0 \le p \le s$. The scale is a number, a 0-dim tensor, or a tree like the first.

    >>> projection_hypercube(torch.tensor([-1.0, 0.5, 2.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    return projection_box(tree, 0, scale)


def projection_simplex(tree: PyTree, scale: Scalar = 1) -> PyTree:
    r"""On the simplex $p \ge 0$, $\sum p = s$: by default the nearest probabilities (Duchi et al. 2008).

    $p = \max(0, x - \tau)$ with the $\tau$ that gives the sum; its derivative is that of centring on the support.
    Raises `ValueError` where `scale` is a number that is not positive.

    >>> projection_simplex({"w": torch.tensor([2.5, 3.2]), "b": torch.tensor(0.5)})
    {'w': tensor([0.1500, 0.8500]), 'b': tensor(0.)}
    """
    _positive(scale, "projection_simplex")
    check_floating(leaves(tree), tree, "tree")
    if not any(leaf.numel() for leaf in leaves(tree)):
        raise ValueError("projection_simplex got a tree without elements, of which no sum is reached.")
    vector, unravel = ravel(tree)
    high = vector.to(wide(vector.dtype))
    return unravel((scale * unit_simplex(high / scale)).to(vector.dtype))


def projection_l1_sphere(tree: PyTree, scale: Scalar = 1) -> PyTree:
    r"""On the sphere $\sum |p| = s$: the signs of $x$, and $|x|$ on the simplex.

    A zero counts as positive, since every sign is as near (optax's sign of zero is zero, which may leave the sphere).
    Raises `ValueError` where `scale` is a number that is not positive.

    >>> projection_l1_sphere(torch.tensor([-3.0, 0.5]), 2.0)
    tensor([-2.,  0.])
    """
    _positive(scale, "projection_l1_sphere")
    check_floating(leaves(tree), tree, "tree")
    sizes = projection_simplex(map(torch.abs, tree), scale)
    return map(lambda x, p: torch.where(x < 0, -p, p), tree, sizes)


def projection_l1_ball(tree: PyTree, scale: Scalar = 1) -> PyTree:
    r"""On the ball $\sum |p| \le s$: what lies in it stays, the rest goes to the sphere.

    Raises `ValueError` where `scale` is a number that is not positive.

    >>> projection_l1_ball(torch.tensor([-3.0, 2.5])), projection_l1_ball(torch.tensor([0.1, 0.2]))
    (tensor([-0.7500,  0.2500]), tensor([0.1000, 0.2000]))
    """
    _positive(scale, "projection_l1_ball")
    check_floating(leaves(tree), tree, "tree")
    inside = _total([leaf.to(wide(leaf.dtype)).abs().sum() for leaf in leaves(tree)]) <= scale
    return map(lambda x, p: torch.where(inside, x, p), tree, projection_l1_sphere(tree, scale))


def projection_l2_sphere(tree: PyTree, scale: Scalar = 1) -> PyTree:
    r"""On the sphere $|p| = s$, $x s / |x|$; a tree of zeros, from which all points are as far, gives NaN.

    Raises `ValueError` where `scale` is a number that is not positive.

    >>> projection_l2_sphere(torch.tensor([3.0, 4.0]), 10.0)
    tensor([6., 8.])
    """
    _positive(scale, "projection_l2_sphere")
    return _times(tree, scale / _dot(tree, tree).sqrt())


def projection_l2_ball(tree: PyTree, scale: Scalar = 1) -> PyTree:
    r"""On the ball $|p| \le s$, $x s / \max(s, |x|)$.

    Raises `ValueError` where `scale` is a number that is not positive.

    >>> projection_l2_ball(torch.tensor([3.0, 4.0])), projection_l2_ball(torch.tensor([0.3, 0.4]))
    (tensor([0.6000, 0.8000]), tensor([0.3000, 0.4000]))
    """
    _positive(scale, "projection_l2_ball")
    return _times(tree, scale / _dot(tree, tree).clamp(min=scale**2).sqrt())


def projection_linf_ball(tree: PyTree, scale: Scalar = 1) -> PyTree:
    r"""On the ball $\max |p| \le s$, which is a box.

    Raises `ValueError` where `scale` is a number that is not positive.

    >>> projection_linf_ball(torch.tensor([-3.0, 0.5]))
    tensor([-1.0000,  0.5000])
    """
    _positive(scale, "projection_linf_ball")
    return projection_box(tree, -scale, scale)


def projection_vector(x: PyTree, a: PyTree) -> PyTree:
    r"""On the line through a vector, $a \langle x, a \rangle / \langle a, a \rangle$.

    >>> projection_vector(torch.tensor([3.0, 4.0]), torch.tensor([2.0, 0.0]))
    tensor([3., 0.])
    """
    return _times(a, _dot(x, a) / _dot(a, a))


def projection_hyperplane(x: PyTree, a: PyTree, b: Scalar) -> PyTree:
    r"""On the plane $\langle a, p \rangle = b$: $x + a (b - \langle x, a \rangle) / \langle a, a \rangle$.

    >>> projection_hyperplane(torch.tensor([3.0, 4.0]), torch.tensor([2.0, 0.0]), 1.0)
    tensor([0.5000, 4.0000])
    """
    return _moved(x, a, (scalar(b, "b") - _dot(x, a)) / _dot(a, a))


def projection_halfspace(x: PyTree, a: PyTree, b: Scalar) -> PyTree:
    r"""On the half space $\langle a, p \rangle \le b$: what lies in it stays, the rest goes to the plane.

    >>> projection_halfspace(torch.tensor([3.0, 4.0]), torch.tensor([2.0, 0.0]), 7.0)
    tensor([3., 4.])
    """
    return _moved(x, a, ((scalar(b, "b") - _dot(x, a)) / _dot(a, a)).clamp(max=0))


def _bound(bound: PyTree, tree: PyTree, name: str) -> list[Any]:
    if isinstance(bound, int | float) or (isinstance(bound, Tensor) and bound.ndim == 0):
        return [bound] * len(leaves(tree))
    return match(bound, tree, name, "tree")


def _positive(scale: Scalar, rule: str) -> None:
    if not isinstance(scalar(scale, "scale"), Tensor) and not scale > 0:
        raise ValueError(f"{rule} got scale={scale}, and needs more than 0: the size of the set.")


def _total(values: list[Tensor]) -> Tensor:
    return reduce(torch.add, values)


def _dot(x: PyTree, y: PyTree) -> Tensor:
    check_floating(leaves(x), x, "x")
    pairs = zip(leaves(x), match(y, x, "a", "x"), strict=True)
    return _total([(a.to(wide(a.dtype)) * b.to(wide(b.dtype))).sum() for a, b in pairs])


def _times(tree: PyTree, factor: Tensor) -> PyTree:
    return map(lambda x: (x * factor).to(x.dtype), tree)


def _moved(x: PyTree, a: PyTree, factor: Tensor) -> PyTree:
    return map(lambda x, a: (x + factor * a).to(x.dtype), x, a)
