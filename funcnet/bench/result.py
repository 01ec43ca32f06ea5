"""What a race found, and its form on disk."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from funcnet.bench.limits import Limits
from funcnet.bench.timing import Ratio, Timing
from funcnet.checkpoint.files import whole

__all__ = ["Cell", "Report", "ReportError", "Result"]


class ReportError(ValueError):
    """A file that holds no report; its message is one line."""


@dataclass
class Cell:
    """What was measured of one way; nothing but `failure` or `absent` where it did not run."""

    compiled: bool = False
    timing: Timing | None = None
    cold: float | None = None
    """Seconds of the first step, which compiles with empty caches."""
    cached: float | None = None
    """Seconds of the first step of a second start, with the compiler's caches filled by the first."""
    warmup: list[float] = field(default_factory=list)
    """Seconds of the steps after that, before anything is counted."""
    peak: int | None = None
    """Bytes held between steps and taken during one."""
    failure: str | None = None
    """Why the way did not do its work, where it should have."""
    absent: str | None = None
    """Why it cannot be run on this machine."""

    @property
    def compile_seconds(self) -> float | None:
        """What compiling took: the first step less an ordinary one."""
        return None if self.cold is None or self.timing is None else max(self.cold - self.timing.median, 0.0)


@dataclass
class Result:
    """One subject in all ways."""

    name: str
    size: int
    unit: str
    settings: dict[str, Any]
    reference: list[str]
    cells: dict[str, Cell]
    flops: int | None = None
    failure: str | None = None
    """Why there are no cells: the subject could not be built."""

    def ran(self, *names: str) -> list[str]:
        """Those of some ways (default: all) that were timed, the fastest first."""
        chosen = [name for name in names or self.cells if name in self.cells]
        timed = {name: t.median for name in chosen if (t := self.cells[name].timing) is not None}
        return sorted(timed, key=timed.__getitem__)

    def over(self, way: str, *others: str) -> Ratio | None:
        """The time of a way over that of the fastest of others; None where nothing can be compared."""
        best = self.ran(*others)
        mine = self.cells[way].timing if way in self.cells else None
        theirs = self.cells[best[0]].timing if best else None
        return mine.over(theirs) if mine is not None and theirs is not None else None


@dataclass
class Report:
    """Results of one run, and what they hold for."""

    environment: dict[str, Any]
    limits: Limits
    results: list[Result]

    @property
    def failures(self) -> list[str]:
        """Each subject that could not be built and each way that failed, with the reason."""
        unbuilt = [f"{result.name}: {result.failure}" for result in self.results if result.failure]
        return unbuilt + [
            f"{r.name}, {way}: {c.failure}" for r in self.results for way, c in r.cells.items() if c.failure
        ]

    @property
    def absences(self) -> list[str]:
        """Each way that cannot be run on this machine, with the reason."""
        return [f"{r.name}, {way}: {c.absent}" for r in self.results for way, c in r.cells.items() if c.absent]

    def plain(self) -> dict[str, Any]:
        """The report as values fit for JSON."""
        results = [asdict(result) for result in self.results]
        for result in results:
            for cell in result["cells"].values():
                cell["timing"] = cell["timing"] and cell["timing"]._asdict()
        return {"environment": self.environment, "limits": self.limits._asdict(), "results": results}

    def save(self, path: Path) -> None:
        """Write the report as JSON, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as written:
            written.write_text(json.dumps(self.plain(), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Report":
        """Read a report that `save` wrote.

        Raises:
            ReportError: there is none.
        """
        try:
            plain = json.loads(path.read_text())
            return cls(plain["environment"], Limits(**plain["limits"]), [_result(r) for r in plain["results"]])
        except OSError as error:
            raise ReportError(f"cannot read {str(path)!r}: {error.strerror or error}.") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ReportError(f"{str(path)!r} holds no report of `funcnet bench --out` ({error}).") from error


def _result(plain: Mapping[str, Any]) -> Result:
    cells = {}
    for way, cell in plain["cells"].items():
        timing = cell["timing"] and Timing(**{**cell["timing"], "rounds": tuple(cell["timing"]["rounds"])})
        cells[way] = Cell(**{**cell, "timing": timing})
    return Result(**{**plain, "cells": cells})
