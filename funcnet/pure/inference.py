"""Torch's attention modules ask whether anything overrides their tensors, or reads them: here they ask us.

`nn.MultiheadAttention` and the Transformer layers have inference kernels that they leave as soon as a function mode is
active. In plain evaluation under `torch.no_grad` they take them here as well, and never elsewhere.
"""

import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import transformer

from funcnet import _compat
from funcnet.random.aside import Overlay, rescoped

__all__ = ["attention_forward"]


def _closed(*args: object) -> bool:
    """Whether the inference kernels are out of the question."""
    return torch.is_grad_enabled() or not _compat.plain()


_detect = transformer._detect_is_causal_mask


def _is_causal(mask: Tensor | None, is_causal: bool | None = None, size: int | None = None) -> bool:
    """Whether a mask is the causal one; under transforms and tracing, which hide its values, whether we are told so."""
    return _detect(mask, is_causal, size) if _compat.plain() else bool(is_causal)


_torch = Overlay(
    torch,
    overrides=Overlay(torch.overrides, has_torch_function=_closed),
    compiler=Overlay(torch.compiler, is_compiling=_closed),
)
_MODULES: tuple[Any, ...] = (
    nn.MultiheadAttention, nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.TransformerDecoder,
)  # fmt: skip
_FORWARDS = {
    module.forward: rescoped(module.forward, torch=_torch, _detect_is_causal_mask=_is_causal) for module in _MODULES
}


def attention_forward(module: nn.Module) -> Callable[..., Any] | None:
    """The forward of a module that is one of torch's, or inherits it; None for any other."""
    forward = _FORWARDS.get(type(module).forward)
    return None if forward is None else types.MethodType(forward, module)
