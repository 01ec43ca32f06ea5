"""The adaptive softmax, which torch computes by looking at the targets in Python."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from funcnet import _compat

__all__ = ["adaptive_log_softmax"]


def adaptive_log_softmax(module: nn.AdaptiveLogSoftmaxWithLoss, input: Tensor, target: Tensor) -> Any:
    """The forward of an adaptive softmax (Grave et al. 2017) without looking at the targets.

    Torch picks the rows of each cluster in Python, which neither `vmap` nor a compiled step can do: there every cluster
    is computed for every row. A target out of range, which torch refuses, gives NaN.
    """
    if _compat.plain():
        return type(module).forward(module, input, target)
    head = F.log_softmax(module.head(input), -1)
    first = module.cutoffs[0]

    def at(log_probabilities: Tensor, index: Tensor, size: int) -> Tensor:
        return log_probabilities.gather(-1, index.clamp(0, size - 1)[..., None])[..., 0]

    output = torch.where((target >= 0) & (target < first), at(head, target, first), torch.nan)
    for i, (low, high) in enumerate(zip(module.cutoffs, module.cutoffs[1:], strict=False)):
        within = F.log_softmax(module.tail[i](input), -1)
        mine = head[..., first + i] + at(within, target - low, high - low)
        output = torch.where((target >= low) & (target < high), mine, output)
    return _compat.AdaptiveOutput(output, -output.mean())
