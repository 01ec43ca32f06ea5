"""Where the time of a step goes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any, NamedTuple

import torch
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text
from torch import Tensor
from torch.profiler import ProfilerActivity, record_function

from funcnet import _compat, tree
from funcnet.checkpoint.files import whole
from funcnet.counts.table import Printed, scaled
from funcnet.diagnostics.copies import Repeated

__all__ = ["Operation", "Profile", "profile"]

_STEP = "funcnet: step"


class Operation(NamedTuple):
    """One kind of operation, in the mean of a step."""

    name: str
    calls: float
    seconds: float
    """On the host, without the operations that it calls."""
    device_seconds: float
    """On the GPU; 0 where there is none."""
    flops: int
    """0 where torch knows none."""


@dataclass(frozen=True)
class Profile(Printed):
    """Where the time of a step goes, printed as a table of the operations that take most.

    Attributes:
        operations: of all kinds, those that take most first: by their time on the GPU where one is used.
        seconds: how long each step took, with no profiler around it.
        profiled: how long a step took with it, of which the operations are parts.
        outside: the share of that which lies in no operation of torch: Python, and waiting for the GPU.
        top: how many operations are printed.
    """

    operations: tuple[Operation, ...]
    seconds: tuple[float, ...]
    profiled: float
    outside: float
    top: int = 15

    @property
    def median(self) -> float:
        """The median time of a step."""
        return median(self.seconds)

    def share(self, operation: Operation) -> float:
        """The part of a step that an operation takes: on the GPU where it runs there, else on the host."""
        return (operation.device_seconds or operation.seconds) / self.profiled

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, and the times."""
        on_device = any(operation.device_seconds for operation in self.operations)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("operation", no_wrap=True, overflow="ellipsis")
        for name in ("calls", "self, ms", *(["GPU, ms"] if on_device else []), "share", "FLOPs"):
            table.add_column(name, justify="right", no_wrap=True)
        for one in self.operations[: self.top]:
            device = [f"{1e3 * one.device_seconds:.3f}"] if on_device else []
            cells = (f"{one.calls:.4g}", f"{1e3 * one.seconds:.3f}", *device, f"{self.share(one):.1%}")
            table.add_row(*map(Text, (one.name, *cells, scaled(one.flops))))
        yield table
        yield ""
        low, high = (1e3 * end for end in _spread(self.seconds))
        yield Text(
            f"a step takes {1e3 * self.median:.3f} ms ({low:.3f} to {high:.3f} in {len(self.seconds)}), and "
            f"{1e3 * self.profiled:.3f} ms profiled, {self.outside:.1%} of that outside of operations"
        )


def profile(
    step: Callable[..., Any], *args: Any, steps: int = 5, warmup: int = 2, trace: str | Path | None = None
) -> Profile:
    """Run a step a few times under torch's profiler, and tell which operations take the time.

    Each call is given copies of the arguments, and after the first the state that the one before returned, where the
    step returns a tuple that begins with one like the first argument: so steps that donate can be profiled too. It
    runs `warmup` times unwatched, `steps` times for the clock, and `steps` times for the profiler, which makes small
    operations several times as long: compare shares with each other, not with the clock.

    Args:
        step: any pure function, such as a training step, jitted or not.
        *args: what it is called with.
        steps: how many calls are measured.
        warmup: how many come before, which compile what is compiled, and fill caches.
        trace: where to write a trace for chrome://tracing or https://ui.perfetto.dev, as JSON.

    Raises:
        ValueError: a number of steps is not positive, or one of warm-up steps negative; the trace's name ends in .gz.

    >>> found = profile(torch.matmul, torch.ones(64, 64), torch.ones(64, 64), steps=2)
    >>> [(one.name, one.calls, one.flops) for one in found.operations if one.name == "aten::mm"]
    [('aten::mm', 1.0, 524288)]
    """
    if steps < 1 or warmup < 0:
        raise ValueError(f"steps={steps}, warmup={warmup}: at least one step is measured, after none or some others.")
    if trace is not None and Path(trace).suffix == ".gz":
        raise ValueError(f"the trace {str(trace)!r} would not be compressed: give it a name that ends in .json.")
    call = Repeated(step, args)
    on_gpu = any(isinstance(leaf, Tensor) and leaf.device.type == "cuda" for leaf in tree.leaves(args))
    wait: Callable[[], None] = torch.cuda.synchronize if on_gpu else lambda: None
    for _ in range(warmup):
        call()
    wait()
    seconds = []
    for _ in range(steps):
        start = perf_counter()
        call()
        wait()
        seconds.append(perf_counter() - start)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    # Without acc_events torch 2.11 warns.
    with torch.profiler.profile(
        activities=activities, record_shapes=True, with_flops=True, acc_events=True
    ) as profiler:
        for _ in range(steps):
            with record_function(_STEP):
                call()
                wait()
    if trace is not None:
        with whole(Path(trace)) as temporary:
            profiler.export_chrome_trace(str(temporary))
    events = [event for event in profiler.events() or () if _compat.on_host(event.device_type)]
    marks = [event for event in events if event.name == _STEP]
    total = sum(mark.time_range.elapsed_us() for mark in marks)
    averages: list[Any] = list(profiler.key_averages())
    operations = [
        Operation(
            one.key,
            one.count / steps,
            one.self_cpu_time_total / 1e6 / steps,
            one.self_device_time_total / 1e6 / steps,
            round((one.flops or 0) / steps),
        )
        for one in averages
        if one.key != _STEP
    ]
    operations.sort(key=lambda one: (one.device_seconds, one.seconds), reverse=True)
    inside = _covered([(e.time_range.start, e.time_range.end) for e in events if _outermost(e)])
    return Profile(tuple(operations), tuple(seconds), total / 1e6 / steps, max(1 - inside / total, 0.0))


def _outermost(event: Any) -> bool:
    """Whether an event is an operation that no other called."""
    return event.name != _STEP and (event.cpu_parent is None or event.cpu_parent.name == _STEP)


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """How much time lies in at least one of these spans."""
    covered, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        covered += max(stop - max(start, end), 0.0)
        end = max(end, stop)
    return covered


def _spread(seconds: Sequence[float]) -> tuple[float, float]:
    """The quartiles."""
    if len(seconds) < 2:
        return seconds[0], seconds[0]
    low, _, high = quantiles(seconds, n=4, method="inclusive")
    return low, high
