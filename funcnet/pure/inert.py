"""Modules that ask nothing of the function mode: a call of nothing but these runs without it, and leaves no trace.

The mode costs about 3 us for each torch function, a third of a tiny layer. Whoever writes a forward may call anything
in it, so only torch's own classes are listed here, and only as torch made them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from funcnet import _compat

__all__ = ["ALWAYS", "IN_EVALUATION", "Line", "inert", "writes_nothing"]

# They call nothing that the mode's table changes the result of, draw nothing, write nothing and assign no attribute.
ALWAYS = (
    nn.Sequential, nn.Identity, nn.Flatten, nn.Unflatten, nn.Linear, nn.Bilinear, nn.Embedding,
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.Upsample, nn.PixelShuffle,
    nn.GroupNorm, nn.RMSNorm,
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
    nn.Hardtanh, nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Softplus, nn.Softsign, nn.Tanhshrink, nn.Softmax, nn.LogSoftmax,
)  # fmt: skip
# Likewise in evaluation: what their functions then do is what the mode has them do.
IN_EVALUATION = (
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d,
)  # fmt: skip
# As they are now: somebody may put another forward in their place.
_FORWARDS = {cls: cls.forward for cls in (*ALWAYS, *IN_EVALUATION)}


def inert(module: nn.Module) -> bool:
    """Whether a call of a module, in the mode (train or evaluation) it is in, may run without the function mode."""
    return all(map(_inert, module.modules()))


def writes_nothing(module: nn.Module) -> bool:
    """Whether a module of torch's own class leaves its parameters and its argument as they are."""
    # In place is an activation's argument, and an Embedding with a largest norm rescales its parameter.
    return not getattr(module, "inplace", False) and getattr(module, "max_norm", None) is None


def _inert(module: nn.Module) -> bool:
    kind = type(module)
    return (
        (kind in ALWAYS or (kind in IN_EVALUATION and not module.training))
        and kind.forward is _FORWARDS[kind]
        and "forward" not in vars(module)
        and writes_nothing(module)
        and not _compat.hooked(module)
    )


class Line:
    """An inert module as the layers whose forwards it calls, one after another.

    Nothing is hooked onto these calls, so that there is nothing but the forwards to call; and tensors lie where Python
    looks first for an attribute, before it asks `nn.Module`.
    """

    def __init__(self, module: nn.Module) -> None:
        """Take the module, which holds no modules but in `nn.Sequential`."""
        self._whole = module.forward
        self._parts = list(_parts(module)) if type(module) is nn.Sequential else None
        self._attributes: list[tuple[dict[str, Any], str, str]] = []

    def place(self, owner: nn.Module, key: str, name: str) -> None:
        """Tell where a tensor belongs, and its name."""
        self._attributes.append((vars(owner), key, name))

    def run(self, values: Mapping[str, Tensor], args: Sequence[Any]) -> Any:
        """The call with these tensors, by name."""
        for attributes, key, name in self._attributes:
            attributes[key] = values[name]
        try:
            if self._parts is None or len(args) != 1:
                return self._whole(*args)
            (x,) = args
            for part in self._parts:
                x = part.forward(x)
            return x
        finally:
            for attributes, key, _ in self._attributes:
                attributes.pop(key, None)


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    if type(module) is nn.Sequential:
        for child in module:
            yield from _parts(child)
    else:
        yield module
