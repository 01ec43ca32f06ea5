"""A run's folder, which explains itself."""

import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from funcnet import checkpoint
from funcnet.checkpoint import read_manifest
from funcnet.checkpoint.files import whole
from funcnet.checkpoint.manifest import MANIFEST
from funcnet.runs import config as configs
from funcnet.runs.config import Config
from funcnet.runs.errors import RunError
from funcnet.runs.rows import Facts

__all__ = ["Folder", "checkpoint_in", "is_run", "telling"]

_COMMENT = """\
A run of `funcnet train`, with everything that was left open filled in.

the same again   funcnet train --config {config} --out ANOTHER
go on            funcnet resume {folder}
further          funcnet resume {folder} --epochs N
look at it       funcnet evaluate {folder}
use it           funcnet predict {folder} INPUT...

log.csv and log.jsonl have the metrics, curves.png draws them, checkpoints/ has the last and the best state,
result.json the end, and data.json what the model must know of its data.
"""


class Folder:
    """Where a run keeps what it is and what came of it."""

    def __init__(self, path: Path) -> None:
        """Of this path, whether it is there or not."""
        self.path = path
        self.config, self.facts = path / "config.toml", path / "data.json"
        self.log_csv, self.log_json = path / "log.csv", path / "log.jsonl"
        self.curves, self.result = path / "curves.png", path / "result.json"
        self.checkpoints = path / "checkpoints"

    @property
    def taken(self) -> bool:
        """Whether there is a run; a folder for checkpoints without any is what one left that was killed at once."""
        return self.config.exists() or any(self.checkpoints.glob("step-*"))

    def check_free(self) -> None:
        """Raise unless a run may begin here; nothing is made.

        Raises:
            RunError: there is one already, or nothing can be written here.
        """
        if self.taken:
            raise RunError(
                f"{self.path} has a run already: go on with funcnet resume {self.path} (or --resume), or choose "
                "another --out."
            )
        above = self.path
        while not above.exists() and above != above.parent:
            above = above.parent
        if not above.is_dir():
            raise RunError(f"{self.path} cannot be made, since {above} is a file: choose another --out.")
        if not os.access(above, os.W_OK | os.X_OK):
            raise RunError(f"{self.path} cannot be written, since {above} is not writable: choose another --out.")

    def check_data(self, facts: Facts) -> None:
        """Raise unless the run, where there is one, was trained on such data.

        Raises:
            RunError: the data has changed.
        """
        differing = Facts.read(self.facts).differing(facts) if self.facts.exists() else ""
        if differing:
            raise RunError(
                f"the data is no longer that of the run in {self.path}: {differing}. Give it the data that it had, or "
                "train anew into another folder."
            )

    def write(self, config: Config, facts: Facts) -> None:
        """Say what the run is."""
        comment = _COMMENT.format(config=shlex.quote(str(self.config)), folder=shlex.quote(str(self.path)))
        self.write_text(self.facts, facts.to_json())
        self.write_text(self.config, configs.dump(config, comment))  # last: where it is, there is a run

    def write_text(self, path: Path, text: str) -> None:
        """Write a file whole or not at all."""
        with whole(path) as new:
            new.write_text(text, encoding="utf-8")

    def read(self) -> tuple[Config, Facts]:
        """What the run is.

        Raises:
            RunError: there is none, or a file of it was damaged.
        """
        if not self.config.is_file():
            is_there = "has no run (no config.toml)" if self.path.is_dir() else "is no folder"
            raise RunError(f"{self.path} {is_there}: name the folder that funcnet train --out wrote.")
        return configs.resolved(configs.read(self.config), str(self.config)), Facts.read(self.facts)

    def rows_of_log(self) -> list[dict[str, float]]:
        """The rows of the log as `draw_curves` takes them: training metrics of steps where there are such rows."""
        lines = self.log_json.read_text(encoding="utf-8").splitlines() if self.log_json.exists() else []
        rows = [{name: float(value) for name, value in json.loads(line).items()} for line in lines]
        if all("epoch" in row for row in rows):
            return rows
        inner = {name for row in rows if "epoch" not in row for name in row if name != "step"}
        return [{k: v for k, v in row.items() if "epoch" not in row or k not in inner} for row in rows]


def is_run(path: Path) -> bool:
    """Whether this is a checkpoint, a folder of them, or the folder of a run, which may have none yet."""
    return (path / MANIFEST).exists() or any(path.glob("step-*")) or Folder(path).taken


def checkpoint_in(path: Path, which: str = "latest") -> Path:
    """A checkpoint: itself, or that of a run's folder which is latest, best, or of a step.

    Raises:
        RunError: there is none such.
    """
    if (path / MANIFEST).exists():
        return path
    inner = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    found = checkpoint.latest(inner)
    if found is None:
        raise RunError(f"{path} has no whole checkpoint yet: begin again with funcnet resume {path}.")
    if which == "latest":
        return found
    if which == "best":
        return checkpoint.best(inner, *Facts.read(path / "data.json").best) or found
    steps = sorted(int(each.name[5:]) for each in inner.glob("step-*") if each.name[5:].isdecimal())
    if not which.isdecimal() or int(which) not in steps:
        raise RunError(f"there is no checkpoint {which!r} in {path}: write latest, best, or one of {steps}.")
    return read_manifest(inner / f"step-{int(which):08d}").folder


@contextmanager
def telling(say: Callable[[str], object] = lambda line: print(line, file=sys.stderr)) -> Iterator[None]:
    """A context whose warnings are told in a line each, at its end."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            for text in dict.fromkeys(" ".join(str(each.message).split()) for each in caught):
                say(text)
