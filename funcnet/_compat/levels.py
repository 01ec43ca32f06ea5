"""What surrounds a call: transforms, tracing, autocast, function modes."""

from typing import Any

import torch
from torch._C import _functorch


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


def readable(tensor: torch.Tensor) -> bool:
    """Whether the host may read this tensor: an ordinary one on the CPU, neither wrapped by a transform nor traced.

    Weaker than `plain`: inside `grad` or `vmap` an argument that the transform does not wrap still holds plain values,
    as a dropout key does in a training step. `is_functorch_wrapped_tensor` is checked on 2.15.0; `is_compiling` comes
    first because the compiler turns it into a constant and so never meets the private names.
    """
    if torch.compiler.is_compiling() or type(tensor) is not torch.Tensor or tensor.device.type != "cpu":
        return False
    return torch._C._len_torch_dispatch_stack() == 0 and not _functorch.is_functorch_wrapped_tensor(tensor)


def autocast_state() -> tuple[Any, ...]:
    """The ambient autocast of the current thread, by which the same code traces to another graph. Public since 2.4."""
    return tuple(
        (torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None) for device in ("cpu", "cuda")
    )


def batched(tensor: torch.Tensor) -> bool:
    """Whether `vmap` gave this tensor a hidden batch dimension at the current or an outer level.

    `is_functorch_wrapped_tensor` is true of gradient and forward-mode wrappers as well, which is harmless where this is
    asked. Checked on 2.15.0.
    """
    if torch.compiler.is_compiling():
        # The compiler does not trace the question, and removes what a needless yes costs.
        return True
    return bool(_functorch.is_functorch_wrapped_tensor(tensor))


def no_function_modes() -> Any:
    """A context in which no torch function mode is active. Checked on 2.15.0."""
    return torch._C.DisableTorchFunction()
