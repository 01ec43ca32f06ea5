"""How much memory a training step holds, and takes in each of its phases."""

import gc
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text
from torch import Tensor

from funcnet import _compat, tree
from funcnet.counts.table import Printed, scaled
from funcnet.diagnostics.copies import copied

__all__ = ["MemoryReport", "PhaseMemory", "memory_report"]

_NAMES = {"params": "parameters", "opt_state": "optimizer state", "average": "average of parameters"}


class PhaseMemory(NamedTuple):
    """One phase of a step, in bytes beyond what the step was given."""

    peak: int
    """The most that was alive at one time."""
    left: int
    """What was alive at its end: after the forward what is kept for the backward, after the backward the gradients,
    after the update the new state."""


@dataclass(frozen=True)
class MemoryReport(Printed):
    """What a step holds and takes, in bytes. Printed, it is a table.

    Attributes:
        held: what the step is given: the parts of the state by name, and the batch. Memory in two parts counts once.
        phases: "forward", "backward" and "update"; one phase "step" where autograd's engine was not seen to run, as
            in a compiled graph.
    """

    held: Mapping[str, int]
    phases: Mapping[str, PhaseMemory]

    @property
    def kept(self) -> int:
        """What the forward keeps for the backward, with the loss and the model's new state."""
        return self.phases["forward"].left if "forward" in self.phases else 0

    @property
    def peak(self) -> int:
        """The most that was alive at one time, what was given included."""
        return sum(self.held.values()) + max(phase.peak for phase in self.phases.values())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """What is held, the phases, and the whole."""
        held = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        held.add_column("held")
        held.add_column("bytes", justify="right")
        for name, size in self.held.items():
            held.add_row(Text(name), _text(size))
        yield held
        yield ""
        phases = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        phases.add_column("beyond it")
        phases.add_column("peak", justify="right")
        phases.add_column("left", justify="right")
        for name, phase in self.phases.items():
            phases.add_row(Text(name), _text(phase.peak), _text(phase.left))
        yield phases
        yield ""
        highest = max(self.phases, key=lambda name: self.phases[name].peak)
        yield Text(f"peak {_text(self.peak)}, in the {highest}")


def _text(size: int) -> str:
    return scaled(size, "B") or "0 B"


def memory_report(step: Callable[[Any, Any], Any], ts: Any, batch: Any) -> MemoryReport:
    """How much memory a training step holds, and takes in its forward, its backward and its update.

    torch's allocators tell, of each block that they give out and take back: on the CPU to the byte, on a GPU in its
    blocks of 512. What kernels take for themselves meanwhile is in it; what others than torch allocate is not. The
    phases of any eager step are told apart by when autograd's engine is at work: what runs before its last node, and is
    not within one, is forward, and what comes after is update. A step in parts has several forwards and backwards, of
    which the greatest counts.

    Args:
        step: `(ts, batch) -> (ts, metrics)`. It may donate: it runs on copies, twice.
        ts: a `TrainState`, or any tree.
        batch: one batch.

    >>> from funcnet import make_step, optim, random
    >>> import torch
    >>> def loss(params, state, batch, key):
    ...     return (batch @ params["w"]).tanh().sum(), (state, {})
    >>> step = make_step(loss, optim.adam(1e-3))
    >>> ts = step.init({"w": torch.ones(250, 10)}, {}, random.key(0))
    >>> report = memory_report(step, ts, torch.ones(100, 250))
    >>> report.held["parameters"], report.held["optimizer state"], report.held["batch"]
    (10000, 20004, 100000)
    >>> 0 < report.kept - 100 * 10 * 4 < 64  # the result of tanh, and scalars
    True
    """
    step(*copied((ts, batch)))
    own = copied((ts, batch))
    host = all(leaf.device.type == "cpu" for leaf in tree.leaves(own) if isinstance(leaf, Tensor))
    held = _held(ts, batch)
    gc.collect()
    results: list[Any] = []
    # Results outlive the recording: what is freed is not theirs.
    recording = _compat.record_allocations(lambda: results.append(step(*own)))
    return MemoryReport(held, _phases(recording, host))


def _held(ts: Any, batch: Any) -> dict[str, int]:
    fields = ts._asdict() if hasattr(ts, "_asdict") else {"state": ts}
    counted: set[int] = set()
    held = {}
    for name, part in [*fields.items(), ("batch", batch)]:
        size = 0
        for leaf in tree.leaves(part):
            if isinstance(leaf, Tensor):
                storage, bytes_ = _compat.storage_of(leaf)
                size += 0 if storage in counted else bytes_
                counted.add(storage)
        if size or name in ("params", "batch"):
            held[_NAMES.get(name, name)] = size
    return held


def _phases(recording: _compat.Recording, host: bool) -> dict[str, PhaseMemory]:
    starts = [start for start, _ in recording.backward]
    last = max((end for _, end in recording.backward), default=0)

    def phase_at(time: int) -> str:
        if not starts:
            return "step"
        if time > last:
            return "update"
        i = bisect_right(starts, time) - 1
        return "backward" if i >= 0 and time <= recording.backward[i][1] else "forward"

    alive, peaks, left = 0, dict[str, int](), dict[str, int]()
    names = ("forward", "backward", "update") if starts else ("step",)
    before = names[0]
    for allocation in recording.allocations:
        if allocation.host != host:
            continue
        name = phase_at(allocation.time)
        if name != before:
            left[before] = max(left.get(before, 0), alive)
            peaks[name] = max(peaks.get(name, 0), alive)
        alive += allocation.size
        peaks[name] = max(peaks.get(name, 0), alive)
        before = name
    left[before] = max(left.get(before, 0), alive)
    return {name: PhaseMemory(peaks.get(name, 0), left.get(name, 0)) for name in names}
