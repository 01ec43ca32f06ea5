"""Hooks of modules: code of a user's that runs in calls of torch's own classes."""

from typing import Any

from torch import nn
from torch.nn.modules import module as _module

__all__ = ["globally_hooked", "hooked"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_globals: Any = _module


def hooked(module: nn.Module) -> bool:
    """Whether anything is hooked onto a call of this module.

    A torch that names its hooks otherwise has every module hooked. Checked on 2.15.0.
    """
    return any(vars(module).get(name, True) for name in _HOOKS)


def globally_hooked() -> bool:
    """Whether anything is hooked onto the calls of all modules.

    A torch that does not tell has. Checked on 2.15.0.
    """
    ask = getattr(_globals, "_has_any_global_hook", None)
    return ask is None or bool(ask())
