"""A summary's rows as a table that fits its width, and what can be printed with and without a terminal."""

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from funcnet.counts.rows import Cost, Row

__all__ = ["Printed", "scaled", "table_of"]

_GAP = 2
_NARROW_MODULE, _NARROW_FORMULA = 30, 12  # what these columns are cut to before the formulas are left out


class Printed:
    """What rich draws, as plain text too: `str(self)`, 120 columns wide."""

    def __str__(self) -> str:
        """What is drawn, as plain text, 120 columns wide."""
        return self.text()

    def text(self, width: int = 120) -> str:
        """What is drawn, as plain text."""
        console = Console(width=width, color_system=None, legacy_windows=False)
        with console.capture() as capture:
            console.print(self)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The parts, one below the other."""
        raise NotImplementedError


def table_of(rows: Sequence[Row], train: bool, width: int) -> Table:
    """A line for each row.

    Long names are cut, long formulas go on in a further line, and formulas that would have no room are left out.
    """
    columns = {"module": [_name(row) for row in rows]}
    if any(row.cost for row in rows):
        columns["output"] = [_shapes(row.cost) for row in rows]
    columns["parameters"] = [f"{row.count:,}" if row.count else "" for row in rows]
    columns["formula"] = [row.formula for row in rows]
    if "output" in columns:
        columns["FLOPs"] = [scaled(row.cost.forward) if row.cost else "" for row in rows]
        if train:
            columns["backward"] = [scaled(row.cost.backward) if row.cost else "" for row in rows]
            columns["kept"] = [scaled(row.cost.kept, "B") if row.cost else "" for row in rows]

    widths = {name: max(map(len, [name, *cells])) for name, cells in columns.items()}
    room = width - sum(widths.values()) - _GAP * (len(widths) - 1) + widths["module"] + widths["formula"]
    if room < min(widths["module"], _NARROW_MODULE) + min(widths["formula"], _NARROW_FORMULA):
        room += _GAP
        del columns["formula"]
        widths["module"] = min(widths["module"], room)
    else:
        # Names before formulas, which lose nothing by a line break.
        widths["formula"] = min(widths["formula"], max(room - widths["module"], _NARROW_FORMULA))
        widths["module"] = min(widths["module"], room - widths["formula"])

    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for name in columns:
        wraps = name == "formula"
        table.add_column(
            name,
            width=max(widths[name], 1),
            justify="left" if name in ("module", "output", "formula") else "right",
            no_wrap=not wraps,
            overflow="fold" if wraps else "ellipsis",
        )
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*map(Text, cells))
    return table


def scaled(number: int, unit: str = "") -> str:
    """Three significant digits and a power of 1,000; nothing for 0.

    >>> scaled(4_089_184_256), scaled(512, "B"), scaled(0)
    ('4.09 G', '512 B', '')
    """
    if not number:
        return ""
    value, prefixes = float(number), iter(["", "k", "M", "G", "T", "P", "E"])
    prefix = next(prefixes)
    while value >= 999.5:
        value, prefix = value / 1000, next(prefixes)
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits if prefix else 0}f} {prefix}{unit}".rstrip()


def _name(row: Row) -> str:
    name = row.path.rpartition(".")[2]
    return "  " * row.depth + (f"{name}: {row.kind}" if name else row.kind)


def _shapes(cost: Cost | None) -> str:
    """The sizes of the first tensor, and how many more there are."""
    if not (cost and cost.shapes):
        return ""
    more = f" +{len(cost.shapes) - 1}" if len(cost.shapes) > 1 else ""
    return (",".join(map(str, cost.shapes[0])) or "scalar") + more
