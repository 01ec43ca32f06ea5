"""The imperative shell around a pure step: a run over epochs, watched, logged, saved and stopped."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from torch import Tensor

from funcnet.train.failures import Place, Watch, failure
from funcnet.train.feed import Batches, Feed
from funcnet.train.interrupts import Interrupts
from funcnet.train.logs import Log
from funcnet.train.means import Means
from funcnet.train.position import Position
from funcnet.train.progress import Bar
from funcnet.train.state import TrainState
from funcnet.train.step import StepFunction
from funcnet.train.stopping import EarlyStopping

__all__ = ["Moment", "fit"]

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
    start: Sequence[int] | Mapping[str, Any] = (0, 0),
    evaluate: Callable[[TrainState], Mapping[str, Any]] | None = None,
    save: Callable[..., object] | None = None,
    save_every: int | None = None,
    early_stopping: EarlyStopping | None = None,
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
        batches: what `data.stream`, `loader` or `prefetch` returned, without an end of its own: batches in an order of
            each epoch, which go on from any position; or a function of the epoch's number (0, 1, ...) that gives its
            batches, of which a run that goes on throws away the first; or the same list of batches for every epoch.
        epochs: at which epoch to end, by default after one; a run that goes on counts those before.
        steps: after how many steps to end, instead, also counted from the beginning.
        start: where to go on: the `position` that `save` was given; or the epoch and how many of its batches are done,
            with which the history and the means begin anew.
        evaluate: called after each epoch; what it returns is added to the history.
        save: `save(ts, step, position=..., metrics=...)`, as `Checkpoints(...).save` is: called after each epoch,
            every `save_every` steps, and where the run is interrupted. The position is a dict fit for JSON, with the
            epoch, the batch, the history and the means so far: logs go on as those of an uninterrupted run.
        save_every: how many steps lie between two calls of `save` within an epoch.
        early_stopping: the rule by which the run ends before its last epoch. It follows the whole history, so that a
            run which goes on stops where the uninterrupted one would have.
        callbacks: called with a `Moment` after each epoch; one that returns True ends the run.
        schedule: the learning rate as a function of the step, to be shown and logged as `lr`.
        log: where the metrics of each epoch are written. A file is gone on with: rows of steps beyond `ts.step` come
            again, and so are taken back; a run that begins at step 0 begins its logs anew.
        log_every: how many steps lie between rows of the log within an epoch, which are means over these steps.
        check_finite: end where the loss is not finite. One that lies on a GPU is looked at every so often.
        progress: whether to show a bar on the terminal.

    Returns:
        The last state, and for each epoch the mean of each metric with what `evaluate` returned. Steps that were
        skipped, as `ts.skipped` counts them, are not in the means.

    Raises:
        NonFiniteError: a loss is not finite: the step, the batch, and the first leaf that is not.
        ValueError: an epoch has no batch, the names of the metrics change, early stopping looks at one that is not
            there, or `start` is no position.
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
    feed, at = Feed(batches), Position.of(start)
    epoch, batch, done = at.epoch, at.batch, _copies(at.history)
    means, recent = Means(at.means), Means(at.recent)
    number = int(ts.step) if isinstance(ts, TrainState) else at.step
    counted = number > 0 or at[:2] == (0, 0)  # else nobody knows which rows of the logs are behind
    stopping = None if early_stopping is None else early_stopping.follow(done)
    with ExitStack() as stack:
        for each in log:
            if counted:
                each.resume(number, batch > 0)
            stack.callback(each.close)
        bar = stack.enter_context(Bar(epochs, steps, epoch, number, shown=progress))
        interrupts = stack.enter_context(Interrupts())
        stack.callback(feed.close)
        watch = Watch()
        ended = stopping is not None and bool(stopping.stop)
        # A run of so many steps that goes on after the last was ended before its epoch was, which is measured again.
        while not ended and epoch < last_epoch and (number < last_step or (number == last_step and batch)):
            resumed = batch > 0
            for values in feed.epoch(epoch, batch) if number < last_step else ():
                skipped = _skipped(ts)
                ts, metrics = step(ts, values)
                taken = None if skipped is None or ts.skipped is None else ts.skipped.eq(skipped)
                number += 1
                means.add(metrics, taken)
                if check_finite and (found := watch.add(Place(number, epoch, batch), metrics)):
                    raise failure(*found, feed, values, ts)
                batch += 1
                bar.step(metrics, schedule)
                if log_every is not None:
                    recent.add(metrics, taken)
                    if number % log_every == 0:
                        _write(log, number, recent.take(), schedule)
                asked = interrupts.asked
                if save is not None and (asked or (save_every and number % save_every == 0)):
                    if check_finite and (found := watch.look()):
                        raise failure(*found, feed, None, ts)
                    at = Position(epoch, batch, _copies(done), means.saved(), recent.saved(), number)
                    save(ts, number, position=at._asdict())
                if asked:
                    raise KeyboardInterrupt(f"interrupted after step {number}, at start=({epoch}, {batch})")
                if number == steps:
                    break
            if check_finite and (found := watch.look()):
                raise failure(*found, feed, None, ts)
            if not means.count and not resumed:
                raise feed.empty(epoch)
            if save is not None:
                at = Position(epoch, batch, _copies(done), means.saved(), recent.saved(), number)
            entry = means.take()
            if evaluate is not None:
                entry |= {name: float(value) for name, value in evaluate(ts).items()}
            done.append(entry)
            bar.epoch(entry)
            _write(log, number, {"epoch": epoch + 1, **entry}, schedule)
            if save is not None:
                if number != steps:  # else the run may have ended within the epoch, which is not over then
                    at = Position(epoch + 1, 0, _copies(done), None, at.recent, number)
                save(ts, number, position=at._asdict(), metrics=dict(entry))
            moment = Moment(epoch, number, dict(entry), ts)
            answers = [callback(moment) for callback in callbacks]
            ended = any(answer is True for answer in answers)
            if early_stopping is not None:
                stopping = early_stopping.follow([entry], stopping)
                ended = ended or bool(stopping.stop)
            if interrupts.asked:
                raise KeyboardInterrupt(f"interrupted after step {number} and epoch {epoch}")
            epoch, batch = epoch + 1, 0
    return ts, done


def _skipped(ts: Any) -> Tensor | None:
    """How many steps were left out so far, where that is counted: a copy, since a donating step consumes the state."""
    return ts.skipped.clone() if isinstance(ts, TrainState) and ts.skipped is not None else None


def _copies(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    return [dict(entry) for entry in history]


def _write(log: Sequence[Log], number: int, metrics: Mapping[str, float], schedule: Schedule | None) -> None:
    row = dict(metrics) if not log or schedule is None else {**metrics, "lr": float(schedule(number))}
    for each in log:
        each.write(number, row)
