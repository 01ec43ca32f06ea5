"""Where a run's metrics are written: the terminal, tables, lines of JSON, TensorBoard."""

import csv
import json
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, TextIO

from funcnet.checkpoint.files import whole

__all__ = ["CSVLog", "ConsoleLog", "JSONLinesLog", "Log", "TensorBoardLog"]

Row = Mapping[str, float]


class Log(ABC):
    """Takes the metrics of a run, a row at a time; nothing that was written is lost when the process ends."""

    @abstractmethod
    def write(self, step: int, metrics: Row) -> None:
        """Write what was measured after this many steps; `epoch` counts those done in the row at the end of one.

        Names may differ from row to row.
        """

    def resume(self, step: int, within: bool) -> None:  # noqa: B027 - most have nothing to take back
        """Take back what was written of later steps, which come again; called before the first row.

        Args:
            step: how many are behind; at 0 a run begins, and all that was written before is of another.
            within: whether an epoch is going on, of which a row at this very step may have told the end.
        """

    def close(self) -> None:  # noqa: B027 - most hold nothing open
        """Let go of files."""


class ConsoleLog(Log):
    """A line a row, without the statistics of single leaves, such as `grad_norm/fc.weight`.

    >>> ConsoleLog(sys.stdout).write(20, {"loss": 0.25, "accuracy": 0.5})
    step 20  loss 0.25  accuracy 0.5
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to a stream, by default standard error as it is when a row comes."""
        self._stream = stream

    def write(self, step: int, metrics: Row) -> None:
        """Print a line."""
        values = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items() if "/" not in name)
        print(f"step {step}  {values}", file=self._stream or sys.stderr, flush=True)


class _FileLog(Log):
    """A log in one file, of which rows are taken back by writing it anew."""

    def __init__(self, path: str | Path) -> None:
        """Write to this file, in a folder that is made where needed; what a file has already is gone on with.

        `fit` takes back the rows of steps beyond where it starts: all of them, where that is step 0.
        """
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO | None = None

    def _opened(self) -> TextIO:
        if self._file is None:
            self._file = self.path.open("a", newline="", encoding="utf-8")
        return self._file

    def _replace(self, text: str) -> None:
        self.close()
        with whole(self.path) as new:
            new.write_text(text, encoding="utf-8", newline="")

    def close(self) -> None:
        """Close the file; another row opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _done(row: Mapping[str, Any], step: int, within: bool) -> bool:
    """Whether a row is of the steps that are behind; one that was damaged is not.

    Epochs do not tell, since whoever calls `fit` again counts them from 1 again.
    """
    try:
        number, ended = int(row["step"]), int(row.get("epoch") or 0) > 0
        return number < step or (number == step and not (within and ended))
    except (ValueError, TypeError, KeyError):
        return False


class JSONLinesLog(_FileLog):
    """One JSON object a row: `{"step": 20, "loss": 0.25}`. A value that is not finite is a string, as JSON has none.

    Lines that are cut short, as by a machine that went down, are left out when a run goes on.
    """

    def write(self, step: int, metrics: Row) -> None:
        """Add a line."""
        values = {name: value if math.isfinite(value) else repr(float(value)) for name, value in metrics.items()}
        file = self._opened()
        file.write(json.dumps({"step": step} | values) + "\n")
        file.flush()

    def resume(self, step: int, within: bool) -> None:
        """Keep the lines up to this step."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and _done(row, step, within):
                kept.append(line + "\n")
        self._replace("".join(kept))


class CSVLog(_FileLog):
    """A table with a column a metric; where a row has a new one, the file is written anew with a column more."""

    def __init__(self, path: str | Path) -> None:
        """Write to this file; what a table has already is gone on with.

        `fit` takes back the rows of steps beyond where it starts: all of them, where that is step 0.
        """
        super().__init__(path)
        self._names = list(self._read()[0])

    def write(self, step: int, metrics: Row) -> None:
        """Add a row."""
        if more := [name for name in metrics if name not in self._names]:
            rows = self._read()[1]
            self._names += ([] if self._names else ["step"]) + more
            self._rewrite(rows)
        file = self._opened()
        csv.DictWriter(file, self._names).writerow({"step": step, **metrics})
        file.flush()

    def resume(self, step: int, within: bool) -> None:
        """Keep the rows up to this step."""
        if self.path.exists():
            self._rewrite([row for row in self._read()[1] if _done(row, step, within)])

    def _read(self) -> tuple[list[str], list[dict[str, Any]]]:
        """The names, and the rows but for one that was cut short."""
        text = self.path.read_bytes().decode() if self.path.exists() else ""
        reader = csv.DictReader(StringIO(text[: text.rfind("\n") + 1], newline=""))
        rows = [row for row in reader if None not in row and None not in row.values()]
        return list(reader.fieldnames or []), rows

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        text = StringIO(newline="")
        writer = csv.DictWriter(text, self._names, extrasaction="ignore")
        if self._names:
            writer.writeheader()
            writer.writerows(rows)
        self._replace(text.getvalue())


class TensorBoardLog(Log):
    """Scalars for TensorBoard, in a folder that `tensorboard --logdir` is given."""

    def __init__(self, folder: str | Path) -> None:
        """Write event files into this folder; needs the package tensorboard."""
        if find_spec("tensorboard") is None:
            raise ModuleNotFoundError(
                "TensorBoardLog writes TensorBoard's files with its own package: pip install tensorboard. Without it "
                "CSVLog and JSONLinesLog write the same numbers.",
                name="tensorboard",
            )
        from torch.utils.tensorboard import SummaryWriter

        self._folder = str(folder)
        self._open: Any = SummaryWriter
        self._writer: Any = None
        self._purge: int | None = None

    def write(self, step: int, metrics: Row) -> None:
        """Add a value to each metric's curve."""
        if self._writer is None:
            self._writer = self._open(self._folder, purge_step=self._purge)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def resume(self, step: int, within: bool) -> None:
        """Have TensorBoard hide what came after this step."""
        self._purge = step + 1

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
