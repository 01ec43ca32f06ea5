"""The only room that may name a private torch API.

Each entry says what it is for, the versions it was checked on, and what happens where it is missing.
"""

import torch
from torch._C import _functorch

__all__ = ["plain", "tracing", "transform_active"]


def transform_active() -> bool:
    """Whether a torch.func transform (grad, vmap, jvp ...) surrounds this call.

    `peek_interpreter_stack` is None outside every transform. Checked on 2.15.0.
    """
    return _functorch.peek_interpreter_stack() is not None


def tracing() -> bool:
    """Whether the call is being traced or faked, so that tensors hold no values that the host may read.

    Any active dispatch mode (fake tensors, proxies) counts. Checked on 2.15.0.
    """
    return torch._C._len_torch_dispatch_stack() > 0 or torch.compiler.is_compiling()


def plain() -> bool:
    """Whether this is ordinary eager code, whose tensors may be read on the host and written when fresh."""
    return not transform_active() and not tracing()
