"""A report as tables: for the terminal, and in Markdown."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from funcnet.bench.limits import Limits
from funcnet.bench.result import Cell, Report, Result

__all__ = ["markdown", "table"]

_COLUMNS = (
    "way",
    "ms",
    "quartiles",
    "ratio (95 %)",
    "first, s",
    "cached, s",
    "pays after",
    "peak, MiB",
    "GFLOP/s",
)


def table(result: Result, limits: Limits) -> Table:
    """One subject, a row for each way; a way that did not run has its reason there."""
    drawn = Table(title=title(result), title_justify="left", box=None, header_style="bold")
    widest = max(map(len, result.cells), default=0)
    drawn.add_column(_COLUMNS[0], min_width=widest, max_width=48)  # a reason is longer than a name
    for column in _COLUMNS[1:]:
        drawn.add_column(column, justify="right")
    for name, cell in result.cells.items():
        style = "red" if cell.failure else "dim" if cell.absent else None
        drawn.add_row(*map(Text, _row(result, name, cell, limits)), style=style)
    return drawn


def title(result: Result) -> str:
    """The subject and its sizes."""
    settings = ", ".join(f"{name} {value}" for name, value in result.settings.items())
    work = f"{result.flops / 1e9:.3g} GFLOP a step" if result.flops else ""
    return "; ".join(filter(None, (result.name, settings, work, result.failure)))


def markdown(report: Report) -> str:
    """Every subject as a Markdown table, under a line that says what the figures hold for."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    around, limits = report.environment, report.limits
    packages = ", ".join(f"{name} {version}" for name, version in around["packages"].items())
    yield f"{around['machine']}, {around['threads']} threads, {around['device']};"
    yield f"Python {around['python']}, {packages}."
    if around.get("gpu"):  # an older report has none of these
        yield f"{', '.join(f'{name} {value}' for name, value in around['gpu'].items())}."
    if around.get("run"):
        yield f"{around['run']['date'][:10]}, autocast to {around['run']['autocast'] or 'nothing'}."
    yield f"A matrix product reaches {limits.flops / 1e9:.0f} GFLOP/s, and a copy {limits.bandwidth / 1e9:.1f} GB/s."
    for result in report.results:
        yield from ("", f"**{title(result)}**", "")
        if result.reference:
            yield from (f"Ratios are to the fastest of: {'; '.join(result.reference)}.", "")
        yield f"| {' | '.join(_COLUMNS)} |"
        yield f"| --- |{' ---: |' * (len(_COLUMNS) - 1)}"
        for name, cell in result.cells.items():
            yield f"| {' | '.join(_row(result, name, cell, limits))} |"


def _row(result: Result, name: str, cell: Cell, limits: Limits) -> tuple[str, ...]:
    timing = cell.timing
    if timing is None:
        reason = cell.failure or cell.absent
        return (f"{name}: {reason}" if reason else name, *[""] * (len(_COLUMNS) - 1))
    ratio = result.over(name, *result.reference)
    rate = result.flops / timing.median if result.flops else None
    return (
        name,
        _significant(1e3 * timing.median),
        f"{_significant(1e3 * timing.low)} to {_significant(1e3 * timing.high)}",
        str(ratio) if ratio is not None else "",
        _seconds(cell.cold),
        _seconds(cell.cached) if cell.compiled else "",
        _pays(result, cell),
        f"{cell.peak / 2**20:.1f}" if cell.peak is not None else "not measured",
        f"{rate / 1e9:.1f} ({rate / limits.flops:.0%})" if rate is not None else "",
    )


def _pays(result: Result, cell: Cell) -> str:
    """After how many steps compiling has paid, against the fastest reference that needs none."""
    plain = [name for name in result.reference if name in result.cells and not result.cells[name].compiled]
    fastest = result.ran(*plain) if plain else []
    other = result.cells[fastest[0]].timing if fastest else None
    if cell.compile_seconds is None or cell.timing is None or other is None:
        return ""
    ratio, saved = cell.timing.over(other), other.median - cell.timing.median
    if ratio.low <= 1 <= ratio.high:
        return "unsure"
    return f"{cell.compile_seconds / saved:,.0f} steps" if saved > 0 else "never"


def _significant(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
