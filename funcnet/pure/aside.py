"""Modules of torch's own that run with the mode off the stack, and call the mode's replacements themselves.

The mode costs about 3 us for each torch function and each look at a shape: a tiny transformer spent more on that than
on its arithmetic. Whoever writes a forward may call anything in it, so only torch's own classes are listed, and only
as torch made them; such a module takes the mode off for its own call, in whatever net it is.
"""

import types
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from funcnet import _compat
from funcnet.pure.inert import ALWAYS, IN_EVALUATION, writes_nothing
from funcnet.pure.mode import PureMode
from funcnet.random.aside import aside, call_aside

__all__ = ["as_torch_made_it", "run_aside"]

# Their forwards run no code but torch's, and reach the mode's table by the names of functions.
_LISTED = frozenset({
    *ALWAYS, *IN_EVALUATION, NonDynamicallyQuantizableLinear,
    nn.ModuleList, nn.LayerNorm, nn.LocalResponseNorm,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.GLU, nn.Hardsigmoid, nn.RReLU, nn.Softmax2d,
    nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer,
    nn.TransformerEncoder, nn.TransformerDecoder, nn.Transformer,
})  # fmt: skip
# What they may hold and call that is no module: the activation of a Transformer's layer.
_FUNCTIONS = (F.relu, F.gelu, F.silu, torch.relu, torch.tanh, torch.sigmoid)


def _methods(kind: type[nn.Module]) -> dict[str, Any]:
    classes = kind.__mro__[: kind.__mro__.index(nn.Module)]
    return {name: value for cls in reversed(classes) for name, value in vars(cls).items() if callable(value)}


# As they are now: somebody may put others in their place.
_METHODS = {kind: _methods(kind) for kind in _LISTED}


def as_torch_made_it(module: nn.Module) -> bool:
    """Whether a module itself, whatever is in it, is of a listed class and runs nobody else's code."""
    methods = _METHODS.get(type(module))
    return (
        methods is not None
        and _methods(type(module)) == methods
        and methods.keys().isdisjoint(vars(module))
        and all(value in _FUNCTIONS for value in vars(module).values() if callable(value))
        and not _compat.hooked(module)
    )


class _Cell:
    """Where the modules of a body find the mode that one of them took off."""

    mode: PureMode | None = None


def run_aside(module: nn.Module, torchs: Iterable[nn.Module]) -> bool:
    """Have those submodules run without the mode that hold none but `torchs`, which are as torch made them.

    Returns:
        Whether the module itself does, and writes into nothing but its buffers.
    """
    copies = {each: _copy(type(each), _function(each)) for each in torchs}
    cell = _Cell()
    for each, ours in copies.items():
        if ours is not None and all(copies.get(submodule) for submodule in each.modules()):
            each.forward = types.MethodType(_without_mode(_function(each), ours, cell), each)
    return all(copies.get(each) and writes_nothing(each) for each in module.modules())


def _function(module: nn.Module) -> types.FunctionType:
    """What the forward of a listed module is a method of."""
    return cast(types.FunctionType, cast(types.MethodType, module.forward).__func__)


def _copy(kind: type[nn.Module], forward: types.FunctionType) -> types.FunctionType | None:
    """A forward of a listed class for `call_aside`; None where another method of the class meets the mode's table."""
    reached = [forward]
    for function in reached:  # which grows
        names = set(function.__code__.co_names)
        methods = [m for name, m in _METHODS[kind].items() if name in names and isinstance(m, types.FunctionType)]
        reached += [method for method in methods if method not in reached]
    if any(aside(method, PureMode) is not method for method in reached[1:]):
        return None
    return aside(forward, PureMode)


def _without_mode(forward: Callable[..., Any], ours: Callable[..., Any], cell: _Cell) -> Callable[..., Any]:
    def run(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if cell.mode is not None:
            return ours(self, *args, **kwargs)
        mode = _compat.function_mode()
        if type(mode) is not PureMode or not mode.aside:  # none, or somebody's own on top of it
            return forward(self, *args, **kwargs)
        try:
            cell.mode = mode
            _compat.pop_function_mode()
            return call_aside(mode, ours, (self, *args), kwargs)
        finally:
            cell.mode = None
            if _compat.function_mode() is not mode:  # an interrupt may come before it was taken off
                _compat.push_function_mode(mode)

    return run
