"""A learning rate that falls where the loss stops falling."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...tree import PyTree
from ..arguments import loss_value, nonnegative, stateful, whole
from ..base import GradientTransformation
from ..leafwise import scaled
from ..values import Scalar, increment, scalar, stored, zero_count

__all__ = ["ReduceLROnPlateauState", "reduce_on_plateau"]


class ReduceLROnPlateauState(NamedTuple):
    """The scale, the best value so far, three counts, and the mean of the values since the last look."""

    scale: Tensor
    best_value: Tensor
    plateau_count: Tensor
    """int32, 0-dim: looks without improvement"""
    cooldown_count: Tensor
    """int32, 0-dim: looks still to wait"""
    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim: values since the last look"""
    avg_value: Tensor


def reduce_on_plateau(
    factor: Scalar = 0.1,
    patience: int | Tensor = 10,
    rtol: Scalar = 1e-4,
    atol: Scalar = 0.0,
    cooldown: int | Tensor = 0,
    accumulation_size: int | Tensor = 1,
    min_scale: Scalar = 0.0,
) -> GradientTransformation:
    r"""Multiply the updates by a scale that begins at 1 and falls by `factor` where a value stops improving.

    `update` takes `value=`, the loss, and looks at the mean of every `accumulation_size` of them. A look improves where
    the mean is below $(1 - r) b - a$ (`rtol`, `atol`) with $b$ the best so far. After `patience` looks without
    improvement the scale falls, at most to `min_scale`, and the next `cooldown` looks are not counted. As
    `torch.optim.lr_scheduler.ReduceLROnPlateau`, which waits for one look more than `patience`.

    Raises `ValueError` where `factor` is not between 0 and 1, or the tolerances are negative, both zero, or `rtol` is
    above 1.

    >>> rule = reduce_on_plateau(factor=0.5, patience=2)
    >>> gradient = {"w": torch.ones(1)}
    >>> state = rule.init(gradient)
    >>> for loss in (3.0, 2.0, 2.0, 2.0):
    ...     updates, state = rule.update(gradient, state, gradient, value=loss)
    ...     print(updates["w"].item())
    1.0
    1.0
    1.0
    0.5
    """
    scalar(factor, "factor"), scalar(rtol, "rtol"), scalar(atol, "atol"), nonnegative(min_scale, "min_scale")
    whole(patience, "patience", "looks", 0), whole(cooldown, "cooldown", "looks", 0)
    whole(accumulation_size, "accumulation_size", "values")
    if not isinstance(factor, Tensor) and not 0 < factor < 1:
        raise ValueError(f"factor is {factor}, and must be between 0 and 1: the scale is multiplied by it.")
    if (
        not isinstance(rtol, Tensor)
        and not isinstance(atol, Tensor)
        and not (0 <= rtol <= 1 and atol >= 0 < rtol + atol)
    ):
        raise ValueError(
            f"rtol is {rtol} and atol {atol}: rtol must be between 0 and 1 and atol not negative, and one of them more "
            "than 0, else rounding counts as an improvement."
        )

    def init(params: PyTree) -> ReduceLROnPlateauState:
        return ReduceLROnPlateauState(
            scale=stored(1.0, params),
            best_value=stored(float("inf"), params),
            plateau_count=zero_count(params),
            cooldown_count=zero_count(params),
            count=zero_count(params),
            avg_value=stored(0.0, params),
        )

    def update(
        updates: PyTree, state: ReduceLROnPlateauState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ReduceLROnPlateauState]:
        value = loss_value(extra, "reduce_on_plateau")
        count = increment(state.count)
        mean = (state.count * state.avg_value + value) / count
        looked = _looked(state, mean)
        due = count == accumulation_size
        waiting = state._replace(count=count, avg_value=mean)
        new = ReduceLROnPlateauState(
            *[torch.where(due, a, b).to(old.dtype) for a, b, old in zip(looked, waiting, state, strict=True)]
        )
        return scaled(updates, new.scale), new

    def _looked(state: ReduceLROnPlateauState, mean: Tensor) -> ReduceLROnPlateauState:
        improved = mean < (1 - rtol) * state.best_value - atol
        bad = torch.where(improved, 0, increment(state.plateau_count))
        cooling = state.cooldown_count > 0
        falls = ~cooling & (bad == patience)
        scale = torch.clamp(torch.where(falls, state.scale * factor, state.scale), min=min_scale)
        return ReduceLROnPlateauState(
            scale=torch.where(cooling, state.scale, scale),
            best_value=torch.where(improved, mean, state.best_value),
            plateau_count=torch.where(cooling | falls, 0, bad),
            cooldown_count=torch.where(cooling, state.cooldown_count - 1, torch.where(falls, cooldown, 0)),
            count=torch.zeros_like(state.count),
            avg_value=torch.zeros_like(state.avg_value),
        )

    return stateful(ReduceLROnPlateauState, init, update)
