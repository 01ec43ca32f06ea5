"""Functions whose kernels torch does not map, or differentiate as often as asked, or does wrongly: by their formulas.

Forward mode takes the statistics that the kernels of layer and batch normalization save for constants, so that a second
derivative over it is wrong without a word, and so are third derivatives in reverse (torch 2.15, errors of 10 to 100 %).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from funcnet import _compat

if TYPE_CHECKING:
    from funcnet.pure.mode import PureMode

__all__ = ["FORMULAS", "beyond_kernels", "standardized"]


def beyond_kernels(*tensors: Tensor | None, reverse: int = 2) -> bool:
    """Whether forward mode, or more than `reverse` levels of reverse mode, is asked of a function of these tensors."""
    if reverse and _compat.first_order():
        return False
    asked = _compat.asked_of(*(t for t in tensors if t is not None))
    return asked.forward or asked.reverse > reverse


def standardized(
    input: Tensor, axes: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`(x - mean) / sqrt(var + eps) * weight + bias` with statistics over some axes; the mean, and the biased variance.

    `weight` and `bias` have a shape that broadcasts against the input. Half precision is computed in float32.
    """
    x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
    mean = x.mean(axes, keepdim=True)
    var = ((x - mean) ** 2).mean(axes, keepdim=True)
    output = (x - mean) / torch.sqrt(var + eps)
    output = output if weight is None else output * weight
    output = output if bias is None else output + bias
    return output.to(input.dtype), mean, var


def layer_norm(
    _: "PureMode",
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *cudnn_enable: bool,
) -> Tensor:
    """`F.layer_norm` (Ba et al. 2016)."""
    if not beyond_kernels(input, weight, bias):
        return F.layer_norm(input, normalized_shape, weight, bias, eps)
    return standardized(input, tuple(range(-len(normalized_shape), 0)), weight, bias, eps)[0]


def glu(_: "PureMode", input: Tensor, dim: int = -1) -> Tensor:
    """`F.glu`, `a * sigmoid(b)` of the two halves (Dauphin et al. 2016)."""
    if not beyond_kernels(input):
        return F.glu(input, dim)
    a, b = input.chunk(2, dim)
    return a * torch.sigmoid(b)


def hardsigmoid(_: "PureMode", input: Tensor, inplace: bool = False) -> Tensor:
    """`F.hardsigmoid`, `min(max(x + 3, 0), 6) / 6` (Howard et al. 2019), whose kernel is differentiated once only."""
    if not beyond_kernels(input, reverse=1):
        return F.hardsigmoid(input, inplace)
    output = F.relu6(input + 3) / 6
    return input.copy_(output) if inplace else output


def multi_margin_loss(
    _: "PureMode",
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """`F.multi_margin_loss`: the sum over the other classes j of `max(0, margin - x_y + x_j)^p / C`."""
    legacy = size_average is not None or reduce is not None
    batched = _compat.asked_of(input, target).batched
    if legacy or not (batched or beyond_kernels(input, weight, reverse=1)):
        return F.multi_margin_loss(input, target, p, margin, weight, size_average, reduce, reduction)
    index = target.reshape(*input.shape[:-1], 1)
    short = (margin - input.gather(-1, index) + input).clamp(min=0) ** p
    if weight is not None:
        short = short * weight[index]
    others = torch.arange(input.shape[-1], device=input.device) != index
    losses = torch.where(others, short, 0.0).sum(-1) / input.shape[-1]
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


def _average_pool(function: Callable[..., Tensor], axes: tuple[int, ...]) -> Callable[..., Tensor]:
    def adaptive_average_pool(_: "PureMode", input: Tensor, output_size: Any) -> Tensor:
        """Adaptive average pooling: to one value a channel a mean, since torch's shortcut has no batching rule."""
        sizes = output_size if isinstance(output_size, Sequence) else [output_size]
        if any(size != 1 for size in sizes) or not _compat.asked_of(input).batched:
            return function(input, output_size)
        return input.mean(axes, keepdim=True)

    return adaptive_average_pool


FORMULAS: dict[Any, Any] = {
    F.adaptive_avg_pool1d: _average_pool(F.adaptive_avg_pool1d, (-1,)),
    F.adaptive_avg_pool2d: _average_pool(F.adaptive_avg_pool2d, (-2, -1)),
    F.adaptive_avg_pool3d: _average_pool(F.adaptive_avg_pool3d, (-3, -2, -1)),
    F.layer_norm: layer_norm,
    torch.layer_norm: layer_norm,
    F.glu: glu,
    F.hardsigmoid: hardsigmoid,
    F.multi_margin_loss: multi_margin_loss,
}
