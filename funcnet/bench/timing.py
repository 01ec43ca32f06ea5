"""Fair timing: functions take turns in blocks of calls, and ratios are taken within a round."""

from collections.abc import Callable, Mapping, Sequence
from math import comb
from random import Random
from statistics import median, quantiles
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import tree
from funcnet.bench.clock import timer

__all__ = ["FEWEST", "Ratio", "Timing", "compare"]

FEWEST = 6
"""The rounds from which an interval between order statistics holds the median in 95 of 100 runs."""


class Ratio(NamedTuple):
    """How many times as long one function takes as another."""

    value: float
    """The median over rounds."""
    low: float
    """The lower end of its 95 % confidence interval; of fewer than six rounds, which have none, the least ratio."""
    high: float
    rounds: int

    @property
    def interval(self) -> str:
        """As `0.90 to 0.95`; where it is no interval of 95 %, `0.90 to 0.95 in 5 rounds`."""
        few = "" if self.rounds >= FEWEST else f" in {self.rounds} rounds"
        return f"{self.low:.2f} to {self.high:.2f}{few}"

    def __str__(self) -> str:
        """As `0.92 (0.90 to 0.95)`."""
        return f"{self.value:.2f} ({self.interval})"


class Timing(NamedTuple):
    """How long one call of a function takes, in seconds."""

    median: float
    low: float
    """The first quartile of the calls (on a GPU, of the rounds)."""
    high: float
    """The third."""
    rounds: tuple[float, ...]
    """The median of each round."""
    first: float
    """The first call of all, which compiles what is compiled on the way."""

    def over(self, other: "Timing") -> Ratio:
        """The ratio to another timing of the same run.

        Its interval is that between two order statistics of the rounds' ratios: it assumes no distribution.
        """
        ratios = sorted(mine / theirs for mine, theirs in zip(self.rounds, other.rounds, strict=True))
        outside = _outside(len(ratios))
        return Ratio(median(ratios), ratios[outside], ratios[-1 - outside], len(ratios))


def compare(
    functions: Mapping[str, Callable[..., Any]],
    args: Sequence[Any] = (),
    *,
    carry: bool = False,
    rounds: int = 20,
    block: int | Mapping[str, int] = 10,
    waits: Mapping[str, Callable[[], object]] | None = None,
    device: torch.device | str | None = None,
) -> dict[str, Timing]:
    """Time functions against each other.

    In each round every function runs `block` times in a row, after one call that is not counted (it finds the caches
    full of its neighbour's data, which no training loop does). A slow minute of the machine falls on all alike. Each
    round has another order, from a fixed seed, so that none always follows the same. Calls on a GPU are timed by CUDA's
    own events, a block at a time; others one by one.

    Args:
        functions: what to time, by name.
        args: what each is called with; each has copies of its own.
        carry: whether each call takes the first result of the one before for its first argument, as training steps
            `(ts, batch) -> (ts, metrics)` do. What donates its first argument needs it.
        rounds: how many rounds; ratios have as many samples.
        block: calls a round, of all or of each by name.
        waits: by name, what returns once the calls of a function are done, where torch cannot know. It is part of what
            is timed: after each call, on a GPU after a block.
        device: where the work is done; by default on the GPU if one of `args` is there.

    Raises:
        ValueError: there is no function, no round or no call.

    >>> timings = compare({"small": lambda n: sum(range(n)), "large": lambda n: sum(range(999 * n))}, (10,), rounds=6)
    >>> timings["large"].over(timings["small"]).low > 2
    True
    """
    blocks = dict.fromkeys(functions, block) if isinstance(block, int) else block
    for name, number in (("functions", len(functions)), ("rounds", rounds), ("block", min(blocks.values(), default=1))):
        if number < 1:
            raise ValueError(f"compare needs at least one of {name}, and was given {number}.")
    tensors = [leaf for leaf in tree.leaves(list(args)) if isinstance(leaf, Tensor)]
    on_gpu = any(leaf.is_cuda for leaf in tensors) if device is None else torch.device(device).type == "cuda"
    waits = waits or {}
    calls = {
        name: _Calls(function, args, carry, waits.get(name, lambda: None), on_gpu)
        for name, function in functions.items()
    }
    order, shuffle = list(calls), Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            calls[name].round(blocks[name])
    return {name: one.timing() for name, one in calls.items()}


class _Calls:
    """The calls of one function."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        carry: bool,
        wait: Callable[[], object],
        on_gpu: bool,
    ) -> None:
        self._function, self._wait, self._on_gpu = function, wait, on_gpu
        self._args = [tree.map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, arg) for arg in args]
        self._carry = carry
        self._seconds: list[float] = []
        self._rounds: list[float] = []
        self._first = 0.0

    def _call(self) -> None:
        result = self._function(*self._args)
        if self._carry:
            self._args[0] = result[0]

    def round(self, block: int) -> None:
        start = timer()
        self._call()
        self._wait()
        end = timer()
        self._first = self._first or end - start
        if self._on_gpu:
            seconds = [self._by_events(block)]
        else:
            seconds = []
            for _ in range(block):
                start = timer()
                self._call()
                self._wait()
                seconds.append(timer() - start)
        self._seconds += seconds
        self._rounds.append(median(seconds))

    def _by_events(self, block: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]  # torch's own
        start.record()
        for _ in range(block):
            self._call()
        self._wait()
        end.record()
        end.synchronize()
        milliseconds: float = start.elapsed_time(end)
        return milliseconds / 1e3 / block

    def timing(self) -> Timing:
        lower, _, upper = quantiles(self._seconds, n=4, method="inclusive") if self._seconds[1:] else self._seconds * 3
        return Timing(median(self._seconds), lower, upper, tuple(self._rounds), self._first)


def _outside(count: int) -> int:
    """How many sorted samples lie below a 95 % interval of the median, and as many above: from the binomial law."""
    tail, below = 0.0, 0
    while (tail := tail + comb(count, below) / 2**count) <= 0.025:
        below += 1
    return max(below - 1, 0)
