"""The nearest probabilities: sparsemax."""

import torch
from torch import Tensor

__all__ = ["unit_simplex"]


def unit_simplex(values: Tensor) -> Tensor:
    r"""The nearest point with elements not negative that sum to 1, along the last axis: sparsemax.

    $p = \max(0, x - \tau)$ with $\tau$ such that they sum to 1 (Martins and Astudillo, arXiv:1602.02068; Duchi et al.
    2008). Its Jacobian on the support is that of centring.

    >>> unit_simplex(torch.tensor([1.0, 0.5, -3.0]))
    tensor([0.7500, 0.2500, 0.0000])
    """
    values = values - values.detach().amax(-1, keepdim=True)
    falling = values.detach().sort(-1, descending=True).values
    excess = falling.cumsum(-1) - 1
    ranks = torch.arange(1, values.shape[-1] + 1, dtype=values.dtype, device=values.device)
    size = (ranks * falling > excess).sum(-1, keepdim=True).clamp(min=1)
    outside = values <= excess.gather(-1, size - 1) / size
    # The threshold again from those inside, which is what it depends on.
    inside = torch.where(outside, 0, values)
    threshold = (inside.sum(-1, keepdim=True) - 1) / (~outside).sum(-1, keepdim=True)
    return torch.where(outside, 0, torch.relu(values - threshold))
