"""Muon: momentum whose matrices are made orthogonal."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ...tree import PyTree, flatten, unflatten
from ..adam import adamw
from ..arguments import check_floating, stateful, whole
from ..base import GradientTransformation, chain, stateless
from ..leafwise import abs_sq, each, moment_zeros, root, unbiased
from ..scaling import scale_by_learning_rate
from ..values import Scalar, ScalarOrSchedule, decay_rate, device_of, increment, precise, scalar, zero_count
from ..weights import add_decayed_weights
from ..wrappers import partition
from .matrices import Layout, dimension_numbers

__all__ = ["MuonDimensionNumbers", "MuonState", "muon", "scale_by_muon"]

_STANDARD = (3.4445, -4.7750, 2.0315)
_DION = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
_PRESETS: dict[str, Any] = {"standard": _STANDARD, "dion": _DION}

Coefficients = tuple[Scalar, Scalar, Scalar] | tuple[tuple[Scalar, Scalar, Scalar], ...]
Preconditioning = Literal["frobenius", "spectral", "aol", "schatten"]


class MuonDimensionNumbers(NamedTuple):
    """Which axes of a parameter are the inputs and which the outputs of its matrix; those in neither count matrices."""

    reduction_axis: Sequence[int] | int = 0
    output_axis: Sequence[int] | int = 1


Dimensions = MuonDimensionNumbers | PyTree | Callable[[PyTree], PyTree]


class MuonState(NamedTuple):
    """The step count, the mean of the gradients, and the coefficients of the iteration."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""
    mu: PyTree
    ns_coeffs: Tensor
    """(3,), or (steps, 3)"""


def scale_by_muon(
    ns_coeffs: Coefficients = _STANDARD,
    ns_steps: int = 5,
    beta: Scalar = 0.95,
    eps: Scalar = 1e-8,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    weight_dimension_numbers: Dimensions | None = None,
) -> GradientTransformation:
    r"""Replace the mean gradient $M = U S V^\top$ by nearly $U V^\top$ (Jordan, kellerjordan.github.io/posts/muon).

    Newton and Schulz's iteration $X \leftarrow a X + b (X X^\top) X + c (X X^\top)^2 X$ brings the singular values of
    $X = M / (\lVert M \rVert_F + \varepsilon)$ near 1. The mean is Adam's, bias correction and `nesterov` included.

    Args:
        ns_coeffs: $(a, b, c)$, or a row of them for each step.
        ns_steps: how many steps; not used where there are rows.
        beta: the decay of the mean.
        eps: keeps the division by the norm finite.
        mu_dtype: stores the mean in another dtype.
        nesterov: whether the mean looks one step ahead.
        adaptive: multiply by the dual norm, $\langle M, U V^\top \rangle$ (Bernstein and Newhouse, arXiv:2409.20325).
        preconditioning: what $M$ is divided by: its Frobenius norm, its "spectral" norm, the row norms of almost
            orthogonal layers ("aol", arXiv:2512.04632), or its "schatten"-4 norm (arXiv:2506.10935).
        weight_dimension_numbers: a tree of `MuonDimensionNumbers`, one of them for all, or a function from the
            parameters to a tree. Leaves of two axes are their own matrices, whatever is said of them, as in optax.

    Raises:
        ValueError: coefficients of another shape, more rows than `ns_steps`, an unknown preconditioning, or a leaf that
            is no matrix.

    >>> rule = scale_by_muon()
    >>> params = {"w": torch.eye(2)}
    >>> updates, _ = rule.update({"w": torch.tensor([[3.0, 0.0], [0.0, 0.3]])}, rule.init(params), params)
    >>> updates["w"]
    tensor([[0.7020, 0.0000],
            [0.0000, 0.7087]])
    """
    decay_rate(beta, "beta"), scalar(eps, "eps"), whole(ns_steps, "ns_steps", least=0)
    shape = tuple(torch.as_tensor(ns_coeffs).shape)
    if shape[-1:] != (3,) or len(shape) > 2:
        raise ValueError(f"ns_coeffs has shape {shape}, and needs (3,), or (steps, 3).")
    if len(shape) == 2 and shape[0] > ns_steps:
        raise ValueError(f"ns_coeffs has {shape[0]} rows and ns_steps is {ns_steps}: raise it, or give fewer rows.")
    if preconditioning not in ("frobenius", "spectral", "aol", "schatten"):
        raise ValueError(
            f'preconditioning is {preconditioning!r}, and must be "frobenius", "spectral", "aol" or "schatten".'
        )

    def init(params: PyTree) -> MuonState:
        coefficients = torch.as_tensor(ns_coeffs, dtype=precise(params), device=device_of(params)).clone()
        return MuonState(count=zero_count(params), mu=moment_zeros(params, mu_dtype), ns_coeffs=coefficients)

    def update(updates: PyTree, state: MuonState, params: PyTree = None, **extra: Any) -> tuple[PyTree, MuonState]:
        count = increment(state.count)
        mean = unbiased(beta, count, precise(state.mu), nesterov)
        given = MuonDimensionNumbers() if weight_dimension_numbers is None else weight_dimension_numbers
        numbers = iter(dimension_numbers(given, state.mu, MuonDimensionNumbers))  # the leaves come in this order

        def leaf(g: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
            own = next(numbers)
            m = beta * m + (1 - beta) * g
            hat = mean(m, g)
            layout = Layout.of(g.shape, MuonDimensionNumbers() if own is None or g.ndim == 2 else own, "scale_by_muon")
            moved = layout.leaf(_orthogonal(layout.matrices(hat), state.ns_coeffs, ns_steps, preconditioning, eps))
            return torch.sum(torch.conj(hat) * moved) * moved if adaptive else moved, m

        moved, mu = each(leaf, updates, alone=True, mu=state.mu)
        return moved, MuonState(count=count, mu=mu, ns_coeffs=state.ns_coeffs)

    return stateful(MuonState, init, update)


def _orthogonal(x: Tensor, coefficients: Tensor, steps: int, preconditioning: str, eps: Scalar) -> Tensor:
    """Newton and Schulz's iteration on `(..., m, n)`."""
    if not x.numel():
        return x
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    if preconditioning == "frobenius":
        x = x / (root(abs_sq(x).sum((-2, -1), keepdim=True)) + eps)
    if preconditioning == "spectral":
        x = x / (torch.linalg.matrix_norm(x, 2, keepdim=True) + eps)
    rows = coefficients.to(x.dtype)
    for step, (a, b, c) in enumerate(rows if rows.ndim == 2 else rows.expand(steps, 3)):
        square = x @ x.mH
        if step == 0 and preconditioning == "aol":
            scale = torch.rsqrt(torch.clamp(square.abs().sum(-1, keepdim=True), min=eps))
            x, square = x * scale, square * scale * scale.mT
        if step == 0 and preconditioning == "schatten":
            length = root(abs_sq(square).sum((-2, -1), keepdim=True))
            scale = torch.rsqrt(torch.clamp(length, min=eps))
            x, square = x * scale, square * scale**2
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


def _scale_by_shape(given: Dimensions, consistent_rms: Scalar | None) -> GradientTransformation:
    """Make the size of orthogonal updates fit their shapes."""

    def scaled(updates: PyTree, params: PyTree) -> PyTree:
        leaves, treedef = flatten(updates)
        numbers = dimension_numbers(given, updates, MuonDimensionNumbers)
        return unflatten(treedef, [_sized(leaf, own) for leaf, own in zip(leaves, numbers, strict=True)])

    def _sized(leaf: Tensor, own: MuonDimensionNumbers) -> Tensor:
        inputs, outputs = Layout.of(leaf.shape, own, "muon").fans
        if consistent_rms is None:
            return (leaf * math.sqrt(max(1, outputs / max(1, inputs)))).to(leaf.dtype)
        return (leaf * (math.sqrt(max(inputs, outputs)) * consistent_rms)).to(leaf.dtype)

    return stateless(scaled)


def muon(
    learning_rate: ScalarOrSchedule,
    ns_coeffs: Coefficients | str = _STANDARD,
    ns_steps: int = 5,
    beta: Scalar = 0.95,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    weight_decay_mask: PyTree | Callable[[PyTree], PyTree] | None = None,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    adam_b1: Scalar = 0.9,
    adam_b2: Scalar = 0.999,
    adam_eps_root: Scalar = 0.0,
    adam_weight_decay: Scalar = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    muon_weight_dimension_numbers: Dimensions | None = None,
    consistent_rms: Scalar | None = None,
) -> GradientTransformation:
    r"""Muon for the matrices, AdamW for the rest (Jordan 2024, kellerjordan.github.io/posts/muon).

    The matrices get $u = -\eta (s\, \mathrm{muon}(g) + \lambda \theta)$ with $s = \sqrt{\max(1, n_\mathrm{out} /
    n_\mathrm{in})}$, or with `consistent_rms` $r$, $s = r \sqrt{\max(n_\mathrm{out}, n_\mathrm{in})}$, where 0.2 moves
    as far as AdamW (Liu et al., arXiv:2502.16982). optax takes a leaf's first axis for the inputs; torch's linear
    layers have the outputs there, so give them `MuonDimensionNumbers(1, 0)` in a tree, or `consistent_rms`.

    Args:
        learning_rate: of both, a number, a 0-dim tensor or a schedule.
        ns_coeffs: as in `scale_by_muon`, which tells `ns_steps` to `mu_dtype` and `nesterov` to `preconditioning` too;
            or "standard", or "dion" (Ahn et al., arXiv:2504.05295).
        weight_decay: of the matrices, multiplied by the learning rate; `weight_decay_mask` chooses among them.
        adam_b1: this and the following are AdamW's, `eps`, `mu_dtype` and `nesterov` are shared.
        adam_learning_rate: by default that of the matrices.
        muon_weight_dimension_numbers: a tree of `MuonDimensionNumbers` for matrices and None for the rest, a prefix of
            one, or a function from the parameters to it. By default all leaves of two axes are matrices.
        consistent_rms: see above.

    >>> optimizer = muon(0.1)
    >>> params = {"w": torch.eye(2), "b": torch.zeros(2)}
    >>> gradient = {"w": torch.tensor([[3.0, 0.0], [0.0, 0.3]]), "b": torch.tensor([3.0, 0.3])}
    >>> optimizer.update(gradient, optimizer.init(params), params)[0]["b"]
    tensor([-0.1474, -0.1474])
    """
    if isinstance(ns_coeffs, str) and ns_coeffs not in _PRESETS:
        raise ValueError(f'ns_coeffs is {ns_coeffs!r}, and must be "standard", "dion", or numbers.')
    dimensions = muon_weight_dimension_numbers

    def labels(tree: PyTree) -> PyTree:
        leaves, treedef = flatten(tree)
        check_floating(leaves, tree, "params")
        if dimensions is None:
            matrices = [leaf.ndim == 2 for leaf in leaves]
        else:
            matrices = [own is not None for own in dimension_numbers(dimensions, tree, MuonDimensionNumbers)]
        return unflatten(treedef, ["muon" if own else "adam" for own in matrices])

    given = MuonDimensionNumbers() if dimensions is None else dimensions
    matrices = chain(
        scale_by_muon(
            _PRESETS[ns_coeffs] if isinstance(ns_coeffs, str) else ns_coeffs,
            ns_steps,
            beta,
            eps,
            mu_dtype,
            nesterov=nesterov,
            adaptive=adaptive,
            preconditioning=preconditioning,
            weight_dimension_numbers=given,
        ),
        _scale_by_shape(given, consistent_rms),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    rest = adamw(
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        adam_b1,
        adam_b2,
        eps,
        adam_eps_root,
        mu_dtype,
        adam_weight_decay,
        nesterov=nesterov,
    )
    return partition({"adam": rest, "muon": matrices}, labels)
