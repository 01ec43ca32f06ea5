"""A report against an older one."""

from rich.table import Table

from funcnet.bench.result import Report

__all__ = ["changes"]


def changes(report: Report, older: Report) -> Table:
    """Times now and before, and the change of each way's ratio to its subject's reference.

    Times of two runs differ by whatever else the machine did; ratios within a run do not.
    """
    title = "against the older report"
    if report.environment != older.environment:
        differing = [name for name, value in report.environment.items() if older.environment.get(name) != value]
        title += f" (of another {', '.join(differing)})"
    drawn = Table(title=title, title_justify="left", box=None, header_style="bold")
    for column in ("way", "ms", "was", "ratio", "was", "ratio, now / then"):
        drawn.add_column(column, justify="left" if column == "way" else "right")
    before = {result.name: result for result in older.results}
    for result in report.results:
        old = before.get(result.name)
        for name in result.ran() if old is not None else ():
            mine = result.cells[name].timing
            theirs = old.cells[name].timing if old is not None and name in old.cells else None
            if old is None or mine is None or theirs is None:
                continue
            now, then = result.over(name, *result.reference), old.over(name, *old.reference)
            ratios = (f"{now.value:.2f}", f"{then.value:.2f}", f"{now.value / then.value:.2f}") if now and then else ()
            drawn.add_row(f"{result.name}, {name}", f"{1e3 * mine.median:.3g}", f"{1e3 * theirs.median:.3g}", *ratios)
    return drawn
