"""Attention: the fused kernel where it has the derivative that is asked for, plain operations where it has not."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from funcnet import _compat
from funcnet.pure.fused import differentiable_again
from funcnet.random.attention import attend, lowered

if TYPE_CHECKING:
    from funcnet.pure.mode import PureMode

__all__ = ["ATTENTION"]

_kernel: Callable[..., Tensor] = F.scaled_dot_product_attention


def attention(
    mode: "PureMode",
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`F.scaled_dot_product_attention` with every derivative and transform, and its dropout from the call's key."""
    tensors: tuple[Tensor, ...] = (query, key, value) if attn_mask is None else (query, key, value, attn_mask)
    options: dict[str, Any] = {"is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
    if not dropout_p and _compat.first_order() and not torch.is_grad_enabled():
        return _kernel(*tensors, **options)
    asked = _compat.asked_of(*tensors)
    if dropout_p or asked.forward or asked.reverse > 1 or (asked.batched and not _foldable(*tensors)):
        return attend(*lowered(*tensors), dropout_p=dropout_p, mode=mode, **options)
    if asked.transformed or asked.reverse:
        # Autocast stands below the transforms; and the kernel's node is to have these very tensors as its inputs.
        tensors = lowered(*tensors)
    if asked.batched:
        return _in_four_dimensions(tensors, options)
    output = _kernel(*tensors, **options)
    if asked.reverse and not asked.transformed:
        _differentiable_again(output, options, *tensors)
    return output


def _foldable(query: Tensor, key: Tensor, value: Tensor, *mask: Tensor) -> bool:
    """Whether the fused kernel has a batching rule, and the derivatives: it has none with respect to a mask."""
    return query.device.type == "cpu" and not (mask and _compat.asked_of(*mask).reverse)


def _in_four_dimensions(tensors: tuple[Tensor, ...], options: dict[str, Any]) -> Tensor:
    """Attention of (batch, heads, length, channels), which torch's fused kernels take, made of any other shapes."""
    if any(t.ndim < 2 for t in tensors):
        return _kernel(*tensors, **options)
    wide = [t[(None,) * (4 - t.ndim)] for t in tensors]
    batch = torch.broadcast_shapes(*(t.shape[:-3] for t in wide))  # type: ignore[no-untyped-call]  # torch's own
    flat = [t.expand(*batch, *t.shape[-3:]).flatten(0, -4) for t in wide]
    output = _kernel(*flat, **options)
    dimensions = max(t.ndim for t in tensors)
    return output.reshape(*batch, *output.shape[1:])[(0,) * (4 - dimensions)]


def _differentiable_again(output: Tensor, options: dict[str, Any], *tensors: Tensor) -> None:
    node = output.grad_fn
    if node is not None and _compat.is_fused_attention(node):
        differentiable_again(node, lambda *ts: attend(*ts, **options), *tensors)


_RULES = _compat.batch_attention(_differentiable_again)

ATTENTION: dict[Any, Any] = {F.scaled_dot_product_attention: attention}
