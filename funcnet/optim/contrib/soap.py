"""SOAP: Adam in the eigenbases of Shampoo's preconditioner."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...control import cond
from ...transforms import stop_gradient
from ...tree import PyTree, flatten, leaves, map, structure, unflatten
from ...tree.mismatch import match
from ..arguments import stateful, whole
from ..base import GradientTransformation, chain
from ..leafwise import abs_sq, moment_zeros, root, square_zeros, wide
from ..placing import placed
from ..scaling import scale_by_learning_rate
from ..values import Scalar, ScalarOrSchedule, correction, decay_rate, increment, precise, scalar, zero_count
from ..weights import add_decayed_weights

__all__ = ["ScaleBySoapState", "scale_by_soap", "soap"]


class ScaleBySoapState(NamedTuple):
    """The step count, Adam's means, and for each axis of a matrix the second moment and its eigenvectors."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""
    mu: PyTree
    nu: PyTree
    """in the eigenbases; like the parameters, real for complex ones"""
    covariances: PyTree
    """for each parameter a tuple of (n, n), one for each axis that has a basis"""
    bases: PyTree
    """like `covariances`"""


def scale_by_soap(
    b1: Scalar = 0.95,
    b2: Scalar = 0.95,
    shampoo_beta: Scalar | None = None,
    eps: Scalar = 1e-8,
    precondition_frequency: int | Tensor = 10,
    max_precond_dim: int = 10000,
    precondition_1d: bool = False,
) -> GradientTransformation:
    r"""Adam in slowly turning eigenbases (Vyas et al., arXiv:2409.11321).

    For a matrix, with orthogonal $Q_L$ and $Q_R$ and $g' = Q_L^\top g Q_R$, $\mu' = Q_L^\top \mu Q_R$,

    $$\mu_t = \beta_1 \mu_{t-1} + (1 - \beta_1) g_t, \quad \nu_t = \beta_2 \nu_{t-1} + (1 - \beta_2) |g'_t|^2, \quad
    u_t = Q_L \frac{\mu'_t / (1 - \beta_1^t)}{\sqrt{\nu_t / (1 - \beta_2^t)} + \varepsilon} Q_R^\top$$

    and after it $L_t = \beta_s L_{t-1} + (1 - \beta_s) g_t g_t^\top$, $R_t$ likewise of $g_t^\top g_t$. The first
    update is zero: it sets $L$ and $R$ and takes their eigenvectors for bases. Every `precondition_frequency` updates
    the bases make one step of the power method, $Q_L \leftarrow \mathrm{qr}(L Q_L)$, their columns and $\nu$ sorted by
    the eigenvalues. Tensors of more axes have a basis for each. As in the authors' code eps stands outside the root;
    the mean is kept in the original axes, so that it survives their turning.

    Derivatives take the bases for constants: eigenvectors of a gradient of low rank have none.

    Args:
        b1: the decay of the mean.
        b2: that of the squares.
        shampoo_beta: that of the covariances, by default `b2`.
        eps: added to the root.
        precondition_frequency: how often the bases turn.
        max_precond_dim: longer axes keep their own basis.
        precondition_1d: whether vectors have a basis; else they get plain Adam.

    >>> rule = scale_by_soap()
    >>> params = {"w": torch.zeros(2, 2, dtype=torch.float64)}
    >>> gradient = {"w": torch.tensor([[3.0, 4.0], [0.0, 1.0]], dtype=torch.float64)}
    >>> _, state = rule.update(gradient, rule.init(params), params)
    >>> rule.update(gradient, state, params)[0]["w"]
    tensor([[ 0.7071,  0.7071],
            [-0.7071,  0.7071]], dtype=torch.float64)
    """
    decay_rate(b1, "b1"), decay_rate(b2, "b2"), scalar(eps, "eps")
    whole(precondition_frequency, "precondition_frequency"), whole(max_precond_dim, "max_precond_dim", "elements", 0)
    b3 = b2 if shampoo_beta is None else decay_rate(shampoo_beta, "shampoo_beta")

    def axes(leaf: Tensor) -> list[int]:
        if leaf.ndim < 2 and not precondition_1d:
            return []
        return [axis for axis, size in enumerate(leaf.shape) if 0 < size <= max_precond_dim]

    def init(params: PyTree) -> ScaleBySoapState:
        def squares(leaf: Tensor) -> tuple[Tensor, ...]:
            return tuple(leaf.new_zeros(leaf.shape[i], leaf.shape[i], dtype=wide(leaf.dtype)) for i in axes(leaf))

        return ScaleBySoapState(
            count=zero_count(params),
            mu=moment_zeros(params),
            nu=square_zeros(params),
            covariances=map(squares, params),
            bases=map(squares, params),
        )

    def update(
        updates: PyTree, state: ScaleBySoapState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleBySoapState]:
        dtype, treedef = precise(state.nu), structure(state.mu)
        started = (state.count > 0).to(dtype)
        steps = state.count.clamp(min=1)  # the first update, which is zero, does not count
        first, second = correction(b1, steps, dtype), correction(b2, steps, dtype)
        given = placed(match(updates, state.mu, "updates", "state.mu"), leaves(state.mu))
        sizes = [axes(leaf) for leaf in given]
        bases = _split(flatten(state.bases)[0], sizes)

        moved, mu, nu, covariances = [], [], [], []
        old = _split(flatten(state.covariances)[0], sizes)
        columns = given, flatten(state.mu)[0], flatten(state.nu)[0], old, bases
        for leaf, m, v, sides, turns in zip(*columns, strict=True):
            g = leaf.to(wide(leaf.dtype))
            m = (b1 * m + (1 - b1) * started * g).to(m.dtype)
            v = (b2 * v + (1 - b2) * started * abs_sq(_turned(g, turns))).to(v.dtype)
            step = _turned(m / first, turns) / (root(v / second) + eps)
            moved.append(_turned(step, turns, back=True).to(leaf.dtype))
            mu.append(m)
            nu.append(v)
            covariances.append({i: (b3 * c + (1 - b3) * _covariance(g, i)).to(c.dtype) for i, c in sides.items()})

        due = state.count % precondition_frequency == 0
        bases = cond(state.count == 0, _eigenvectors, _kept, covariances, bases)
        bases, nu = cond(due & (state.count > 0), _power_step, _unturned, covariances, bases, nu)
        return unflatten(treedef, moved), ScaleBySoapState(
            count=increment(state.count),
            mu=unflatten(treedef, mu),
            nu=unflatten(treedef, nu),
            covariances=unflatten(treedef, [tuple(sides.values()) for sides in covariances]),
            bases=unflatten(treedef, [tuple(turns.values()) for turns in bases]),
        )

    return stateful(ScaleBySoapState, init, update)


_Sides = dict[int, Tensor]
"""A matrix for each axis of a leaf that has a basis"""


def _split(matrices: list[Tensor], axes: list[list[int]]) -> list[_Sides]:
    rest = iter(matrices)
    return [{axis: next(rest) for axis in own} for own in axes]


def _turned(leaf: Tensor, bases: _Sides, back: bool = False) -> Tensor:
    """A leaf in the bases of its axes, or from them."""
    for axis, basis in bases.items():
        matrix = basis if back else torch.conj(basis).mT
        leaf = torch.movedim(torch.tensordot(matrix, leaf, ([1], [axis])), 0, axis)
    return leaf


def _covariance(leaf: Tensor, axis: int) -> Tensor:
    rows = torch.movedim(leaf, axis, 0).flatten(1) if leaf.ndim > 1 else leaf.unsqueeze(1)
    return rows @ rows.mH


def _eigenvectors(covariances: list[_Sides], bases: list[_Sides]) -> PyTree:
    """The eigenvectors, the largest eigenvalue first."""
    return map(lambda c: torch.linalg.eigh(-stop_gradient(c))[1], covariances)


def _kept(covariances: list[_Sides], bases: list[_Sides]) -> PyTree:
    return map(torch.clone, bases)


def _unturned(covariances: list[_Sides], bases: list[_Sides], nu: list[Tensor]) -> PyTree:
    return map(torch.clone, (bases, nu))


def _power_step(covariances: list[_Sides], bases: list[_Sides], nu: list[Tensor]) -> tuple[list[_Sides], list[Tensor]]:
    """One step of the power method, after sorting by the eigenvalues that the old bases estimate."""
    new, sorted_nu = [], []
    for sides, turns, v in zip(covariances, bases, nu, strict=True):
        fresh = {}
        for axis, covariance in sides.items():
            constant, basis = stop_gradient(covariance), turns[axis]
            estimates = torch.real((torch.conj(basis) * (constant @ basis)).sum(0))
            order = torch.argsort(estimates, descending=True)
            shape = [-1 if i == axis else 1 for i in range(v.ndim)]
            v = torch.take_along_dim(v, order.view(shape), axis)
            fresh[axis] = torch.linalg.qr(constant @ basis[:, order])[0]
        new.append(fresh)
        sorted_nu.append(v.clone())
    return new, sorted_nu


def soap(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.95,
    b2: Scalar = 0.95,
    shampoo_beta: Scalar | None = None,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.01,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
    precondition_frequency: int | Tensor = 10,
    max_precond_dim: int = 10000,
    precondition_1d: bool = False,
) -> GradientTransformation:
    r"""SOAP, $u = -\eta (\mathrm{soap}(g) + \lambda \theta)$ (Vyas et al., arXiv:2409.11321).

    `scale_by_soap` tells the arguments, `add_decayed_weights` `weight_decay` and `mask`. Defaults are the authors',
    whose learning rate is 3e-3.

    >>> optimizer = soap(0.1, weight_decay=0.0)
    >>> params = {"w": torch.zeros(2, 2, dtype=torch.float64)}
    >>> gradient = {"w": torch.tensor([[3.0, 4.0], [0.0, 1.0]], dtype=torch.float64)}
    >>> updates, state = optimizer.update(gradient, optimizer.init(params), params)
    >>> torch.linalg.svdvals(optimizer.update(gradient, state, params)[0]["w"])
    tensor([0.1000, 0.1000], dtype=torch.float64)
    """
    rule = scale_by_soap(b1, b2, shampoo_beta, eps, precondition_frequency, max_precond_dim, precondition_1d)
    return chain(rule, add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate))
