"""Lengths, which are counted in steps: Python integers, so that a schedule's shape is known when it is compiled."""

import operator

__all__ = ["length"]


def length(value: int, name: str, rule: str, least: int = 1) -> int:
    """Check a number of steps: `TypeError` for what is no integer, `ValueError` for less than `least`."""
    try:
        steps = operator.index(value)
    except TypeError:
        raise TypeError(f"{rule} got {name}={value!r}: a number of steps is an int, as in {name}=1000.") from None
    if steps < least:
        raise ValueError(f"{rule} got {name}={value}, and needs at least {least}: it is a number of steps.")
    return steps
