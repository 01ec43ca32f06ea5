"""Draws that are arrays: permutations, choices, matrices and vectors."""

import math

import torch
from torch import Tensor

from funcnet.random.arguments import Shape, broadcast, floating, parameters, sized
from funcnet.random.continuous import draw_gumbel, draw_normal
from funcnet.random.discrete import draw_integers
from funcnet.random.keys import as_key, split_words
from funcnet.random.uniform import draw_bits, draw_unit

__all__ = ["choice", "draw_permutation", "multivariate_normal", "orthogonal", "permutation"]


def _shuffle(key: Tensor, x: Tensor, axis: int) -> Tensor:
    """Sort by random words, as often as makes a tie in every round improbable."""
    rounds = math.ceil(3 * math.log(max(1, x.numel())) / math.log(2**32 - 1))
    if not rounds:
        return x.clone()  # one element: no draw gives its argument back, which may be written later
    for _ in range(rounds):
        key, sub = split_words(key, (2,))
        # The upper bit is flipped so that signed order is the order of unsigned words.
        words = draw_bits(sub, tuple(x.shape)) ^ -(2**31)
        order = torch.sort(words, dim=axis, stable=True).indices
        x = torch.gather(x, axis, order)
    return x


def draw_permutation(key: Tensor, n: int) -> Tensor:
    """A permutation of `0 .. n - 1`, int64."""
    return _shuffle(key, torch.arange(n, device=key.device), 0)


def permutation(key: Tensor, x: int | Tensor, axis: int = 0, independent: bool = False) -> Tensor:
    """Shuffle `x` along an axis.

    Args:
      key: int32 `(2,)`.
      x: a tensor, or an integer for `torch.arange(x)`.
      axis: the axis to shuffle along.
      independent: shuffle each vector along the axis by itself, rather than all by one permutation.

    Returns: `x`'s shape and dtype (int64 for an integer, which indexes; jax gives int32).

    Raises: `TypeError` for a scalar that is no integer.

    >>> from funcnet import random
    >>> permutation(random.key(0), 5)
    tensor([0, 1, 4, 3, 2])
    """
    as_key(key, "permutation")
    return _permute(key, x, axis, independent)


def _permute(key: Tensor, x: int | Tensor, axis: int, independent: bool) -> Tensor:
    if isinstance(x, Tensor) and x.dim():
        x = x.to(key.device)
        axis = axis % x.dim()
        if independent or x.dim() == 1:
            return _shuffle(key, x, axis)
        return torch.index_select(x, axis, draw_permutation(key, x.shape[axis]))
    if not isinstance(x, int):
        raise TypeError(f"random.permutation shuffles a tensor or range(n), and got {x!r}. Write an int, or x[None].")
    return draw_permutation(key, x)


def choice(
    key: Tensor,
    a: int | Tensor,
    shape: Shape = (),
    replace: bool = True,
    p: Tensor | None = None,
    axis: int = 0,
    mode: str | None = None,
) -> Tensor:
    """Draw elements of `a`.

    Args:
      key: int32 `(2,)`.
      a: a tensor, or an integer for `torch.arange(a)`.
      shape: the shape of the draws.
      replace: whether an element may be drawn again.
      p: `(n,)`, the probability of each element; None takes them as equal.
      axis: the axis of `a` whose entries are drawn.
      mode: as in `gumbel`; used with `p` and without replacement.

    Returns: `a.shape[:axis] + shape + a.shape[axis + 1:]`; int64 for an integer `a`.

    Raises: `ValueError` for more draws without replacement than elements, for none to draw from, or for a `p` of
    another shape.

    >>> from funcnet import random
    >>> choice(random.key(0), torch.tensor([10, 20, 30]), (4,)).shape
    torch.Size([4])
    """
    as_key(key, "choice")
    sizes = sized("choice", shape)
    draws = math.prod(sizes)
    array = a.to(key.device) if isinstance(a, Tensor) and a.dim() else None
    axis = axis % array.dim() if array is not None else 0
    n = array.shape[axis] if array is not None else int(a)
    if n <= 0 and draws:
        raise ValueError(
            f"random.choice has nothing to draw from: a={a}. Write an integer above 0, or a longer tensor."
        )
    if not replace and draws > n:
        raise ValueError(
            f"random.choice cannot draw {draws} of {n} elements without replacement. "
            "Write replace=True, or a smaller shape."
        )
    if p is None and not replace:
        whole = _permute(key, n if array is None else array, axis, False)
        # A copy, which does not keep the memory of all the others.
        picked = whole if draws == n else whole.narrow(axis, 0, draws).clone()
    else:
        index = _indices(key, n, sizes, replace, p, mode).reshape(-1)
        picked = index if array is None else torch.index_select(array, axis, index)
    if array is None:
        return picked.reshape(sizes)
    return picked.reshape((*array.shape[:axis], *sizes, *array.shape[axis + 1 :]))


def _indices(key: Tensor, n: int, sizes: tuple[int, ...], replace: bool, p: Tensor | None, mode: str | None) -> Tensor:
    if math.prod(sizes) == 0:
        return torch.zeros(sizes, dtype=torch.int64, device=key.device)
    if p is None:
        low, high = parameters(key, torch.int64, 0, n)
        # Of the narrower type where that holds the bound: jax's bits.
        dtype = torch.int32 if n <= 2**31 else torch.int64
        return draw_integers(key, sizes, low, high, dtype).to(torch.int64)
    p = torch.as_tensor(p, device=key.device)
    p = p if p.is_floating_point() else p.to(torch.float32)
    if tuple(p.shape) != (n,):
        raise ValueError(
            f"random.choice got p of shape {tuple(p.shape)} for {n} elements. "
            f"Write one probability for each, shape ({n},)."
        )
    if replace:
        total = torch.cumsum(p, 0)
        return torch.searchsorted(total, total[-1] * (1 - draw_unit(key, sizes, p.dtype)))
    return torch.topk(draw_gumbel(key, (n,), p.dtype, mode) + torch.log(p), math.prod(sizes)).indices


def orthogonal(
    key: Tensor, n: int, shape: Shape = (), dtype: torch.dtype = torch.float32, m: int | None = None
) -> Tensor:
    """Draw matrices with orthonormal rows or columns, uniformly by Haar's measure.

    The Q of a QR decomposition of normal numbers, with the signs of R's diagonal (Mezzadri, "How to generate random
    matrices from the classical compact groups", Notices of the AMS 54, 2007).

    Args:
      key: int32 `(2,)`.
      n, m: the rows and columns; `m` is `n` when left out.
      shape: the batch shape.
      dtype: a floating type; float16 and bfloat16 are decomposed in float32.

    Returns: `(*shape, n, m)`.

    Raises: `TypeError` for a dtype that is not floating.

    >>> from funcnet import random
    >>> q = orthogonal(random.key(0), 3)
    >>> torch.allclose(q @ q.T, torch.eye(3), atol=1e-6)
    True
    """
    as_key(key, "orthogonal")
    batch = sized("orthogonal", shape)
    m = n if m is None else m
    z = draw_normal(key, (*batch, max(n, m), min(n, m)), floating("orthogonal", dtype))
    q, r = torch.linalg.qr(z if dtype == torch.float64 else z.to(torch.float32))
    x = (q * torch.sign(torch.diagonal(r, dim1=-2, dim2=-1))[..., None, :]).to(dtype)
    draw: Tensor = x.mT if n < m else x
    return draw


def multivariate_normal(
    key: Tensor,
    mean: Tensor,
    cov: Tensor,
    shape: Shape | None = None,
    dtype: torch.dtype = torch.float32,
    method: str = "cholesky",
) -> Tensor:
    """Draw normal vectors: `x = mean + L z` with `L L^T = cov` and `z` standard normal.

    Args:
      key: int32 `(2,)`.
      mean: `(..., n)`. Differentiable.
      cov: `(..., n, n)`, symmetric and positive definite. Differentiable.
      shape: the batch shape, to which both batches broadcast; None takes theirs.
      dtype: a floating type.
      method: how `L` is made: "cholesky", or "eigh" or "svd", which also take a singular `cov`.

    Returns: `(*shape, n)`.

    Raises: `ValueError` for another method, or shapes that do not fit.

    >>> from funcnet import random
    >>> multivariate_normal(random.key(0), torch.zeros(2), torch.eye(2), (5,)).shape
    torch.Size([5, 2])
    """
    as_key(key, "multivariate_normal")
    floating("multivariate_normal", dtype)
    if method not in ("cholesky", "eigh", "svd"):
        raise ValueError(f"random.multivariate_normal got method={method!r}. Write 'cholesky', 'eigh' or 'svd'.")
    mean, cov = parameters(key, dtype, mean, cov)
    if mean.dim() < 1 or cov.dim() < 2 or cov.shape[-2:] != (mean.shape[-1],) * 2:
        raise ValueError(
            f"random.multivariate_normal needs mean (..., n) and cov (..., n, n), and got {tuple(mean.shape)} and "
            f"{tuple(cov.shape)}. For a diagonal write torch.diag(variances)."
        )
    batch = broadcast("multivariate_normal", shape, mean[..., 0], cov[..., 0, 0])
    if method == "cholesky":
        factor = torch.linalg.cholesky(cov)
    elif method == "eigh":
        w, v = torch.linalg.eigh(cov)
        # Rounding makes the zeros of a singular matrix -1e-7 as well; the inner `where` keeps the derivative finite.
        none = w <= 0
        factor = v * torch.where(none, 0.0, torch.sqrt(torch.where(none, 1.0, w)))[..., None, :]
    else:
        u, s, _ = torch.linalg.svd(cov)
        factor = u * torch.sqrt(s)[..., None, :]
    z = draw_normal(key, (*batch, mean.shape[-1]), dtype)
    draw: Tensor = mean + (factor @ z[..., None])[..., 0]
    return draw
