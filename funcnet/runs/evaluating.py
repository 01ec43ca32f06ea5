"""`funcnet evaluate`: the metrics of a trained model, class by class."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from funcnet.runs import rows
from funcnet.runs.errors import RunError
from funcnet.runs.trained import trained
from funcnet.shell import finite

__all__ = ["evaluate", "show"]

PARTS = ("test", "train", "all")
_WIDEST = 30  # classes, beyond which a table of confusions is no longer read


def evaluate(
    path: Path,
    which: str = "latest",
    data_name: str | None = None,
    part: str = "test",
    device: str | None = None,
    size: int = 256,
) -> dict[str, Any]:
    """Measure a trained model.

    Args:
        path: the run's folder.
        which: `latest`, `best`, or the step of a checkpoint.
        data_name: other data than the run's own, of the same kind.
        part: its `test` set, its `train` set, or `all`.
        device: where to compute; by default where it was trained.
        size: how many rows to compute at once.

    Returns: the metrics; of classes also the accuracy of each, and the confusions, a row a true class.

    Raises:
        RunError: the run, the checkpoint or the data is not there, or the data is of another kind.
    """
    found = trained(path, which, device)
    config, facts = found.config, found.task.facts
    if data_name is not None:
        config = dataclasses.replace(config, data=rows.absolute(data_name))
    if data_name is not None and not data_name.startswith("folder:"):
        config = dataclasses.replace(config, size=None)
    elif config.data.startswith("folder:") and len(facts.shape) == 3:
        config = dataclasses.replace(config, size="x".join(map(str, facts.shape[1:])))
    # A text in the model's own characters or bytes, whichever it is named with.
    vocabulary = facts.classes if facts.kind == "language" else None
    loaded = rows.load(config, found.ts.step.device, vocabulary=vocabulary)
    _check(facts, loaded.facts, config.data)
    chosen = _part(loaded, part, facts)
    metrics = found.task.evaluation(chosen, size)(found.ts)
    result: dict[str, Any] = {
        "folder": str(path),
        "step": found.step,
        "data": config.data,
        "part": part,
        "rows": len(chosen["label"]),
        "metrics": {name.removeprefix("test_"): value for name, value in metrics.items()},
    }
    if facts.kind == "classification":
        predicted = found.output(chosen["x"], size).argmax(-1)
        count = len(facts.classes)
        table = torch.bincount(chosen["label"] * count + predicted, minlength=count**2).reshape(count, count)
        each = (table.diag() / table.sum(1)).tolist()
        result |= {"classes": dict(zip(facts.classes, each, strict=True)), "confusion": table.tolist()}
    told: dict[str, Any] = finite(result)
    return told


def _check(facts: rows.Facts, other: rows.Facts, name: str) -> None:
    for what, mine, theirs in (
        ("kind", facts.kind, other.kind),
        ("rows of shape", facts.shape, other.shape),
        ("columns", _told(facts.columns), _told(other.columns)),
        ("classes", facts.classes, other.classes),
    ):
        if mine != theirs:
            raise RunError(f"{name!r} has {what} {theirs!r:.200}, and the model was trained on {mine!r:.200}.")


def _told(columns: tuple[tuple[str, str | None], ...]) -> tuple[str, ...]:
    return tuple(name if category is None else f"{name}={category}" for name, category in columns)


def _part(loaded: rows.Rows, part: str, facts: rows.Facts) -> dict[str, Tensor]:
    test, train = loaded.test, loaded.train
    if facts.kind == "language":
        train = rows.windows(train["token"], facts.shape[0])
    if part == "all":
        return {name: torch.cat([train[name], test[name]]) for name in test}
    return test if part == "test" else train


def show(result: dict[str, Any], console: Console) -> None:
    """Print what `evaluate` returned."""
    told = "  ".join(f"{name} {_short(value)}" for name, value in result["metrics"].items())
    what = f"{result['data']} ({result['part']}, {result['rows']:,} rows), step {result['step']:,}: {told}"
    console.print(Text(what))  # a text as it is, where a str may have markup in brackets, or an emoji's name in colons
    if "classes" not in result:
        return
    classes, confusion = list(result["classes"]), result["confusion"]
    wide = len(classes) <= _WIDEST
    table = Table()
    table.add_column("true class")
    table.add_column("accuracy", justify="right")
    for name in classes if wide else ():
        table.add_column(Text(name), justify="right")
    for row, (name, accuracy) in enumerate(result["classes"].items()):
        cells = [
            f"[bold]{count}[/]" if row == column else str(count or "·") for column, count in enumerate(confusion[row])
        ]
        share = "" if accuracy is None else f"{accuracy:.1%}"
        table.add_row(Text(name), share, *(cells if wide else ()))
    if wide:
        console.print("how many of each true class (rows) were taken for which class (columns):")
    console.print(table)


def _short(value: Any) -> str:
    return "nan" if value is None else f"{value:.4g}"
