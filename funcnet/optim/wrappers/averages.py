"""Running means: of updates, and of parameters."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...tree import PyTree, flatten, unflatten
from ...tree.mismatch import match
from ..base import GradientTransformation
from ..leafwise import each, moment_zeros, wide
from ..values import Scalar, correction, decay_rate, increment, precise, scalar, zero_count

__all__ = ["EmaState", "ema", "incremental_update", "periodic_update"]


class EmaState(NamedTuple):
    """How many updates were made, and their running mean."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""
    ema: PyTree
    """like the parameters"""


def ema(decay: Scalar, debias: bool = True, accumulator_dtype: torch.dtype | None = None) -> GradientTransformation:
    r"""The running mean of the updates, $m_t = \beta m_{t-1} + (1 - \beta) g_t$.

    With `debias` it is divided by $1 - \beta^t$, which makes up for the zeros that it began with.

    >>> rule = ema(0.9)
    >>> state = rule.init({"w": torch.ones(1)})
    >>> rule.update({"w": torch.tensor([2.0])}, state)[0]
    {'w': tensor([2.])}
    """
    decay_rate(decay, "decay")

    def init(params: PyTree) -> EmaState:
        return EmaState(count=zero_count(params), ema=moment_zeros(params, accumulator_dtype))

    def update(updates: PyTree, state: EmaState, params: PyTree = None, **extra: Any) -> tuple[PyTree, EmaState]:
        count = increment(state.count)
        short = correction(decay, count, precise(state.ema)) if debias else 1.0

        def leaf(g: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
            m = decay * m + (1 - decay) * g
            return m / short, m

        moved, mean = each(leaf, updates, ema=state.ema)
        return moved, EmaState(count=count, ema=mean)

    return GradientTransformation(init, update)


def incremental_update(new_tensors: PyTree, old_tensors: PyTree, step_size: Scalar) -> PyTree:
    r"""Move one tree towards another, $s \cdot \mathrm{new} + (1 - s) \cdot \mathrm{old}$, in the dtypes of the old.

    For averages of parameters over a run (Polyak and Juditsky 1992, doi:10.1137/0330046), and target networks.

    Raises `TreeMismatchError` where the trees do not match.

    >>> incremental_update({"w": torch.tensor([4.0])}, {"w": torch.tensor([0.0])}, 0.25)
    {'w': tensor([1.])}
    """
    scalar(step_size, "step_size")
    values, treedef = flatten(old_tensors)
    given = match(new_tensors, old_tensors, "new_tensors", "old_tensors")

    def moved(new: Tensor, old: Tensor) -> Tensor:
        dtype = wide(old.dtype)
        return (step_size * new.to(dtype) + (1 - step_size) * old.to(dtype)).to(old.dtype)

    return unflatten(treedef, [moved(new, old) for new, old in zip(given, values, strict=True)])


def periodic_update(
    new_tensors: PyTree, old_tensors: PyTree, steps: Tensor | int, update_period: Tensor | int
) -> PyTree:
    """The new tree where `steps` is a multiple of `update_period`, else the old: for target networks.

    Raises `TreeMismatchError` where the trees do not match, and `ValueError` where `update_period` is less than 1.

    >>> periodic_update({"w": torch.tensor([4.0])}, {"w": torch.tensor([0.0])}, torch.tensor(6), 3)
    {'w': tensor([4.])}
    """
    if not isinstance(update_period, Tensor) and update_period < 1:
        raise ValueError(f"update_period is {update_period}, and counts steps: write 1 or more.")
    values, treedef = flatten(old_tensors)
    given = match(new_tensors, old_tensors, "new_tensors", "old_tensors", dtype=True)
    now = torch.as_tensor(steps % update_period == 0)
    return unflatten(treedef, [torch.where(now, new, old) for new, old in zip(given, values, strict=True)])
