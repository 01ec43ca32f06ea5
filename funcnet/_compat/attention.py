"""Torch's fused attention on the CPU: batching rules, which fold the mapped axis into the batch."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch._C import _functorch

_FORWARD = "_scaled_dot_product_flash_attention_for_cpu"
_BACKWARD = "_scaled_dot_product_flash_attention_for_cpu_backward"


def is_fused_attention(node: torch.autograd.graph.Node) -> bool:
    """Whether a `grad_fn` is one of torch's fused attention kernels, whose backward has no derivative.

    Their names begin alike. Checked on 2.15.0, CPU; where a name is another, second derivatives raise torch's error.
    """
    return type(node).__name__.startswith("ScaledDotProduct")


def batch_attention(outermost: Callable[..., None]) -> torch.library.Library | None:
    """Give the fused kernel and its backward batching rules, in place of torch's slow loop and its warning.

    Args:
        outermost: called with `(output, options, query, key, value)`, and the mask if there is one, where the kernel
            ran below all transforms and torch.autograd recorded it.

    Returns:
        What holds the rules as long as it lives; None where this torch has rules, or no such kernel. Checked on 2.15.0.
    """
    forward, backward = (getattr(torch.ops.aten, name, None) for name in (_FORWARD, _BACKWARD))
    if forward is None or torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{_FORWARD}", "FuncTorchBatched"):
        return None

    def recorded(
        query: Tensor, key: Tensor, value: Tensor, dropout_p: float = 0.0, is_causal: bool = False, **options: Any
    ) -> Any:
        output, logsumexp = forward(query, key, value, dropout_p, is_causal, **options)
        if output.requires_grad and len(_functorch.get_interpreter_stack() or ()) == 1:  # this level alone
            mask = options["attn_mask"]
            tensors = (query, key, value) if mask is None else (query, key, value, mask)
            grouped = query.shape[1] != key.shape[1]
            outermost(output, {"is_causal": is_causal, "scale": options["scale"], "enable_gqa": grouped}, *tensors)
        return output, logsumexp

    library: Any = torch.library.Library("aten", "FRAGMENT")  # type: ignore[no-untyped-call]  # torch's own
    library.impl(_FORWARD, _folding(recorded), "FuncTorchBatched")
    library.impl(_BACKWARD, _folding(backward), "FuncTorchBatched")
    return cast(torch.library.Library, library)


def _folding(operator: Any) -> Callable[..., Any]:
    """The batching rule of an operator whose tensors and results have the batch first."""
    # As in torch's own rules: what is called inside goes on to the next level, and is not to come back to this rule.
    batched = torch._C.DispatchKeySet(torch._C.DispatchKey.FuncTorchBatched)

    def rule(*args: Any, attn_mask: Tensor | None = None, scale: float | None = None) -> Any:
        level = _functorch.current_level()
        with torch._C._ExcludeDispatchKeyGuard(batched):
            all_args = (attn_mask, *args)
            values = [_functorch._unwrap_batched(a, level) if isinstance(a, Tensor) else (a, None) for a in all_args]
            size = next(value.shape[dim] for value, dim in values if dim is not None)
            (mask, mask_dim), *values = values
            folded = [_front(v, dim, size).flatten(0, 1) if isinstance(v, Tensor) else v for v, dim in values]
            if mask is not None:
                mask = _fold_mask(mask, mask_dim, size, folded[0].shape[0] // size)
            results = operator(*folded, attn_mask=mask, scale=scale)
            unfolded = [t.unflatten(0, (size, t.shape[0] // size)) for t in results]
        return tuple(_functorch._add_batch_dim(t, 0, level) for t in unfolded)

    return rule


def _front(value: Tensor, dim: int | None, size: int) -> Tensor:
    return value.unsqueeze(0).expand(size, *value.shape) if dim is None else value.movedim(dim, 0)


def _fold_mask(mask: Tensor, dim: int | None, size: int, batch: int) -> Tensor:
    """A mask for the folded batch: (length, length) or (batch or 1, heads or 1, length, length) for each element."""
    if dim is None and (mask.ndim == 2 or mask.shape[0] == 1):
        return mask
    mask = _front(mask, dim, size)
    if mask.ndim == 3:
        mask = mask[:, None, None]
    return mask.expand(size, batch, *mask.shape[2:]).flatten(0, 1)
