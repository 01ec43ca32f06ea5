"""The largest eigenvalue, the inverse root of a matrix, nonnegative least squares."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .. import control, random
from ..tree import PyTree, global_norm, leaves, map
from .arguments import check_floating, function, whole
from .values import Scalar

__all__ = ["matrix_inverse_pth_root", "nnls", "power_iteration"]


class _Guess(NamedTuple):
    vector: PyTree
    product: PyTree
    value: Tensor
    turn: Tensor


def power_iteration(
    matrix: Tensor | Callable[[PyTree], PyTree],
    *,
    v0: PyTree = None,
    num_iters: int = 100,
    error_tolerance: Scalar = 1e-6,
    key: Tensor | None = None,
) -> tuple[Tensor, PyTree]:
    r"""The eigenvalue of the largest absolute value, and its eigenvector, by multiplying again and again.

    `v \leftarrow A v / \lVert A v \rVert` until $\lVert A v - \lambda v \rVert < \varepsilon |\lambda|$ with
    $\lambda = v^\top A v$, or for `num_iters` turns. Optax's `precision` is jax's; torch has
    `torch.set_float32_matmul_precision`.

    Args:
        matrix: square, or the function $v \mapsto A v$ of a tree.
        v0: the first guess, a vector or tree; needed for a function. Drawn by default, uniform in [-1, 1).
        num_iters: the most turns.
        error_tolerance: of the eigenvalue, relative.
        key: to draw `v0` with; `random.key(0)` by default.

    Returns:
        The eigenvalue, and the eigenvector of length 1.

    Raises:
        ValueError: a function without `v0`, or a matrix that is not square.

    >>> value, vector = power_iteration(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    >>> value, vector.abs()[0]
    (tensor(2.), tensor(1.))
    """
    whole(num_iters, "num_iters", "turns", 0)
    if isinstance(matrix, Tensor):
        _square(matrix, "power_iteration")
        known = matrix

        def multiply(v: PyTree) -> PyTree:
            return known @ v

        if v0 is None:
            drawing = random.key(0, device=matrix.device) if key is None else key
            v0 = random.uniform(drawing, matrix.shape[-1:], matrix.dtype, -1.0, 1.0)
    else:
        function(matrix, "matrix", "a square tensor, or lambda v: A @ v")
        multiply = matrix  # type: ignore[assignment]  # which is the same type
        if v0 is None:
            raise ValueError("power_iteration needs v0 where the matrix is a function: a tree that it takes.")

    def going(guess: _Guess) -> Tensor:
        rest = map(lambda z, v: z - guess.value * v, guess.product, guess.vector)
        return ~(torch.abs(global_norm(rest) / guess.value) < error_tolerance) & (guess.turn < num_iters)

    def turned(guess: _Guess) -> _Guess:
        vector = _unit(guess.product)
        product = multiply(vector)
        dots = leaves(map(lambda v, z: torch.sum(v * z), vector, product))
        return _Guess(vector, product, torch.stack(dots).sum(), guess.turn + 1)

    start = _unit(v0)
    product = multiply(start)
    like = leaves(product)[0]
    last = control.while_loop(going, turned, _Guess(start, product, like.new_zeros(()), _zero(like)))
    return last.value, _unit(last.product)


def _unit(v: PyTree) -> PyTree:
    length = global_norm(v)
    return map(lambda leaf: leaf / length, v)


def _zero(like: Tensor) -> Tensor:
    return torch.zeros((), dtype=torch.int32, device=like.device)


def _square(matrix: Tensor, name: str) -> None:
    if not isinstance(matrix, Tensor) or not (matrix.is_floating_point() or matrix.is_complex()):
        kind = matrix.dtype if isinstance(matrix, Tensor) else f"a {type(matrix).__name__}"
        raise TypeError(f"{name} got a matrix that is {kind}, and needs a floating tensor: write matrix.float().")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name} takes one square matrix, and got shape {tuple(matrix.shape)}; write vmap for many.")


class _Root(NamedTuple):
    turn: Tensor
    error_matrix: Tensor
    root: Tensor
    last: Tensor
    error: Tensor
    better: Tensor


def matrix_inverse_pth_root(
    matrix: Tensor,
    p: int,
    num_iters: int = 100,
    ridge_epsilon: Scalar = 1e-6,
    error_tolerance: Scalar = 1e-6,
) -> tuple[Tensor, Tensor]:
    r"""$(A + \varepsilon \lambda_{\max} I)^{-1/p}$ of a symmetric positive semidefinite matrix, and its error.

    A coupled Newton iteration (Higham, Functions of Matrices, eq. 7.18), which stops where the error is below
    `error_tolerance` or grows by a fifth. The error is the largest element of $|X^p A - I|$. Any positive integer `p`
    will do, where Optax knows 1, 2, 4 and 8; Optax's `precision` is jax's. Raises `ValueError` for a matrix that is
    not square, or another `p`.

    >>> matrix_inverse_pth_root(torch.tensor([[4.0, 0.0], [0.0, 16.0]]), 2)[0]
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])
    """
    _square(matrix, "matrix_inverse_pth_root")
    if not isinstance(p, int) or p < 1:
        raise ValueError(f"p is {p!r}, and matrix_inverse_pth_root takes positive integers.")
    largest, _ = power_iteration(matrix)
    ridge = ridge_epsilon * torch.clamp(largest, min=1e-16)
    one = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    damped = matrix + ridge * one
    if len(matrix) == 1:
        return damped ** (-1 / p), matrix.new_zeros(())

    def error(m: Tensor) -> Tensor:
        return torch.amax(torch.abs(m - one))

    def going(state: _Root) -> Tensor:
        return (state.turn < num_iters) & (state.error > error_tolerance) & state.better

    def turned(state: _Root) -> _Root:
        factor = (1 + 1 / p) * one - state.error_matrix / p
        moved = torch.linalg.matrix_power(factor, p) @ state.error_matrix
        new = error(moved)
        # It may grow a little before it falls.
        return _Root(state.turn + 1, moved, state.root @ factor, state.root, new, new < 1.2 * state.error)

    z = (1 + p) / (2 * torch.linalg.matrix_norm(damped))
    start, first = damped * z, one * z ** (1 / p)
    yes = torch.ones((), dtype=torch.bool, device=matrix.device)
    last = control.while_loop(going, turned, _Root(_zero(matrix), start, first, first, error(start), yes))
    return torch.where(last.better, last.root, last.last), last.error


def nnls(A: Tensor, b: Tensor, iters: int, unroll: int | bool = 1, L: Scalar | None = None) -> Tensor:
    r"""Nonnegative least squares, $\min_{x \ge 0} \lVert A x - b \rVert$, by fast projected gradients (Polyak 2015).

    Args:
        A: of shape `(m, n)`.
        b: of shape `(m,)`, or `(m, k)` for k problems.
        iters: how many steps.
        unroll: taken for Optax's sake: it tells jax how to compile the loop.
        L: a bound on the largest eigenvalue of $A^\top A$; by default the smaller of two norms of it.

    Returns: `(n,)` or `(n, k)`.

    Raises: `ValueError` where the shapes do not fit.

    >>> x = nnls(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([5.0, 6.0]), 1000)
    >>> [round(value, 2) for value in x.tolist()]
    [0.0, 1.7]
    """
    check_floating([A, b], {"A": A, "b": b}, "nnls")
    if A.ndim != 2 or b.ndim not in (1, 2) or len(A) != len(b):
        raise ValueError(f"nnls takes A of (m, n) and b of (m,) or (m, k), and got {tuple(A.shape)}, {tuple(b.shape)}.")
    square, target = A.mT @ A, A.mT @ b
    bound = torch.minimum(torch.linalg.matrix_norm(square), torch.linalg.matrix_norm(square, 1)) if L is None else L
    bound = torch.as_tensor(bound, dtype=A.dtype, device=A.device)
    step = 1 / torch.where(bound == 0, 1.0, bound)

    def turned(i: Tensor, state: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        x, ahead, c = state
        after = (1 + torch.sqrt(1 + 4 * c**2)) / 2
        new = torch.clamp(ahead - (square @ ahead - target) * step, min=0)
        return new, new + (c - 1) / after * (new - x), after

    x = torch.zeros_like(target)
    return control.fori_loop(0, iters, turned, (x, x, A.new_zeros(())))[0]
