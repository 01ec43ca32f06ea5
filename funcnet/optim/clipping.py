"""Clipping: updates made shorter, or of smaller values."""

import torch
from torch import Tensor

from ..tree import PyTree, flatten, global_norm, leaves, leaves_with_path, map, unflatten
from .arguments import check_floating, nonnegative
from .base import EmptyState, GradientTransformation, needed, stateless
from .leafwise import abs_sq, each, root, wide
from .values import Scalar, scalar

__all__ = [
    "AdaptiveGradClipState",
    "ClipByGlobalNormState",
    "ClipState",
    "adaptive_grad_clip",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "per_example_global_norm_clip",
    "per_example_layer_norm_clip",
    "unitwise_clip",
    "unitwise_norm",
]

ClipState = ClipByGlobalNormState = AdaptiveGradClipState = EmptyState


def clip(max_delta: Scalar) -> GradientTransformation:
    r"""Clip every element, $u \leftarrow \min(\max(u, -c), c)$.

    >>> clip(1.0).update({"w": torch.tensor([3.0, -0.5])}, ())[0]
    {'w': tensor([ 1.0000, -0.5000])}
    """
    nonnegative(max_delta, "max_delta")

    def leaf(u: Tensor) -> Tensor:
        return torch.clamp(torch.clamp(u, min=-max_delta), max=max_delta)

    return stateless(lambda updates, params: each(leaf, updates)[0])


def clip_by_block_rms(threshold: Scalar) -> GradientTransformation:
    r"""Shrink each leaf to a root mean square of at most `threshold`, $u / \max(1, \mathrm{rms}(u) / c)$.

    Shazeer and Stern, arXiv:1804.04235, section 6.

    >>> clip_by_block_rms(1.0).update({"w": torch.tensor([3.0, -3.0])}, ())[0]
    {'w': tensor([ 1., -1.])}
    """
    nonnegative(threshold, "threshold")

    def shrunk(u: Tensor, limit: Scalar) -> Tensor:
        return u / torch.clamp(root(torch.mean(abs_sq(u))) / limit, min=1)

    def leaf(u: Tensor) -> Tensor:
        # A limit of 0 has no quotient: where the updates are 0 as well it would be NaN, and everywhere in derivatives.
        if isinstance(threshold, Tensor):
            closed = threshold == 0
            return torch.where(closed, u * 0.0, shrunk(u, torch.where(closed, 1.0, threshold)))
        return shrunk(u, threshold) if threshold else u * 0.0

    return stateless(lambda updates, params: each(leaf, updates, alone=True)[0])


def clip_by_global_norm(max_norm: Scalar) -> GradientTransformation:
    r"""Shorten the updates, taken as one vector, to at most `max_norm`: $u \leftarrow u \min(1, c / \lVert u \rVert)$.

    Updates no longer than `max_norm` come back unchanged to the bit; non-finite updates stay non-finite (Pascanu et
    al., arXiv:1211.5063). Half-precision leaves are scaled in float32, as their norm is taken.

    >>> updates, _ = clip_by_global_norm(1.0).update({"w": torch.tensor([3.0, 4.0])}, ())
    >>> updates["w"]
    tensor([0.6000, 0.8000])
    """
    nonnegative(max_norm, "max_norm")

    def clip(updates: PyTree, params: PyTree) -> PyTree:
        check_floating(leaves(updates), updates, "updates")
        norm = global_norm(updates)
        short = norm <= max_norm  # equal as well: 0 and 0 have no quotient
        # `where` selects, so neither the quotient's value nor its gradient enters where nothing is clipped; the inner
        # one keeps that unused gradient finite where the norm is zero.
        length = torch.where(short, torch.ones_like(norm), norm)

        def clipped(leaf: Tensor) -> Tensor:
            # The length may be more than float16 holds, and an element's share of it less.
            return torch.where(short, leaf, (leaf.to(wide(leaf.dtype)) / length * max_norm).to(leaf.dtype))

        return map(clipped, updates)

    return stateless(clip)


def unitwise_norm(x: Tensor, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """The length of each unit's weights, in the shape of `x`.

    A unit is what is left where `axis` is summed over: by default all axes of vectors, the first of two or three, and
    all but the last of four or five. That is jax's layout, (in, out) and (height, width, in, out); for torch's
    (out, in, ...) write `axis=tuple(range(1, x.ndim))`. Raises `ValueError` for more axes without `axis`.

    >>> unitwise_norm(torch.tensor([[3.0, 1.0], [4.0, 0.0]]))
    tensor([[5., 1.],
            [5., 1.]])
    """
    if axis is None:
        flat = sum(length != 1 for length in x.shape) <= 1
        if x.ndim > 5 and not flat:
            raise ValueError(f"unitwise_norm knows the units of up to 5 axes, and got {tuple(x.shape)}: give the axis.")
        axis = tuple(range(x.ndim if flat else 1 if x.ndim < 4 else x.ndim - 1))
    square = abs_sq(x)
    norm: Tensor = root(torch.sum(square, axis, keepdim=True) if x.ndim else square)
    return norm.expand(x.shape)


def unitwise_clip(g_norm: Tensor, max_norm: Tensor, grad: Tensor, div_eps: Scalar = 1e-6) -> Tensor:
    """The gradient, shortened to `max_norm` where `g_norm` is not below; all three have one shape.

    >>> unitwise_clip(torch.tensor([5.0, 5.0]), torch.tensor([1.0, 1.0]), torch.tensor([3.0, 4.0]))
    tensor([0.6000, 0.8000])
    """
    if not g_norm.shape == max_norm.shape == grad.shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (g_norm, max_norm, grad))
        raise ValueError(f"unitwise_clip needs g_norm, max_norm and grad of one shape, and got {shapes}.")
    return torch.where(g_norm < max_norm, grad, grad * (max_norm / torch.clamp(g_norm, min=div_eps)))


def adaptive_grad_clip(
    clipping: Scalar, eps: Scalar = 1e-3, axis: int | tuple[int, ...] | None = None
) -> GradientTransformation:
    r"""Shorten each unit's gradient to at most $c \max(\lVert \theta \rVert, \varepsilon)$.

    Brock et al., arXiv:2102.06171. `axis` tells what a unit is, as in `unitwise_norm`, and is one for all leaves.

    >>> rule = adaptive_grad_clip(0.1)
    >>> rule.update({"w": torch.tensor([3.0, 4.0])}, rule.init(None), {"w": torch.tensor([6.0, 8.0])})[0]
    {'w': tensor([0.6000, 0.8000])}
    """
    nonnegative(clipping, "clipping"), scalar(eps, "eps")

    def leaf(g: Tensor, p: Tensor) -> Tensor:
        longest = clipping * torch.clamp(unitwise_norm(p, axis), min=eps)
        return unitwise_clip(unitwise_norm(g, axis), longest, g)

    return stateless(lambda updates, params: each(leaf, updates, needed(params, "adaptive_grad_clip"), alone=True)[0])


def per_example_global_norm_clip(grads: PyTree, l2_norm_clip: Scalar) -> tuple[PyTree, Tensor]:
    r"""Shorten each example's gradient to `l2_norm_clip`, and sum: $\sum_i g_i \min(1, c / \lVert g_i \rVert)$.

    For differential privacy (Abadi et al., arXiv:1607.00133). Gradients have a leading axis of examples, as
    `per_example_grad` gives them. Returns the sums, and how many gradients were shortened. A gradient of NaNs counts
    as short, and makes the sum NaN. Raises `ValueError` where the leading axes differ.

    >>> per_example_global_norm_clip({"w": torch.tensor([[3.0, 4.0], [0.1, 0.0]])}, 1.0)
    ({'w': tensor([0.7000, 0.8000])}, tensor(1))
    """
    sums, long = clipped_sums(grads, l2_norm_clip)
    return map(lambda total, g: total.to(g.dtype), sums, grads), long


def clipped_sums(grads: PyTree, l2_norm_clip: Scalar) -> tuple[PyTree, Tensor]:
    """`per_example_global_norm_clip` before its sums are rounded: in float32 at least."""
    nonnegative(l2_norm_clip, "l2_norm_clip")
    _check_examples(grads)
    square = sum(
        torch.sum(abs_sq(wider).unsqueeze(-1).flatten(1), 1) for wider in (g.to(wide(g.dtype)) for g in leaves(grads))
    )
    length = root(square)
    long = length > l2_norm_clip
    share = torch.where(long, l2_norm_clip / torch.where(long, length, 1.0), 1.0)

    def total(g: Tensor) -> Tensor:
        # Widened before the sum: float16 overflows at 65504, and bfloat16 would round each share to three digits.
        dtype = wide(g.dtype)
        summed: Tensor = torch.tensordot(share.to(dtype), g.to(dtype), 1)
        return summed

    return map(total, grads), torch.sum(long)


def per_example_layer_norm_clip(
    grads: PyTree, global_l2_norm_clip: Scalar, uniform: bool = True
) -> tuple[PyTree, PyTree]:
    r"""`per_example_global_norm_clip` of each leaf by itself, to lengths whose squares sum to $c^2$.

    They are $c / \sqrt{n}$ for $n$ leaves, or with `uniform=False` as the roots of the leaves' sizes (McMahan et al.,
    arXiv:1710.06963). Returns the sums, and how many gradients were shortened for each leaf.

    >>> per_example_layer_norm_clip({"w": torch.tensor([[3.0], [0.1]]), "b": torch.tensor([[1.0], [0.0]])}, 2**0.5)
    ({'w': tensor([1.1000]), 'b': tensor([1.])}, {'w': tensor(1), 'b': tensor(0)})
    """
    _check_examples(grads)
    values, treedef = flatten(grads)
    sizes = [1 if uniform else g[0].numel() for g in values]
    results = [
        per_example_global_norm_clip(g, global_l2_norm_clip * (size / sum(sizes)) ** 0.5)
        for g, size in zip(values, sizes, strict=True)
    ]
    return unflatten(treedef, [sums for sums, _ in results]), unflatten(treedef, [count for _, count in results])


def _check_examples(grads: PyTree) -> None:
    named = leaves_with_path(grads)
    if not named:
        raise ValueError("per-example clipping got gradients without leaves, which do not tell how many examples.")
    check_floating(leaves(grads), grads, "grads")
    for path, g in named:
        if g.ndim == 0 or g.shape[0] != named[0][1].shape[0]:
            raise ValueError(
                f"per-example clipping needs one leading axis of examples in every leaf: {path!r} has shape "
                f"{tuple(g.shape)}, and {named[0][0]!r} {tuple(named[0][1].shape)}."
            )
