"""Products with curvature matrices and their diagonals, of losses `loss(params, inputs, targets)`.

Optax has announced the end of its own; the names and arguments here are those. A vector is a tree like the parameters,
or as in optax a flat tensor in the order of `tree.ravel`.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..transforms import grad, jvp, vjp, vmap
from ..transforms import hvp as hessian_product
from ..tree import PyTree, ravel
from ..tree.mismatch import check_like

__all__ = ["fisher_diag", "ggn", "hessian_diag", "hvp"]

LossFn: TypeAlias = Callable[[PyTree, Any, Any], Tensor]
"""From parameters, inputs and targets to one number."""


def hvp(loss: LossFn, v: PyTree, params: PyTree, inputs: Any, targets: Any) -> PyTree:
    r"""The Hessian of a loss times a vector, $\nabla^2 L\, v$, without the matrix (Pearlmutter 1994).

    Returns a tree like `params`. Raises `TreeMismatchError` where `v` is neither that nor a vector of its size.

    >>> loss = lambda w, x, y: ((x @ w - y) ** 2).sum()
    >>> x = torch.tensor([[1.0, 2.0]])
    >>> hvp(loss, torch.tensor([1.0, 0.0]), torch.zeros(2), x, torch.zeros(1))
    tensor([2., 4.])
    """
    return hessian_product(lambda p: loss(p, inputs, targets), (params,), (_like(v, params),))


def ggn(
    model: Callable[[PyTree, Any], PyTree],
    loss: Callable[[PyTree, Any], Tensor],
    v: PyTree,
    params: PyTree,
    inputs: Any,
    targets: Any,
) -> PyTree:
    r"""The Gauss-Newton matrix times a vector, $J^\top H J v$ (Schraudolph 2002; Martens, arXiv:1412.1193).

    $J$ is the Jacobian of `model(params, inputs)` and $H$ the Hessian of `loss(predictions, targets)` in the
    predictions. Where $H$ is positive, so is the product, unlike the Hessian's; for cross entropies it is the Fisher
    matrix's. Optax has none. Returns a tree like `params`; errors as in `hvp`.

    >>> x = torch.tensor([[1.0, 2.0]])
    >>> ggn(lambda w, x: x @ w, lambda p, y: ((p - y) ** 2).sum(), torch.tensor([1.0, 0.0]), torch.zeros(2), x, 0.0)
    tensor([2., 4.])
    """
    direction = _like(v, params)
    predictions, moved = jvp(lambda p: model(p, inputs), (params,), (direction,))
    curved = hessian_product(lambda out: loss(out, targets), (predictions,), (moved,))
    _, pullback = vjp(lambda p: model(p, inputs), params)
    return pullback(curved)[0]


def hessian_diag(loss: LossFn, params: PyTree, inputs: Any, targets: Any) -> Tensor:
    r"""The diagonal of the Hessian of a loss, $\partial^2 L / \partial \theta_i^2$: a vector in the order of `ravel`.

    Exact, by a product with every unit vector at once: it takes the memory of the whole matrix.

    >>> loss = lambda w, x, y: ((x @ w - y) ** 2).sum()
    >>> hessian_diag(loss, torch.zeros(2), torch.tensor([[1.0, 2.0]]), torch.zeros(1))
    tensor([2., 8.])
    """
    vector, unravel = ravel(params)

    def element(unit: Tensor) -> Tensor:
        return ravel(hvp(loss, unravel(unit), params, inputs, targets))[0] @ unit

    return vmap(element)(torch.eye(len(vector), dtype=vector.dtype, device=vector.device))  # type: ignore[no-any-return]


def fisher_diag(negative_log_likelihood: LossFn, params: PyTree, inputs: Any, targets: Any) -> Tensor:
    r"""The squares of the gradient, $(\partial L / \partial \theta_i)^2$: a vector in the order of `ravel`.

    That is the diagonal of the observed Fisher matrix for one example. For several, take the mean over a vmap: the
    square of a mean is not the mean of squares.

    >>> loss = lambda w, x, y: ((x @ w - y) ** 2).sum()
    >>> fisher_diag(loss, torch.ones(2), torch.tensor([[1.0, 2.0]]), torch.zeros(1))
    tensor([ 36., 144.])
    """
    return ravel(grad(negative_log_likelihood)(params, inputs, targets))[0].square()


def _like(v: PyTree, params: PyTree) -> PyTree:
    vector, unravel = ravel(params)
    if isinstance(v, Tensor) and v.shape == vector.shape:
        return unravel(v)
    check_like(v, params, "v", "params")
    return v
