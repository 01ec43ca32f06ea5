"""Modules that ask nothing of the function mode: a call of nothing but these runs without it, and leaves no trace.

The mode costs about 3 us for each torch function, a third of a tiny layer. Whoever writes a forward may call anything
in it, so only torch's own classes are listed here, and only as torch made them.
"""

from torch import nn

from funcnet import _compat

__all__ = ["ALWAYS", "IN_EVALUATION", "inert", "writes_nothing"]

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
