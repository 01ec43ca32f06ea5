"""What surrounds a call: transforms, tracing, autocast, function modes."""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, cast

import torch
from torch._C import _functorch

from funcnet._compat.watching import watching

# The stack of torch function modes. Checked on 2.15.0.
_depth = getattr(torch._C, "_len_torch_function_stack", int)
_at: Any = getattr(torch._C, "_get_function_stack_at", None)
pop_function_mode: Any = getattr(torch._C, "_pop_torch_function_stack", None)
push_function_mode: Any = getattr(torch._C, "_push_on_torch_function_stack", None)

_any_autocast: Any = getattr(torch._C, "_is_any_autocast_enabled", lambda: True)


def transform_active() -> bool:
    """Whether a torch.func transform (grad, vmap, jvp ...) surrounds this call.

    `peek_interpreter_stack` is None outside every transform. Checked on 2.15.0.
    """
    return _functorch.peek_interpreter_stack() is not None


def default_device() -> torch.device | None:
    """Where factories put tensors, which a function mode tells; None without one. Checked on 2.15.0."""
    return torch.get_default_device() if _depth() else None


def tracing() -> bool:
    """Whether the call is being traced or faked, so that tensors hold no values that the host may read.

    Any active dispatch mode (fake tensors, proxies) counts, but for those that only look. Checked on 2.15.0.
    """
    modes = torch._C._len_torch_dispatch_stack()
    return (modes > 0 and modes > watching()) or torch.compiler.is_compiling()


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


def has_values(tensor: torch.Tensor) -> bool:
    """Whether this is an ordinary tensor, neither wrapped by a transform nor faked by a tracer. Checked on 2.15.0."""
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
    return plain and not _functorch.is_functorch_wrapped_tensor(tensor)


def autocast_state() -> tuple[Any, ...]:
    """The ambient autocast of the current thread, by which the same code traces to another graph. Public since 2.4.

    Whether there is any at all is a tenth of a microsecond. Checked on 2.15.0.
    """
    if not _any_autocast():
        return (None, None)
    return tuple(
        (torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None) for device in ("cpu", "cuda")
    )


def enter_autocast(stack: ExitStack, state: tuple[Any, ...]) -> None:
    """Have a block run under what `autocast_state` gave elsewhere."""
    for device, dtype in zip(("cpu", "cuda"), state, strict=True):
        if dtype is not None or torch.is_autocast_enabled(device):
            stack.enter_context(torch.autocast(device, dtype, enabled=dtype is not None))


def batched(tensor: torch.Tensor) -> bool:
    """Whether `vmap` gave this tensor a hidden batch dimension at the current or an outer level.

    `is_functorch_wrapped_tensor` is true of gradient and forward-mode wrappers as well, which is harmless where this is
    asked. Checked on 2.15.0.
    """
    if torch.compiler.is_compiling():
        # The compiler does not trace the question, and removes what a needless yes costs.
        return True
    return bool(_functorch.is_functorch_wrapped_tensor(tensor))


def any_wrapped(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether a transform, over or not, has wrapped one of these; 0.1 us each. Checked on 2.15.0."""
    return any(map(_functorch.is_functorch_wrapped_tensor, tensors))


def no_function_modes() -> Any:
    """A context in which no torch function mode is active. Checked on 2.15.0."""
    return torch._C.DisableTorchFunction()


def function_modes() -> list[Any]:
    """The torch function modes around this call, the innermost last. Checked on 2.15.0."""
    modes: list[Any] = cast(Any, torch.overrides)._get_current_function_mode_stack()
    return modes


def function_mode() -> Any:
    """The innermost torch function mode around this call, or None; a torch that does not tell has none.

    Checked on 2.15.0.
    """
    depth = _depth()
    return _at(depth - 1) if depth else None


def level() -> int:
    """How many torch.func transforms surround this call. Checked on 2.15.0."""
    return _functorch.maybe_current_level() or 0


def level_of(tensor: torch.Tensor) -> int:
    """The transform that wraps this tensor, counted from the outermost, 1; 0 or less for a plain tensor.

    Checked on 2.15.0.
    """
    return _functorch.maybe_get_level(tensor)


def unwrap_dead(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, less the wrappers of transforms that are over. Checked on 2.15.0."""
    return _functorch.unwrap_if_dead(tensor)


def without_dead(tensor: torch.Tensor) -> torch.Tensor:
    """The same, where several transforms that are over have wrapped it one after the other. Checked on 2.15.0."""
    while (inner := _functorch.unwrap_if_dead(tensor)) is not tensor:
        tensor = inner
    return tensor
