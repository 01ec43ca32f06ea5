"""One training step three ways: torch's own, the pure step as it is, and compiled."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import nn

from funcnet import bench, data, tree
from funcnet.demo.data import Digits
from funcnet.demo.models import BATCH_SIZE, CLIP, WEIGHT_DECAY
from funcnet.demo.training import Trained, cross_entropy

__all__ = ["COMPILED", "EAGER", "MODULE", "Speed", "measure", "steps_to_pay", "table"]

MODULE, EAGER, COMPILED = "nn.Module + torch.optim", "pure eager", "pure compiled"


class Speed(NamedTuple):
    """How long one training step of a model takes, by way."""

    name: str
    timings: dict[str, bench.Timing]
    compile_seconds: float


def measure(trained: Trained, digits: Digits, *, rounds: int, block: int) -> Speed:
    """Time the step of a trained model against the same step in ordinary torch, in paired rounds.

    All ways start from the same weights, and go over the same batches.
    """
    batches = list(data.batches(None, digits, BATCH_SIZE))
    ways = {MODULE: _module_step(trained), EAGER: _pure_step(trained, trained.eager)}
    if trained.compiled is not None:
        ways[COMPILED] = _pure_step(trained, trained.compiled)
    functions = {name: _over(batches, step) for name, step in ways.items()}
    with torch.random.fork_rng(devices=()):  # the module's dropout draws from the global generator
        timings = bench.compare(functions, rounds=rounds, block=block)
    return Speed(trained.recipe.name, timings, trained.compile_seconds)


def _over(batches: list[Any], step: Callable[[Any], None]) -> Callable[[], None]:
    order: Iterator[Any] = itertools.cycle(batches)
    return lambda: step(next(order))


def _pure_step(trained: Trained, step: Callable[..., Any]) -> Callable[[Any], None]:
    ts = tree.map(torch.clone, trained.ts)

    def advance(batch: Any) -> None:
        nonlocal ts
        ts, _ = step(ts, batch)

    return advance


def _module_step(trained: Trained) -> Callable[[Any], None]:
    """The same step as one writes it in torch, with its fastest optimizer."""
    module: nn.Module = trained.model.bind(trained.ts.params, trained.ts.state).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1.0, weight_decay=WEIGHT_DECAY, fused=True)
    peak, steps = trained.recipe.learning_rate, max(trained.steps, 2)
    warmup = max(steps // 10, 1)

    def rate(step: int) -> float:
        if step < warmup:
            return peak * step / warmup
        return peak * 0.5 * (1 + math.cos(math.pi * min((step - warmup) / (steps - warmup), 1.0)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)

    def advance(batch: Any) -> None:
        loss, _accuracy = cross_entropy(module(batch["image"]), batch["label"])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own method
        nn.utils.clip_grad_norm_(module.parameters(), CLIP)
        optimizer.step()
        scheduler.step()

    return advance


def steps_to_pay(compile_seconds: float, other: float, compiled: float) -> int | None:
    """After how many steps compiling has cost less time than it saved, or None for never.

    >>> steps_to_pay(10.0, other=0.003, compiled=0.001), steps_to_pay(10.0, other=0.001, compiled=0.001)
    (5000, None)
    """
    return math.ceil(round(compile_seconds / (other - compiled), 6)) if other > compiled else None


def table(speeds: list[Speed]) -> Table:
    """The figures, a row a way."""
    title = f"One training step: batches of {BATCH_SIZE}, one CPU thread"
    shown = Table(title=title, box=SIMPLE_HEAD, padding=(0, 0, 0, 1))
    shown.add_column("model")
    shown.add_column("way", no_wrap=True)
    for heading in ("median\nms", "quartiles\n", "compile\ns", "compiling\npays after"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for speed in speeds:
        for way, timing in speed.timings.items():
            compiles = f"{speed.compile_seconds:.1f}" if way == COMPILED else ""
            shown.add_row(
                speed.name,
                way,
                f"{1e3 * timing.median:.2f}",
                f"{1e3 * timing.low:.2f} - {1e3 * timing.high:.2f}",
                compiles,
                _paid(speed, way),
            )
        shown.add_section()
    return shown


def _paid(speed: Speed, way: str) -> str:
    if COMPILED not in speed.timings or way == COMPILED:
        return ""
    steps = steps_to_pay(speed.compile_seconds, speed.timings[way].median, speed.timings[COMPILED].median)
    return "never" if steps is None else f"{steps:,} steps"
