"""GaLore: optimizers that see gradients in few dimensions."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...control import cond
from ...transforms import stop_gradient
from ...tree import PyTree, flatten, unflatten
from ...tree.mismatch import match
from ..adam import scale_by_adam
from ..arguments import check_floating, stateful, whole
from ..base import GradientTransformation, chain, with_extra_args_support
from ..leafwise import wide
from ..scaling import scale_by_learning_rate
from ..values import Scalar, ScalarOrSchedule, increment, scalar, zero_count
from ..weights import add_decayed_weights
from .matrices import Layout, dimension_numbers

__all__ = ["GaLoreDimensionNumbers", "GaLoreState", "galore", "scale_by_galore"]


class GaLoreDimensionNumbers(NamedTuple):
    """Which axes of a parameter are the inputs and which the outputs of its matrix; every axis is one or the other."""

    reduction_axis: Sequence[int] | int = 0
    output_axis: Sequence[int] | int = 1


Dimensions = GaLoreDimensionNumbers | PyTree | Callable[[PyTree], PyTree]


class GaLoreState(NamedTuple):
    """The step count, the state of the optimizer in few dimensions, and the ways there."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""
    base_optimizer_state: Any
    projector: PyTree
    """like the parameters: (the larger side, rank) for matrices, (0, 0) for the rest"""


def scale_by_galore(
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: Scalar = 1.0,
    base_optimizer: GradientTransformation | None = None,
    weight_dimension_numbers: Dimensions | None = None,
) -> GradientTransformation:
    r"""Run an optimizer on gradients projected to their leading directions (Zhao et al., arXiv:2403.03507).

    For a matrix of $m \ge n$, $P$ holds the first `rank` left singular vectors of the gradient, found anew every
    `update_proj_gap` updates, and $u = \alpha P\, \mathrm{base}(P^\top g)$; for a wide one the right ones, from the
    right. The optimizer's state is as small as $P^\top g$. Singular vectors are found in float32, or float64 for such
    parameters, where optax has float32; their signs, which optax leaves open, make the largest element positive.
    Derivatives take $P$ for a constant: that of singular vectors of a gradient of low rank is infinite.

    Args:
        rank: at most this many directions.
        update_proj_gap: how often they are found.
        scale: $\alpha$.
        base_optimizer: one that needs no parameters; `scale_by_adam()` by default.
        weight_dimension_numbers: a tree of `GaLoreDimensionNumbers` for matrices and None for the rest, a prefix of
            one, a function from the parameters to it, or one of them for all leaves of two axes or more. By default
            leaves of two axes are matrices.

    Raises:
        TypeError: `rank` is no integer.
        ValueError: it is not positive, or an axis is neither input nor output.

    >>> rule = scale_by_galore(rank=1)
    >>> params = {"w": torch.zeros(3, 2)}
    >>> gradient = {"w": torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])}
    >>> updates, state = rule.update(gradient, rule.init(params), params)
    >>> updates["w"][1], state.base_optimizer_state.mu["w"].shape
    (tensor([1.0000, 1.0000]), torch.Size([1, 2]))
    """
    whole(rank, "rank", "the directions that are kept"), whole(update_proj_gap, "update_proj_gap")
    scalar(scale, "scale")
    base = with_extra_args_support(scale_by_adam() if base_optimizer is None else base_optimizer)

    def layouts(tree: PyTree) -> list[Layout | None]:
        leaves, given = flatten(tree)[0], weight_dimension_numbers
        if given is None:
            numbers: list[Any] = [GaLoreDimensionNumbers() if leaf.ndim == 2 else None for leaf in leaves]
        elif isinstance(given, GaLoreDimensionNumbers):
            numbers = [given if leaf.ndim >= 2 else None for leaf in leaves]
        else:
            numbers = dimension_numbers(given, tree, GaLoreDimensionNumbers)
        return [_layout(leaf, own) for leaf, own in zip(leaves, numbers, strict=True)]

    def init(params: PyTree) -> GaLoreState:
        check_floating(flatten(params)[0], params, "params")
        leaves, treedef = flatten(params)
        projectors, proxies = [], []
        for leaf, layout in zip(leaves, layouts(params), strict=True):
            rows, columns = (0, 0) if layout is None else layout.fans
            kept, dtype = min(rank, rows, columns), wide(leaf.dtype)
            projectors.append(leaf.new_zeros(max(rows, columns), kept, dtype=dtype))
            small = (kept, columns) if rows >= columns else (rows, kept)
            proxies.append(leaf.new_zeros(leaf.shape if layout is None else small, dtype=leaf.dtype))
        state = base.init(unflatten(treedef, proxies))
        return GaLoreState(
            count=zero_count(params), base_optimizer_state=state, projector=unflatten(treedef, projectors)
        )

    def update(updates: PyTree, state: GaLoreState, params: PyTree = None, **extra: Any) -> tuple[PyTree, GaLoreState]:
        leaves, treedef = flatten(updates)
        found = layouts(updates)
        old = match(state.projector, updates, "state.projector", "updates", shape=False)
        gradients = [
            leaf if layout is None else layout.matrices(leaf.to(wide(leaf.dtype)))
            for leaf, layout in zip(leaves, found, strict=True)
        ]

        def leading(old: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
            return [_leading(g, last.shape[-1]) for g, last in zip(gradients, old, strict=True)]

        matrices = [n for n, layout in enumerate(found) if layout is not None]
        operands = [old[n] for n in matrices], [gradients[n] for n in matrices]
        due = state.count % update_proj_gap == 0
        new_ways = cond(due, leading, lambda old, gradients: [p.clone() for p in old], *operands)
        ways = list(old)
        for n, p in zip(matrices, new_ways, strict=True):
            ways[n] = p
        rows = list(zip(gradients, ways, leaves, found, strict=True))
        small = [
            g if layout is None else (p.mH @ g if _tall(g) else g @ p).to(leaf.dtype) for g, p, leaf, layout in rows
        ]
        new, base_state = base.update(unflatten(treedef, small), state.base_optimizer_state, None, **extra)
        steps = match(new, updates, "the base updates", "updates", shape=False)
        moved = [
            u if layout is None else layout.leaf(scale * (p @ u.to(p.dtype) if _tall(g) else u.to(p.dtype) @ p.mH))
            for u, (g, p, _, layout) in zip(steps, rows, strict=True)
        ]
        moved = [u.to(leaf.dtype) for u, leaf in zip(moved, leaves, strict=True)]
        return unflatten(treedef, moved), GaLoreState(
            count=increment(state.count), base_optimizer_state=base_state, projector=unflatten(treedef, ways)
        )

    return stateful(GaLoreState, init, update)


def _layout(leaf: Tensor, numbers: GaLoreDimensionNumbers | None) -> Layout | None:
    if numbers is None:
        return None
    layout = Layout.of(leaf.shape, numbers, "scale_by_galore")
    if layout.batch:
        raise ValueError(
            f"scale_by_galore got {numbers} for a leaf of shape {tuple(leaf.shape)}, and needs every axis in one of "
            "the two: write reduction_axis=0, output_axis=(1, 2)."
        )
    return layout


def _tall(matrix: Tensor) -> bool:
    return matrix.shape[-2] >= matrix.shape[-1]


def _leading(matrix: Tensor, rank: int) -> Tensor:
    """The first singular vectors of the larger side, with the largest element of each made positive."""
    constant: Tensor = stop_gradient(matrix)
    left, _, right = torch.linalg.svd(constant, full_matrices=False)
    vectors = (left if _tall(matrix) else right.mH)[..., :rank]
    largest = torch.gather(vectors, 0, vectors.abs().argmax(0, keepdim=True)) if vectors.numel() else 1
    turned: Tensor = vectors * torch.conj(torch.sgn(torch.as_tensor(largest)))
    return turned.contiguous()


def galore(
    learning_rate: ScalarOrSchedule,
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: Scalar = 1.0,
    base_optimizer: GradientTransformation | None = None,
    weight_decay: Scalar = 0.0,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
    weight_dimension_numbers: Dimensions | None = None,
) -> GradientTransformation:
    r"""GaLore, $u = -\eta (\mathrm{galore}(g) + \lambda \theta)$ (Zhao et al., arXiv:2403.03507).

    `scale_by_galore` tells the arguments, `add_decayed_weights` `weight_decay` and `mask`.

    >>> optimizer = galore(0.1, rank=1)
    >>> params = {"w": torch.zeros(3, 2)}
    >>> gradient = {"w": torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])}
    >>> optimizer.update(gradient, optimizer.init(params), params)[0]["w"][1]
    tensor([-0.1000, -0.1000])
    """
    return chain(
        scale_by_galore(rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
