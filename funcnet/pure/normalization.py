"""Normalization: running statistics are returned as new state, never written."""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from funcnet import _compat
from funcnet.pure.examples import mind_single_examples
from funcnet.pure.formulas import beyond_kernels, standardized

if TYPE_CHECKING:
    from funcnet.pure.mode import PureMode

__all__ = ["NORMALIZATION", "cumulative_batch_norm"]


def batch_norm(
    mode: "PureMode",
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm` (Ioffe and Szegedy 2015) with the new running statistics as updates of the mode."""
    if training:
        mind_single_examples(input)
    mean, var = (t if t is None else mode.current(t) for t in (running_mean, running_var))
    if (
        running_mean is None
        or running_var is None
        or mean is None
        or var is None
        or not training
        or not mode.holds(running_mean)
    ):
        if training and beyond_kernels(input, weight, bias):
            return _by_formula(input, weight, bias, eps)[0]
        return F.batch_norm(input, mean, var, weight, bias, training, momentum, eps)  # type: ignore[arg-type]  # a tensor momentum comes with statistics of this call
    if _compat.plain() and not isinstance(momentum, Tensor):
        # The native kernel writes its statistics in place: into copies, which are then the new state.
        mean, var = mean.clone(), var.clone()
        output = F.batch_norm(input, mean, var, weight, bias, True, momentum, eps)
    else:
        # Under vmap the statistics of the batch have an axis that the running ones lack, so nothing can be in place.
        formula = beyond_kernels(input, weight, bias)
        normalized = _by_formula if formula else _compat.batch_norm_statistics
        output, batch_mean, batch_var = normalized(input, weight, bias, eps)
        count = input.numel() / input.shape[1]
        mean = torch.lerp(mean, batch_mean.to(mean.dtype).detach(), momentum)
        var = torch.lerp(var, (batch_var * (count / (count - 1))).to(var.dtype).detach(), momentum)
    mode.update(running_mean, mean)
    mode.update(running_var, var)
    return output


def _by_formula(input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Batch normalization without running statistics: the output, the batch's mean and its biased variance."""
    axes = (0, *range(2, input.ndim))
    weight, bias = (t if t is None else _per_channel(t, input) for t in (weight, bias))
    output, mean, var = standardized(input, axes, weight, bias, eps)
    return output, mean.flatten(), var.flatten()


def _per_channel(values: Tensor, input: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (input.ndim - 2))


def torch_batch_norm(
    mode: "PureMode",
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    """`torch.batch_norm`: the same with the arguments in another order."""
    return batch_norm(mode, input, running_mean, running_var, weight, bias, training, momentum, eps)


def instance_norm(
    mode: "PureMode",
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.instance_norm` (Ulyanov et al. 2016) with the new running statistics as updates of the mode."""
    mean, var = (t if t is None else mode.current(t) for t in (running_mean, running_var))
    if (
        running_mean is None
        or running_var is None
        or mean is None
        or var is None
        or not use_input_stats
        or not mode.holds(running_mean)
    ):
        if use_input_stats and beyond_kernels(input, weight, bias):
            return _of_instances(input, weight, bias, eps)
        return F.instance_norm(input, mean, var, weight, bias, use_input_stats, momentum, eps)
    if beyond_kernels(input, weight, bias):
        output = _of_instances(input, weight, bias, eps)
    else:
        output = F.instance_norm(input, None, None, weight, bias, True, momentum, eps)
    pixels = tuple(range(2, input.ndim))
    batch_var, batch_mean = torch.var_mean(input.detach(), dim=pixels)
    mode.update(running_mean, torch.lerp(mean, batch_mean.mean(0).to(mean.dtype), momentum))
    mode.update(running_var, torch.lerp(var, batch_var.mean(0).to(var.dtype), momentum))
    return output


def _of_instances(input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    weight, bias = (t if t is None else _per_channel(t, input) for t in (weight, bias))
    return standardized(input, tuple(range(2, input.ndim)), weight, bias, eps)[0]


def cumulative_batch_norm(module: Any, input: Tensor) -> Tensor:
    """The forward of a BatchNorm with `momentum=None`, whose statistics average all batches so far.

    Torch reads the count with `float()`, which a compiled step cannot do; a 0-dim tensor serves as the momentum.
    """
    module._check_input_dim(input)
    mean, var = module.running_mean, module.running_var
    training = module.training or mean is None
    momentum: Any = 0.0
    if module.training and mean is not None:
        module.num_batches_tracked = module.num_batches_tracked + 1
        momentum = 1 / module.num_batches_tracked.to(mean.dtype)
    return F.batch_norm(input, mean, var, module.weight, module.bias, training, momentum, module.eps)


NORMALIZATION: dict[Any, Any] = {
    F.batch_norm: batch_norm,
    F.instance_norm: instance_norm,
    torch.batch_norm: torch_batch_norm,
}
