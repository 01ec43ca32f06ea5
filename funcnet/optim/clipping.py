"""Clipping: updates made shorter, or of smaller values."""

import torch
from torch import Tensor

from ..tree import PyTree, global_norm, map
from .base import GradientTransformation, stateless
from .values import Scalar, scalar

__all__ = ["clip_by_global_norm"]


def clip_by_global_norm(max_norm: Scalar) -> GradientTransformation:
    r"""Shorten the updates, taken as one vector, to at most `max_norm`: $u \leftarrow u \min(1, c / \lVert u \rVert)$.

    Updates shorter than `max_norm` come back unchanged to the bit; non-finite updates stay non-finite (Pascanu et al.,
    arXiv:1211.5063). The norm is taken in float32 for half-precision leaves.

    >>> updates, _ = clip_by_global_norm(1.0).update({"w": torch.tensor([3.0, 4.0])}, ())
    >>> updates["w"]
    tensor([0.6000, 0.8000])
    """
    scalar(max_norm, "max_norm")

    def clip(updates: PyTree, params: PyTree) -> PyTree:
        norm = global_norm(updates)
        short = norm < max_norm
        # `where` selects, so neither the quotient's value nor its gradient enters where nothing is clipped; the inner
        # one keeps that unused gradient finite where the norm is zero.
        length = torch.where(short, torch.ones_like(norm), norm)

        def clipped(leaf: Tensor) -> Tensor:
            return torch.where(short, leaf, (leaf / length * max_norm).to(leaf.dtype))

        return map(clipped, updates)

    return stateless(clip)
