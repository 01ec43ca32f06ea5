"""The imperative shell around a pure step: a run over epochs, watched, logged, saved and stopped."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Any, NamedTuple

from funcnet.train.failures import Place, Watch, failure
from funcnet.train.interrupts import Interrupts
from funcnet.train.logs import Log
from funcnet.train.means import Means
from funcnet.train.progress import Bar
from funcnet.train.state import TrainState
from funcnet.train.step import StepFunction

__all__ = ["Moment", "fit"]

Batches = Callable[[int], Iterable[Any]] | Sequence[Any]
Schedule = Callable[[int], Any]


class Moment(NamedTuple):
    """The end of an epoch, as a callback is told of it."""

    epoch: int
    """Counted from 0."""
    step: int
    """Steps done."""
    metrics: Mapping[str, float]
    ts: TrainState


def fit(
    step: StepFunction,
    ts: TrainState,
    batches: Batches,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    start: Sequence[int] = (0, 0),
    evaluate: Callable[[TrainState], Mapping[str, Any]] | None = None,
    save: Callable[..., object] | None = None,
    save_every: int | None = None,
    callbacks: Sequence[Callable[[Moment], object]] = (),
    schedule: Schedule | None = None,
    log: Sequence[Log] = (),
    log_every: int | None = None,
    check_finite: bool = True,
    progress: bool = True,
) -> tuple[TrainState, list[dict[str, float]]]:
    """Run a step over batches.

    Args:
        step: `(ts, batch) -> (ts, metrics)`, jitted or not.
        ts: where to start; a donating step consumes it.
        batches: the batches of an epoch, or a function of the epoch's number (0, 1, ...) that gives them, which is how
            an epoch has an order of its own: `lambda e: data.batches(fold_in(key, e), train, 64)`.
        epochs: at which epoch to end, by default after one; a run that goes on counts those before.
        steps: after how many steps to end, instead, also counted from the beginning.
        start: the position to go on from: the epoch, and how many of its batches are done.
        evaluate: called after each epoch; what it returns is added to the history.
        save: `save(ts, step, position=(epoch, batch), metrics=...)`, as `Checkpoints(...).save` is: called after each
            epoch, every `save_every` steps, and where the run is interrupted.
        save_every: how many steps lie between two calls of `save` within an epoch.
        callbacks: called with a `Moment` after each epoch; one that returns True ends the run.
        schedule: the learning rate as a function of the step, to be shown and logged as `lr`.
        log: where the metrics of each epoch are written.
        log_every: how many steps lie between rows of the log within an epoch, which are means over these steps.
        check_finite: end where the loss is not finite. One that lies on a GPU is looked at every so often.
        progress: whether to show a bar on the terminal.

    Returns:
        The last state, and for each epoch the mean of each metric with what `evaluate` returned.

    Raises:
        NonFiniteError: a loss is not finite: the step, the batch, and the first leaf that is not.
        ValueError: an epoch has no batch, or the names of the metrics change.
        KeyboardInterrupt: the run was interrupted; the step at hand was finished, and saved.

    >>> def step(ts, batch):
    ...     return ts + batch, {"loss": batch}
    >>> fit(step, torch.tensor(0.0), [torch.tensor(1.0), torch.tensor(2.0)], epochs=2, progress=False)
    (tensor(6.), [{'loss': 1.5}, {'loss': 1.5}])
    """
    if epochs is not None and steps is not None:
        raise ValueError(f"a run ends after epochs={epochs} or after steps={steps}: give one of the two.")
    epochs = 1 if epochs is None and steps is None else epochs
    last_epoch, last_step = (math.inf if end is None else end for end in (epochs, steps))
    epoch, batch = start
    number = int(ts.step) if isinstance(ts, TrainState) else 0
    history: list[dict[str, float]] = []
    with ExitStack() as stack:
        for each in log:
            each.resume(number)
            stack.callback(each.close)
        bar = stack.enter_context(Bar(epochs, steps, epoch, number, shown=progress))
        interrupts = stack.enter_context(Interrupts())
        watch = Watch()
        ended = False
        while not ended and epoch < last_epoch and number < last_step:
            means, recent, resumed = Means(), Means(), batch > 0
            rows = iter(batches(epoch) if callable(batches) else batches)
            for values in islice(rows, batch, None):
                ts, metrics = step(ts, values)
                # Of `data.batches`; others do not tell their rows.
                place = Place(number := number + 1, epoch, batch, getattr(rows, "rows", None))
                batch += 1
                means.add(metrics)
                if check_finite and (found := watch.add(place, metrics)):
                    raise failure(*found, values, ts)
                bar.step(metrics, schedule)
                if log_every is not None:
                    recent.add(metrics)
                    if number % log_every == 0:
                        _write(log, number, recent.take(), schedule)
                if save is not None and (interrupts.asked or (save_every and number % save_every == 0)):
                    save(ts, number, position=(epoch, batch))
                if interrupts.asked:
                    raise KeyboardInterrupt(f"interrupted after step {number}, at start=({epoch}, {batch})")
                if number == steps:
                    break
            if check_finite and (found := watch.look()):
                raise failure(*found, None, ts)
            if not means.count and not resumed:
                raise ValueError(
                    f"epoch {epoch} has no batch. A generator is spent after one epoch: pass a list, or a function of "
                    f"the epoch; and a batch size over the size of the data leaves no full batch."
                )
            entry = means.take()
            if evaluate is not None:
                entry |= {name: float(value) for name, value in evaluate(ts).items()}
            history.append(entry)
            bar.epoch(entry)
            _write(log, number, entry, schedule)
            if save is not None:
                save(ts, number, position=(epoch, batch) if number == steps else (epoch + 1, 0), metrics=entry)
            moment = Moment(epoch, number, entry, ts)
            answers = [callback(moment) for callback in callbacks]
            ended = any(answer is True for answer in answers)
            epoch, batch = epoch + 1, 0
    return ts, history


def _write(log: Sequence[Log], number: int, metrics: Mapping[str, float], schedule: Schedule | None) -> None:
    row = dict(metrics) if not log or schedule is None else {**metrics, "lr": float(schedule(number))}
    for each in log:
        each.write(number, row)
