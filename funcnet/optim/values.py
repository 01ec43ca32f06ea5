"""Hyperparameters and step counts: numbers, 0-dim tensors, and schedules of them."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from ..tree import PyTree, leaves

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = ["Scalar", "ScalarOrSchedule", "Schedule"]

Scalar: TypeAlias = float | Tensor
"""A Python number, or a 0-dim tensor: to change without a recompile, to vmap over, to differentiate."""

Schedule: TypeAlias = Callable[[Tensor], Scalar]
"""From an int32 0-dim step count, the first being 0, to a value."""

ScalarOrSchedule: TypeAlias = Scalar | Schedule


def scalar(value: Scalar, name: str) -> Scalar:
    """Check a hyperparameter: a number or a 0-dim tensor.

    Raises `TypeError` for anything else, and `ValueError` for a tensor with axes, which would broadcast.
    """
    if isinstance(value, Tensor):
        if value.ndim:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, where one value is needed: it would broadcast against every "
                f"leaf. For one value per member write vmap over it, as in vmap(lambda {name}: ...)(values)."
            )
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is a {type(value).__name__}, not a number or a 0-dim tensor: write {name}=1e-3.")
    return value


def decay_rate(value: Scalar, name: str) -> Scalar:
    """Check the decay of a running mean: a scalar that, where it is a number, lies in [0, 1)."""
    if not isinstance(scalar(value, name), Tensor) and not 0 <= value < 1:
        raise ValueError(
            f"{name} is {value}, and a running mean needs 0 <= {name} < 1: 0.9 keeps nine tenths of what it was."
        )
    return value


def is_schedule(value: ScalarOrSchedule, name: str) -> "TypeIs[Schedule]":
    """Whether a hyperparameter is a schedule; anything that is neither that nor a scalar raises `TypeError`."""
    if isinstance(value, Tensor | int | float) and not isinstance(value, bool):
        scalar(value, name)
        return False
    if not callable(value) or isinstance(value, torch.nn.Module | type):
        raise TypeError(
            f"{name} is a {type(value).__name__}, not a number, a 0-dim tensor or a schedule: write {name}=1e-3, or a "
            f"function of the step count such as {name}=optim.cosine_decay_schedule(1e-3, 1000)."
        )
    return True


def value_at(schedule: ScalarOrSchedule, count: Tensor, name: str) -> Scalar:
    """The value of a hyperparameter at a step, checked to be one value: a constant's at every step."""
    if isinstance(schedule, Tensor | int | float):
        return scalar(schedule, name)
    return scalar(schedule(count), f"the value of the schedule {name}")


def increment(count: Tensor) -> Tensor:
    """The next step count, which stays at the largest of its dtype rather than wrap to a negative one."""
    return count.clamp(max=torch.iinfo(count.dtype).max - 1) + 1


def zero_count(params: PyTree) -> Tensor:
    """A step count of 0, an int32 0-dim tensor on the device of the parameters."""
    return torch.zeros((), dtype=torch.int32, device=device_of(params))


def device_of(params: PyTree) -> torch.device | None:
    """Where the first tensor of a tree is; None where it has none."""
    return next((leaf.device for leaf in leaves(params) if isinstance(leaf, Tensor)), None)


def precise(tree: PyTree) -> torch.dtype:
    """The dtype for scalars that go with a tree: float64 where a leaf is of double precision, else float32."""
    double = any(isinstance(leaf, Tensor) and leaf.dtype in (torch.float64, torch.complex128) for leaf in leaves(tree))
    return torch.float64 if double else torch.float32


def stored(value: Scalar, params: PyTree) -> Tensor:
    """A number as a state keeps it: a 0-dim tensor of its own, in the precision of the parameters and beside them."""
    return torch.as_tensor(value, dtype=precise(params), device=device_of(params)).clone()


def correction(decay: Scalar, count: Tensor, dtype: torch.dtype) -> Tensor:
    """`1 - decay**count` without the cancellation that costs float32 four of its seven digits at 0.999.

    A running mean that began at zero is short by this factor after `count` steps (Kingma and Ba, arXiv:1412.6980).
    """
    log = decay.log() if isinstance(decay, Tensor) else math.log(decay) if decay > 0 else -math.inf
    return -torch.expm1(count.to(dtype) * log)
