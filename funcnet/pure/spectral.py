"""Spectral normalization: the vectors of its power iteration are returned as new state, never written.

`torch.nn.utils.spectral_norm`, in either form, hands its buffers to `F.normalize(..., out=buffer)`, which has no
batching rule and no forward derivative, and would write what `vmap` cannot write into an unbatched buffer.
"""

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from funcnet.pure.mode import PureMode

__all__ = ["SPECTRAL"]


def normalize(
    mode: "PureMode", input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None
) -> Tensor:
    """`F.normalize` whose `out`, where it is a state tensor of the call, is replaced instead of written."""
    result = F.normalize(input, p, dim, eps)
    if out is None:
        return result
    held = mode.held()
    if mode.holds(out) and any(t is out for t in held):
        mode.stand_in(result, out)
        mode.put([result if t is out else t for t in held])
        return result
    return out.copy_(result)


SPECTRAL: dict[Any, Any] = {F.normalize: normalize}
"""From torch function to pure replacement."""
