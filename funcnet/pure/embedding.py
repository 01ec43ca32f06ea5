"""Embeddings: `max_norm` without writing, and bags with every derivative.

Torch renormalizes rows in place; here those in use are scaled on the way out. Its kernel of bags has one derivative in
reverse mode; here they are sums of plain operations where more is asked.
"""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from funcnet import _compat

if TYPE_CHECKING:
    from funcnet.pure.mode import PureMode

__all__ = ["EMBEDDING"]


def embedding(
    _: "PureMode",
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
    _: "PureMode",
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """`F.embedding_bag`, likewise, and with second derivatives, forward mode and a batching rule."""
    if max_norm is not None:
        weight = _renormalized(weight, max_norm, norm_type)
    asked = _compat.asked_of(*(t for t in (input, weight, offsets, per_sample_weights) if t is not None))
    if not (asked.forward or asked.batched or asked.reverse > 1) or scale_grad_by_freq or sparse:
        return F.embedding_bag(
            input,
            weight,
            offsets,
            None,
            norm_type,
            scale_grad_by_freq,
            mode,
            sparse,
            per_sample_weights,
            include_last_offset,
            padding_idx,
        )
    if input.ndim == 2:
        starts = torch.arange(0, input.numel() + 1, max(input.shape[1], 1), device=input.device)[: len(input)]
    elif offsets is None:
        raise ValueError("offsets has to be a 1D Tensor but got None")
    else:
        starts = offsets[:-1] if include_last_offset else offsets
    rows = weight[input.flatten()]
    kept = torch.ones_like(input.flatten(), dtype=torch.bool)
    if padding_idx is not None:
        kept = input.flatten() != padding_idx % len(weight)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.flatten()[:, None]
    bags = torch.searchsorted(starts, torch.arange(len(rows), device=starts.device), right=True) - 1
    return _reduce(rows, kept, bags, len(starts), mode)


def _reduce(rows: Tensor, kept: Tensor, bags: Tensor, count: int, mode: str) -> Tensor:
    """The sum, mean or maximum of the kept rows of each bag, `(rows, d)` to `(count, d)`; zeros for a bag of none."""
    if mode == "max":
        # The first row that attains the maximum has the derivative, as in torch's kernel.
        values = torch.where(kept[:, None], rows.detach(), -torch.inf)
        index = bags[:, None].expand_as(values)
        least = values.new_full((count, values.shape[1]), -torch.inf)
        top = least.scatter_reduce(0, index, values, "amax")
        places = torch.arange(len(rows), device=rows.device)[:, None].expand_as(values)
        places = torch.where((values == top.gather(0, index)) & kept[:, None], places, len(rows))
        first = torch.full_like(top, len(rows), dtype=torch.int64).scatter_reduce(0, index, places, "amin")
        return torch.cat([rows, torch.zeros_like(rows[:1])]).gather(0, first)
    totals = rows.new_zeros(count, rows.shape[1]).index_add(0, bags, torch.where(kept[:, None], rows, 0.0))
    if mode == "sum":
        return totals
    sizes = rows.new_zeros(count).index_add(0, bags, kept.to(rows.dtype))
    return totals / sizes.clamp(min=1)[:, None]


def _renormalized(weight: Tensor, max_norm: float, norm_type: float) -> Tensor:
    # As torch's kernel: the scale is no part of the derivative, and has 1e-7 against division by zero.
    norm = torch.linalg.vector_norm(weight.detach(), norm_type, dim=1, keepdim=True)
    scale = torch.where(norm > max_norm, max_norm / (norm + 1e-7), torch.ones_like(norm))
    return weight * scale


EMBEDDING: dict[Any, Any] = {F.embedding: embedding, F.embedding_bag: embedding_bag}
