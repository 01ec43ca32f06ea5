"""Dynamic loss scaling: gradients of a half-precision loss, kept within what float16 can hold."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import tree
from funcnet.optim.wrappers.conditions import all_finite

__all__ = ["LossScale"]


class LossScale(NamedTuple):
    """The factor of a loss, and how long it has held (Micikevicius et al., arXiv:1710.03740).

    Small gradients vanish in float16. So the loss is multiplied by a scale as large as the gradients bear, and the
    gradients divided by it: `scale`, differentiate, `unscale`, see whether they are finite, take the step only if so,
    and `adjust`. The state is tensors alone and nothing reads them, so a compiled step has it as one of its arguments.

    >>> state = LossScale.create(4.0)
    >>> grads = {"w": state.multiply(torch.tensor(0.5))}
    >>> grads = state.unscale(grads)
    >>> finite = state.finite(grads)
    >>> state.adjust(finite, interval=1).scale, state.adjust(~finite).scale
    (tensor(8.), tensor(2.))
    """

    scale: Tensor
    """float32, 0-dim"""
    good_steps: Tensor
    """int32, 0-dim: finite steps since the scale last changed"""

    @classmethod
    def create(cls, scale: float = 2.0**15, *, device: torch.device | str | None = None) -> "LossScale":
        """The state before the first step.

        Raises:
            ValueError: `scale` is no power of two, by which alone multiplying and dividing rounds nothing.
        """
        _power_of_two("scale", scale)
        return cls(
            torch.tensor(scale, dtype=torch.float32, device=device), torch.zeros((), dtype=torch.int32, device=device)
        )

    def multiply(self, loss: Tensor) -> Tensor:
        """The loss to differentiate. A half-precision loss becomes float32, in which the scale has room."""
        wide = loss.float() if loss.dtype in (torch.float16, torch.bfloat16) else loss
        return wide * self.scale.to(wide.dtype)

    def unscale(self, grads: Any) -> Any:
        """Gradients of `multiply(loss)` as those of the loss: floating leaves over the scale, in their own dtypes."""

        def one(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor) or not (leaf.is_floating_point() or leaf.is_complex()):
                return leaf
            # A reciprocal of a power of two is exact; of a half-precision leaf, one that its dtype may not hold.
            inverse = self.scale.reciprocal()
            if leaf.dtype in (torch.float16, torch.bfloat16):
                return (leaf.float() * inverse).to(leaf.dtype)
            return leaf * inverse.to(leaf.dtype.to_real())

        return tree.map(one, grads)

    def finite(self, grads: Any) -> Tensor:
        """Whether every element of every leaf is finite: bool, 0-dim."""
        return all_finite(grads, like=torch.ones((), dtype=torch.bool, device=self.scale.device))

    def adjust(
        self,
        finite: Tensor,
        *,
        growth: float = 2.0,
        backoff: float = 0.5,
        interval: int = 2000,
        floor: float = 1.0,
        ceiling: float = 2.0**24,
    ) -> "LossScale":
        """The scale of the next step.

        Args:
            finite: bool, 0-dim: whether this step's gradients were, so that it was taken.
            growth: the factor after `interval` finite steps in a row.
            backoff: the factor after a step that was not finite.
            interval: how many finite steps.
            floor, ceiling: what the scale stays within.

        Raises:
            ValueError: a factor that is no power of two or goes the wrong way, an interval under 1, or a floor above
                the ceiling.
        """
        for name, value in (("growth", growth), ("backoff", backoff), ("floor", floor), ("ceiling", ceiling)):
            _power_of_two(name, value)
        if not (growth > 1 > backoff and interval >= 1 and floor <= ceiling):
            raise ValueError(
                f"LossScale.adjust got growth={growth}, backoff={backoff}, interval={interval}, floor={floor} and "
                f"ceiling={ceiling}. It needs growth above 1 and backoff under 1, one step at least, and a floor under "
                "the ceiling."
            )
        steps = self.good_steps + 1
        due = steps >= interval
        grown = torch.where(due, self.scale * growth, self.scale)
        scale = torch.where(finite, grown, self.scale * backoff).clamp(floor, ceiling)
        return LossScale(scale, torch.where(finite & ~due, steps, 0).to(self.good_steps.dtype))


def _power_of_two(name: str, value: float) -> None:
    if not (0 < value < math.inf and math.frexp(value)[0] == 0.5):
        raise ValueError(
            f"LossScale got {name}={value}, which is no power of two: only by those does multiplying round nothing. "
            f"Write {name}=2.0**15, or 0.5."
        )
