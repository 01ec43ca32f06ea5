"""A report against an older one."""

from rich.table import Table

from funcnet.bench.result import Report, Result

__all__ = ["changes"]

_COLUMNS = ("way", "ms", "was", "ratio", "was", "ratio, now / then", "to")


def changes(report: Report, older: Report) -> Table:
    """Times now and before, and the change of each way's ratio to a reference that was timed in both runs.

    Times of two runs differ by whatever else the machine did; ratios within a run do not. The reference is the fastest
    of then; where none of them ran in both, there is no ratio.
    """
    drawn = Table(title="\n".join(_title(report, older)), title_justify="left", box=None, header_style="bold")
    for column in _COLUMNS:
        drawn.add_column(column, justify="left" if column in ("way", "to") else "right")
    before = {result.name: result for result in older.results}
    for result in report.results:
        old = before.get(result.name)
        if old is None:
            continue
        both = [name for name in result.ran() if name in old.ran()]
        shared = [name for name in old.reference if name in both]
        for name in both:
            mine, theirs = result.cells[name].timing, old.cells[name].timing
            if mine is None or theirs is None:
                continue
            drawn.add_row(
                f"{result.name}, {name}",
                f"{1e3 * mine.median:.3g}",
                f"{1e3 * theirs.median:.3g}",
                *_ratios(result, old, name, old.ran(*shared)[0] if shared else None),
            )
    return drawn


def _ratios(result: Result, old: Result, name: str, reference: str | None) -> tuple[str, ...]:
    """A way's ratio now and before, and that of the two."""
    now, then = (one.over(name, reference) if reference else None for one in (result, old))
    if now is None or then is None or reference is None:
        return ()
    return f"{now.value:.2f}", f"{then.value:.2f}", f"{now.value / then.value:.2f}", reference


def _title(report: Report, older: Report) -> list[str]:
    """What was another then: the machine, what it ran, and the sizes of the work. An older report tells less."""
    mine, theirs = report.environment, older.environment
    differing = [name for name, value in mine.items() if name != "run" and theirs.get(name, value) != value]
    lines = ["against the older report" + (f" (of another {', '.join(differing)})" if differing else "")]
    asked, before = (one.get("run", {}).get("autocast") for one in (mine, theirs))
    if "run" in mine and "run" in theirs and asked != before:
        lines.append(f"autocast to {asked or 'nothing'}, was {before or 'nothing'}")
    old = {result.name: result.settings for result in older.results}
    for result in report.results:
        was = old.get(result.name, result.settings)
        # Lists come back from a file where tuples were.
        pairs = {
            name: (_plain(result.settings.get(name)), _plain(was.get(name))) for name in {**was, **result.settings}
        }
        other = [f"{name} {now}, was {then}" for name, (now, then) in pairs.items() if now != then]
        lines += [f"{result.name}: {'; '.join(other)}"] if other else []
    return lines


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
