"""Autocast under `vmap`.

`vmap` takes composite functions apart before autocast has seen them, which then casts other functions than it names: a
mapped bias turns a linear layer's output into float32, a cross entropy is computed in bfloat16, and a normalization of
bfloat16 with float32 weights fails in its backward pass. Here the casts come first.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from funcnet import _compat, tree

_LOW: set[Any] = {
    F.linear,
    F.prelu,
    F.scaled_dot_product_attention,
    torch.prelu,
    torch.addmm,
    torch.addbmm,
    torch.baddbmm,
    torch.linalg.vecdot,
    *(getattr(torch, f"conv{kind}{n}d") for n in (1, 2, 3) for kind in ("", "_transpose")),
}
_FULL: set[Any] = {
    torch.cdist,
    F.binary_cross_entropy,
    F.binary_cross_entropy_with_logits,
    F.cosine_embedding_loss,
    F.cross_entropy,
    F.hinge_embedding_loss,
    F.kl_div,
    F.l1_loss,
    F.margin_ranking_loss,
    F.multi_margin_loss,
    F.nll_loss,
    F.poisson_nll_loss,
    F.triplet_margin_loss,
}
# Kernels that take weights of another precision than the input, and return the input's.
_MIXED: set[Any] = {
    F.layer_norm,
    F.group_norm,
    F.batch_norm,
    F.instance_norm,
    torch.layer_norm,
    torch.group_norm,
    torch.batch_norm,
    torch.instance_norm,
    _compat.BATCH_NORM,
}
_HALVES = (torch.float16, torch.bfloat16)


def casts() -> AbstractContextManager[Any]:
    """The context of a function under `vmap`."""
    return nullcontext() if _compat.autocast_state() == (None, None) else _Casts()


class _Casts(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        low, full, mixed = func in _LOW, func in _FULL, func in _MIXED
        if not (low or full or mixed):
            return func(*args, **kwargs)
        tensors = [leaf for leaf in tree.leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        device = tensors[0].device.type
        if not torch.is_autocast_enabled(device):
            return func(*args, **kwargs)
        if low:
            return _with(func, args, kwargs, (torch.float32, *_HALVES), torch.get_autocast_dtype(device))
        if full:
            return _with(func, args, kwargs, _HALVES, torch.float32)
        precision = (args[0] if args else kwargs["input"]).dtype
        if precision not in _HALVES or all(t.dtype == precision for t in tensors):
            return func(*args, **kwargs)
        output = _with(func, args, kwargs, _HALVES, torch.float32)
        return (output[0].to(precision), *output[1:]) if isinstance(output, tuple) else output.to(precision)


def _with(func: Callable[..., Any], args: Any, kwargs: Any, given: tuple[torch.dtype, ...], wanted: torch.dtype) -> Any:
    def cast(leaf: Any) -> Any:
        return leaf.to(wanted) if isinstance(leaf, Tensor) and leaf.dtype in given else leaf

    args, kwargs = tree.map(cast, (args, kwargs))
    return func(*args, **kwargs)
