"""Fair timing: functions take turns in blocks, and ratios are taken within a round."""

import time
from collections.abc import Callable, Mapping
from statistics import median, quantiles
from typing import Any, NamedTuple

import torch

__all__ = ["Timing", "compare"]


class Timing(NamedTuple):
    """How long one call of a function takes, in seconds."""

    median: float
    low: float
    """The 10th percentile of the calls."""
    high: float
    """The 90th percentile."""
    rounds: tuple[float, ...]
    """The median of each round."""

    def over(self, other: "Timing") -> tuple[float, float, float]:
        """The ratio to another timing of the same run: the median over rounds, and its 10th and 90th percentile."""
        ratios = [mine / theirs for mine, theirs in zip(self.rounds, other.rounds, strict=True)]
        return median(ratios), *_spread(ratios)


def compare(functions: Mapping[str, Callable[[], Any]], *, rounds: int = 20, block: int = 10) -> dict[str, Timing]:
    """Time functions against each other.

    In each round every function runs `block` times in a row, after one call that is not counted (it finds the caches
    full of its neighbour's data, which no training loop does). Rounds alternate, so that a slow minute of the machine
    falls on all alike. Calls on a GPU are waited for.

    Args:
        functions: what to time, by name; each is called without arguments.
        rounds: how many rounds; ratios have as many samples.
        block: calls a round.

    >>> timings = compare({"small": lambda: sum(range(10)), "large": lambda: sum(range(10000))}, rounds=5)
    >>> timings["large"].over(timings["small"])[0] > 2
    True
    """
    calls: dict[str, list[float]] = {name: [] for name in functions}
    medians: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            function()
            taken = [_time(function) for _ in range(block)]
            calls[name] += taken
            medians[name].append(median(taken))
    return {name: Timing(median(taken), *_spread(taken), tuple(medians[name])) for name, taken in calls.items()}


def _time(function: Callable[[], Any]) -> float:
    _synchronize()
    start = time.perf_counter()
    function()
    _synchronize()
    return time.perf_counter() - start


def _synchronize() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's own function
        torch.cuda.synchronize()


def _spread(samples: list[float]) -> tuple[float, float]:
    if len(samples) < 2:
        return samples[0], samples[0]
    tenths = quantiles(samples, n=10, method="inclusive")
    return tenths[0], tenths[-1]
