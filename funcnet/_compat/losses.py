"""What torch's losses return."""

from torch.nn.modules import adaptive

__all__ = ["AdaptiveOutput"]

AdaptiveOutput = adaptive._ASMoutput
"""What `nn.AdaptiveLogSoftmaxWithLoss` returns: the named tuple `(output, loss)`. Checked on 2.15.0."""
