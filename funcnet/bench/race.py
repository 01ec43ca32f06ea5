"""A race: every way of a subject, started, compared with the others, timed in turns, and weighed."""

import gc
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from funcnet import _compat, tree
from funcnet.bench.clock import timer
from funcnet.bench.memory import free, peak_of
from funcnet.bench.result import Cell, Result
from funcnet.bench.subject import Running, Subject, Way
from funcnet.bench.timing import FEWEST, compare
from funcnet.counts.table import scaled

__all__ = ["race", "reason"]

_WARMUP = 10  # steps, whose results are compared as well
# Seconds that the rounds of a subject take, unless this few take longer: fewer give no interval of 95 %.
_LONGEST, _LEAST = 240.0, FEWEST


def race(
    subject: Subject,
    *,
    rounds: int = 15,
    seconds: float = 0.15,
    cold: bool = True,
    told: Callable[[str], None] = lambda text: None,
) -> Result:
    """Measure every way of a subject in one run.

    Args:
        subject: the work and its ways. What fails is left out, with the reason in its cell.
        rounds: how many rounds, fewer (but 6) where steps are so long that they would take more than four minutes; 0
            compares what the ways return and times nothing.
        seconds: about how long a way runs in a round.
        cold: whether compiled ways are started twice, with empty caches first, to measure what compiling costs. No
            other way is at work at a first start, and each is over before the next, so that it costs no memory.
        told: is called with what is done next.
    """
    if subject.device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()  # jax has an allocator of its own, for which nothing was left
    cells = {name: Cell(way.compiled, absent=way.absent) for name, way in subject.ways.items()}
    running: dict[str, Running] = {}
    results: dict[str, list[Any]] = {}
    with TemporaryDirectory(ignore_cleanup_errors=True) as root:  # what is loaded cannot be removed on every system
        folders = {name: Path(root, str(i)) for i, name in enumerate(subject.ways)} if cold else {}
        if cold:
            _started_cold(subject, cells, folders, told)
        for name, way in subject.ways.items():
            cell = cells[name]
            cell.absent = cell.absent or _lacking(subject, len(running))
            if cell.absent or cell.failure:
                continue
            told(f"{subject.name}: {name} starts")
            try:
                with _cache(way, folders.get(name)):
                    running[name] = way.make()
                    cell.cached = _seconds(running[name].finish)
                    results[name] = _warmed(running[name], cell)
            except Exception as error:  # whatever the way raises belongs in its cell
                _drop(name, error, cells, running)
    _agree(subject, results, cells)
    for name in [name for name in running if cells[name].failure]:
        del running[name]
    if rounds:
        told(f"{subject.name}: rounds")
        _timed(running, cells, rounds, seconds, subject.device)
    for name, one in list(running.items()) if rounds else ():
        try:
            taken = peak_of(one.finish, subject.device) if one.taken is None else one.taken()
            cells[name].peak = None if taken is None else taken + one.held()
        except Exception as error:
            _drop(name, error, cells, running)
    settings, reference = dict(subject.settings), list(subject.reference)
    return Result(subject.name, subject.size, subject.unit, settings, reference, cells, subject.flops)


def _lacking(subject: Subject, beside: int) -> str | None:
    """Why another way does not fit in memory, beside those at work: the system would end the process, not the way."""
    there = None if subject.memory is None else free(subject.device)
    if there is None or subject.memory is None or subject.memory <= there:
        return None
    text = f"needs about {scaled(subject.memory, 'B')} of memory, and {scaled(there, 'B')} are free"
    return f"{text} beside {beside} at work: choose fewer (--ways)" if beside else text


def _started_cold(
    subject: Subject, cells: dict[str, Cell], folders: dict[str, Path], told: Callable[[str], None]
) -> None:
    """Start each compiled way with caches of its own, which are empty, and leave them to its second start.

    All of them before any is at work: a reset takes their code from the functions of torch.compile that run, and their
    memory from CUDA graphs.
    """
    compiled = {name: way for name, way in subject.ways.items() if way.compiled}
    for name, way in compiled.items():
        cell = cells[name]
        cell.absent = cell.absent or _lacking(subject, 0)
        if cell.absent:
            continue
        told(f"{subject.name}: {name} compiles")
        torch.compiler.reset()  # else a module would take over the graph of another of its kind
        try:
            with _cache(way, folders[name]):
                cell.cold = _seconds(way.make().finish)
        except Exception as error:
            _drop(name, error, cells, {})
        gc.collect()
    if compiled:
        torch.compiler.reset()


def _cache(way: Way, folder: Path | None) -> AbstractContextManager[None]:
    """The context of a way's compiler: its own folder, or that of every day."""
    return nullcontext() if folder is None or not way.compiled else _compat.compiler_cache(folder)


def _warmed(running: Running, cell: Cell) -> list[Any]:
    """What the next steps return."""
    results = []
    for _ in range(_WARMUP):
        start = timer()
        result = running.finish()
        cell.warmup.append(timer() - start)
        results.append(np.concatenate([_numbers(leaf) for leaf in tree.leaves(result)]))
    return results


def _numbers(leaf: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Some ten thousand numbers of a tensor or an array of any library."""
    values = (leaf.detach().float().cpu() if isinstance(leaf, Tensor) else np.asarray(leaf)).reshape(-1)
    return np.asarray(values[:: max(values.shape[0] // 10_000, 1)], dtype=np.float64)


def _agree(subject: Subject, results: dict[str, list[Any]], cells: dict[str, Cell]) -> None:
    """Fail every way whose results are not those of the first that should agree."""
    first, *others = [name for name in results if subject.ways[name].agrees] or [""]
    for name in others:
        for step, (mine, theirs) in enumerate(zip(results[name], results[first], strict=True), start=2):
            apart = np.abs(mine - theirs) if mine.shape == theirs.shape else np.array([math.inf])
            if not apart.max() <= subject.rtol * np.abs(theirs).max():
                i = int(apart.argmax())
                cells[name].failure = f"returns {mine[i]:.7g} at step {step}, where {first} returns {theirs[i]:.7g}"
                break


def _timed(
    running: dict[str, Running], cells: dict[str, Cell], rounds: int, seconds: float, device: torch.device
) -> None:
    blocks = {name: max(min(int(seconds / min(cells[name].warmup)), 1000), 1) for name in running}
    turn = sum((blocks[name] + 1) * min(cells[name].warmup) for name in running)
    rounds = min(rounds, max(int(_LONGEST / turn), _LEAST)) if running else rounds
    failed: list[str] = []

    def named(name: str, step: Callable[[], Any]) -> Callable[[], Any]:
        def call() -> Any:
            try:
                return step()
            except Exception:
                failed.append(name)
                raise

        return call

    while running:
        steps = {name: named(name, one.step) for name, one in running.items()}
        waits = {name: named(name, one.wait) for name, one in running.items()}
        try:
            timings = compare(steps, rounds=rounds, block=blocks, waits=waits, device=device)
        except Exception as error:  # one that ran ten times and then did not: the others go on
            if not failed:
                raise
            _drop(failed.pop(), error, cells, running)
            continue
        for name, timing in timings.items():
            cells[name].timing = timing
        return


def _drop(name: str, error: Exception, cells: dict[str, Cell], running: dict[str, Running]) -> None:
    running.pop(name, None)
    cells[name].failure = reason(error)


def reason(error: Exception) -> str:
    """An error in one line."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'without a word'}"[:300]


def _seconds(step: Callable[[], Any]) -> float:
    start = timer()
    step()
    return timer() - start
