"""The bar of a run on the terminal."""

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

__all__ = ["Bar"]

_PAUSE = 0.2  # seconds between two looks at the loss, each of which waits for the device


class Bar:
    """How far a run is, how fast, and what it last measured."""

    def __init__(self, epochs: int | None, steps: int | None, epoch: int, step: int, *, shown: bool) -> None:
        """Count epochs, or steps where the run ends after so many; from `epoch` and `step` on."""
        # Where the terminal is narrow, what was measured is cut, and not how far the run is.
        whole = Column(no_wrap=True, min_width=len(f"{epochs or steps}") * 2 + 1)
        columns: tuple[ProgressColumn, ...] = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[place]}", table_column=whole),
        )
        columns += (TimeRemainingColumn(), TextColumn("{task.fields[told]}"))
        # Standard output is for what a program found.
        self._progress = Progress(*columns, console=Console(stderr=True), disable=not shown)
        self._epochs, self._steps, self._epoch, self._step = epochs, steps, epoch, step
        self._shown = shown
        self._length = 0  # batches of the last epoch
        self._in_epoch = 0
        self._told = ""
        self._last = 0.0
        self._since = (0.0, step)
        self._task: TaskID

    def __enter__(self) -> Self:
        """Draw it."""
        self._progress.start()
        total = self._epochs if self._epochs is not None else self._steps
        self._task = self._progress.add_task("training", total=total, place="", told="")
        self._last = perf_counter()
        self._since = (self._last, self._step)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave it as it is."""
        self._progress.stop()

    def step(self, metrics: Mapping[str, Any], schedule: Callable[[int], Any] | None = None) -> None:
        """One more step is done; `schedule` tells its learning rate, and is asked only where that is drawn."""
        self._step += 1
        self._in_epoch += 1
        if self._shown and (now := perf_counter()) - self._last > _PAUSE:
            speed = (self._step - self._since[1]) / (now - self._since[0])
            self._last = now
            self._since = (now, self._step)
            loss = f"  loss {float(metrics['loss']):.4f}" if "loss" in metrics else ""
            lr = "" if schedule is None else f"  lr {float(schedule(self._step)):.3g}"
            self._draw(f"{speed:,.0f} steps/s{loss}{lr}  {self._told}")

    def epoch(self, metrics: Mapping[str, float]) -> None:
        """An epoch is done, with these metrics."""
        self._epoch += 1
        self._length, self._in_epoch = self._in_epoch, 0
        # Not the statistics of single leaves, as grad_norm/fc.weight.
        self._told = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items() if "/" not in name)
        self._draw(self._told)

    def _draw(self, told: str) -> None:
        if self._epochs is not None:
            share = min(self._in_epoch / self._length, 1.0) if self._length else 0.0
            done: float = self._epoch + share
            place = f"{self._epoch}/{self._epochs}"
        else:
            done, place = self._step, f"{self._step}/{self._steps}"
        self._progress.update(self._task, completed=done, place=place, told=told)
