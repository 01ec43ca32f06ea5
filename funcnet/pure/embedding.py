"""Embeddings with `max_norm`, which torch renormalizes in place: here the rows in use are scaled on the way out."""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from funcnet.pure.mode import PureMode

__all__ = ["EMBEDDING"]


def embedding(
    mode: "PureMode",
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """`F.embedding`, whose `max_norm` scales the rows it returns and leaves the parameter as it was."""
    if max_norm is not None:
        weight = _renormalized(weight, max_norm, norm_type)
    return F.embedding(input, weight, padding_idx, None, norm_type, *args, **kwargs)


def embedding_bag(
    mode: "PureMode",
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """`F.embedding_bag`, likewise."""
    if max_norm is not None:
        weight = _renormalized(weight, max_norm, norm_type)
    return F.embedding_bag(input, weight, offsets, None, norm_type, *args, **kwargs)


def _renormalized(weight: Tensor, max_norm: float, norm_type: float) -> Tensor:
    # As torch's kernel: the scale is no part of the derivative, and has 1e-7 against division by zero.
    norm = torch.linalg.vector_norm(weight.detach(), norm_type, dim=1, keepdim=True)
    scale = torch.where(norm > max_norm, max_norm / (norm + 1e-7), torch.ones_like(norm))
    return weight * scale


EMBEDDING: dict[Any, Any] = {F.embedding: embedding, F.embedding_bag: embedding_bag}
