"""Lengths, which are counted in steps: Python integers, so that a schedule's shape is known when it is compiled."""

import operator
from typing import Any

from torch import Tensor

from ..values import Scalar, scalar

__all__ = ["duration", "length", "nonzero", "number_of_steps", "part_of"]


def length(value: int, name: str, rule: str, least: int = 1) -> int:
    """Check a number of steps: `TypeError` for what is no integer, `ValueError` for less than `least`."""
    try:
        steps = operator.index(None if isinstance(value, bool) else value)  # type: ignore[arg-type]  # tried
    except TypeError:
        raise TypeError(f"{rule} got {name}={value!r}: a number of steps is an int, as in {name}=1000.") from None
    if steps < least:
        raise ValueError(f"{rule} got {name}={value}, and needs at least {least}: it is a number of steps.")
    return steps


def number_of_steps(value: Any, name: str) -> Any:
    """Check a number of steps that may be zero, negative or a fraction, as in optax: `TypeError` for no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | Tensor):
        raise TypeError(f"{name} is {value!r}, and counts steps: write an int, as in {name}=1000.")
    return value


def duration(value: Any, name: str, rule: str) -> Any:
    """Check a number of steps to divide by, which may be a fraction: `ValueError` unless it is positive."""
    if not isinstance(number_of_steps(value, name), Tensor) and not value > 0:
        raise ValueError(
            f"{rule} got {name}={value}, and needs a positive number of steps: for a value that stays write "
            "optim.constant_schedule(value)."
        )
    return value


def part_of(value: float, name: str, rule: str) -> float:
    """Check a part of the steps, from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{rule} got {name}={value!r}, and needs a number from 0 to 1: the part of the steps.")
    if not 0 <= value <= 1:
        raise ValueError(f"{rule} got {name}={value}, and needs a part of the steps, from 0 to 1.")
    return value


def nonzero(value: Scalar, name: str, rule: str) -> Scalar:
    """Check a scalar to divide by."""
    if not isinstance(scalar(value, name), Tensor) and value == 0:
        raise ValueError(f"{rule} got {name}=0: a value is divided by it.")
    return value
