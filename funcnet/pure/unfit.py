"""Modules that cannot be made pure as they are."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

__all__ = ["refuse_lazy", "refuse_scripted"]


def refuse_lazy(tensors: Mapping[str, Tensor]) -> None:
    """Raise `TypeError` where a parameter has no shape yet."""
    lazy = [name for name, tensor in tensors.items() if is_lazy(tensor)]
    if lazy:
        raise TypeError(
            f"{lazy[0]!r} is a lazy parameter, whose shape is known only after a first call. Call the module once on "
            f"an example, then use Model.from_module(module), or construct it with its sizes."
        )


def refuse_scripted(module: nn.Module) -> None:
    """Raise `TypeError` where a submodule is scripted by TorchScript."""
    for path, submodule in module.named_modules():
        if isinstance(submodule, torch.jit.ScriptModule):
            where = f"submodule {path!r} of {type(module).__name__}" if path else "this module"
            raise TypeError(
                f"{where} is scripted by TorchScript, and its tensors cannot be put in for one call. Use the Python "
                f"module that it was scripted from."
            )
