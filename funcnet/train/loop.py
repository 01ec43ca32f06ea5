"""A small training loop: the imperative shell around a pure step."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from funcnet.train.state import TrainState
from funcnet.train.step import StepFunction

__all__ = ["fit"]

Batches = Callable[[int], Iterable[Any]] | Sequence[Any]


def fit(
    step: StepFunction,
    ts: TrainState,
    batches: Batches,
    *,
    epochs: int = 1,
    evaluate: Callable[[TrainState], dict[str, float]] | None = None,
    progress: bool = True,
) -> tuple[TrainState, list[dict[str, float]]]:
    """Run a step over batches for some epochs.

    Args:
        step: `(ts, batch) -> (ts, metrics)`, jitted or not.
        ts: where to start; a donating step consumes it.
        batches: the batches of an epoch, or a function of the epoch's number (0, 1, ...) that gives them, which is how
            an epoch has an order of its own: `lambda e: data.batches(fold_in(key, e), train, 64)`.
        epochs: how often to go over the batches.
        evaluate: called after each epoch; what it returns is added to the history.
        progress: whether to show a bar on the terminal.

    Returns:
        The last state, and for each epoch the mean of each metric with what `evaluate` returned.

    Raises:
        ValueError: an epoch has no batch, or the names of the metrics change.

    >>> def step(ts, batch):
    ...     return ts + batch, {"loss": batch}
    >>> fit(step, torch.tensor(0.0), [torch.tensor(1.0), torch.tensor(2.0)], epochs=2, progress=False)
    (tensor(6.), [{'loss': 1.5}, {'loss': 1.5}])
    """
    history: list[dict[str, float]] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[shown]}"), disable=not progress) as bar:
        task = bar.add_task("training", total=epochs, shown="")
        for epoch in range(epochs):
            total: dict[str, Tensor] = {}
            count = 0
            for batch in batches(epoch) if callable(batches) else batches:
                ts, metrics = step(ts, batch)
                if total and metrics.keys() != total.keys():
                    raise ValueError(
                        f"the step returned the metrics {sorted(metrics)}, and {sorted(total)} before: a mean needs "
                        f"the same names from every step."
                    )
                # Sums stay tensors, so that no step waits for the device.
                values = {name: torch.as_tensor(value).detach() for name, value in metrics.items()}
                total = {name: total[name] + value if total else value for name, value in values.items()}
                count += 1
            if not count:
                raise ValueError(
                    f"epoch {epoch} has no batch. A generator is spent after one epoch: pass a list, or a function of "
                    f"the epoch; and a batch size over the size of the data leaves no full batch."
                )
            entry = {name: (value / count).item() for name, value in total.items()}
            history.append(entry | (evaluate(ts) if evaluate is not None else {}))
            shown = "  ".join(f"{name} {value:.4f}" for name, value in history[-1].items())
            bar.update(task, advance=1, shown=shown)
    return ts, history
