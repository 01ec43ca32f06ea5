"""What torch's allocators gave and took back during a call, and when autograd's engine was at work."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = ["Allocation", "Recording", "on_host", "record_allocations"]

_NODE = "autograd::engine::evaluate_function"


class Allocation(NamedTuple):
    """Memory that was given, or taken back where `size` is negative."""

    time: int
    """In nanoseconds."""
    size: int
    """In bytes."""
    host: bool


class Recording(NamedTuple):
    """What happened, in the order of time."""

    allocations: list[Allocation]
    backward: list[tuple[int, int]]
    """From when to when each node of a backward ran."""


def on_host(kind: Any) -> bool:
    """Whether an event's kind of device is the CPU. Checked on 2.11.0 and 2.15.0."""
    return bool(kind == cast(Any, torch.autograd).DeviceType.CPU)


def record_allocations(call: Callable[[], Any]) -> Recording:
    """Make a call and tell what was allocated.

    By torch's profiler, whose allocators report each block with its size, temporary ones of kernels included. The list
    of raw events, `kineto_results`, is no public name. Without `acc_events` torch 2.11 warns. Checked on 2.11.0 and
    2.15.0.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        call()
    events: list[Any] = cast(Any, profiler.profiler).kineto_results.events()
    memory = [
        Allocation(event.start_ns(), event.nbytes(), on_host(event.device_type()))
        for event in events
        if event.name() == "[memory]"
    ]
    nodes = [
        (event.start_ns(), event.start_ns() + event.duration_ns()) for event in events if event.name().startswith(_NODE)
    ]
    return Recording(sorted(memory, key=lambda one: one.time), sorted(nodes))
