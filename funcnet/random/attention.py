"""Scaled dot-product attention in plain operations, with keyed dropout."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from funcnet.random.dropout import dropout

__all__ = ["ATTENTION", "attend", "lowered"]


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *mask: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    mode: Any = None,
) -> Tensor:
    """`softmax(query @ key.mT * scale + mask) @ value` (Vaswani et al. 2017), differentiable any number of times.

    Arguments as of `F.scaled_dot_product_attention`, a mask or none; `mode` gives the key of the dropout. A row of the
    mask that leaves nothing to attend to gives zeros, as torch's kernels do, and zero derivatives. Half precision is
    computed in float32, as there; autocast is for the caller, by `lowered`.

    Raises:
        RuntimeError: what torch refuses.
    """
    attn_mask = mask[0] if mask else None
    _check(query, attn_mask, is_causal)
    if torch.is_autocast_enabled(query.device.type):
        with torch.autocast(query.device.type, enabled=False):
            options: dict[str, Any] = {"is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
            return attend(query, key, value, *mask, dropout_p=dropout_p, mode=mode, **options)
    dtype = query.dtype
    if dtype in (torch.float16, torch.bfloat16):
        query, key, value = query.float(), key.float(), value.float()
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    scores = query * (query.shape[-1] ** -0.5 if scale is None else scale) @ key.mT
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is None:
        weights = torch.softmax(scores, -1)
    else:
        boolean = attn_mask.dtype == torch.bool
        alive = (attn_mask if boolean else attn_mask != -math.inf).any(-1, keepdim=True)
        scores = torch.where(attn_mask, scores, -math.inf) if boolean else scores + attn_mask
        # The softmax of nothing but -inf is NaN, and so would be its derivatives: such rows never get there.
        weights = torch.where(alive, torch.softmax(torch.where(alive, scores, 0.0), -1), 0.0)
    if dropout_p:
        weights = dropout(mode, weights, dropout_p)
    return (weights @ value).to(dtype)


def lowered(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors as autocast hands them to `F.scaled_dot_product_attention`."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(t.to(dtype) if t.is_floating_point() and t.dtype != torch.float64 else t for t in tensors)


def _check(query: Tensor, attn_mask: Tensor | None, is_causal: bool) -> None:
    if attn_mask is None:
        return
    if is_causal:
        raise RuntimeError(
            "scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True. Leave one out."
        )
    if attn_mask.dtype not in (torch.bool, torch.float32, query.dtype):
        raise RuntimeError(
            f"Expected attn_mask dtype to be bool or float or to match query dtype, but got {attn_mask.dtype} and "
            f"{query.dtype}."
        )


def _attention(
    mode: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    options: dict[str, Any] = {"is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
    if dropout_p == 0.0:
        return F.scaled_dot_product_attention(query, key, value, attn_mask, **options)
    mask = () if attn_mask is None else (attn_mask,)
    return attend(*lowered(query, key, value, *mask), dropout_p=dropout_p, mode=mode, **options)


ATTENTION: dict[Any, Any] = {F.scaled_dot_product_attention: _attention}
