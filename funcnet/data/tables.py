"""CSV files as columns: numbers, and categories as codes into a vocabulary."""

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from funcnet.data.errors import DataError

__all__ = ["Table", "column_named", "read_table"]

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
_DELIMITERS = ",;\t|"


class Table(NamedTuple):
    """The columns of a file, in its order."""

    columns: dict[str, Tensor]
    """By name, or as they were asked for: float64 `(n,)`, or the int64 codes of a column of categories."""
    vocabularies: dict[str, tuple[str, ...]]
    """The categories of such columns, sorted: code i is the i-th."""
    dropped: tuple[int, ...]
    """The lines of rows that were left out for a missing value."""
    names: tuple[str, ...]
    """All columns of the file, read or not."""


def read_table(
    path: str | os.PathLike[str],
    *,
    header: bool | None = None,
    delimiter: str | None = None,
    columns: Sequence[str] | None = None,
    without: Sequence[str] = (),
    categorical: Sequence[str] = (),
    skip_bad: bool = False,
) -> Table:
    """The columns of a CSV file in UTF-8.

    A column is one of numbers if most of its cells are; a cell that is none is then an error, not a category.

    Args:
        path: the file.
        header: whether the first line names the columns; None takes it for names unless one of its cells is a number.
            Without names, columns are called "0", "1" ...
        delimiter: what stands between cells; None takes the one of `, ; tab |` that the first line has most of.
        columns: the names or places of those to read, by which the table has them; the others may hold anything. None
            reads all.
        without: the names or places of those not to read, of all in the file.
        categorical: names or places of columns to take as categories though they are numbers, such as a postcode.
        skip_bad: leave out rows with a missing value (nothing, NA, NaN, null, none, ?), which are an error otherwise.

    Raises:
        DataError: the file cannot be read or is no table; a row has more or fewer cells than there are columns; a
            value is missing, or is no finite number in a column of numbers. The message names line and column.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w") as file:
    ...     _ = file.write("size,colour\\n1.5,red\\n2,blue\\n"), file.flush()
    ...     read_table(file.name)[:2]
    ({'size': tensor([1.5000, 2.0000], dtype=torch.float64), 'colour': tensor([1, 0])}, {'colour': ('blue', 'red')})
    """
    path = Path(path)
    lines, rows = _rows(path, delimiter)
    named = not any(_is_number(cell) for cell in rows[0]) if header is None else header
    names = [cell.strip() for cell in rows[0]] if named else [str(i) for i in range(len(rows[0]))]
    if named:
        lines, rows = lines[1:], rows[1:]
        if not all(names) or len(set(names)) < len(names):
            raise DataError(
                f"{path}, line 1: the columns are named {names}, and every column needs a name of its own. If this "
                f"line is data, read the file with header=False."
            )
    forced = {names.index(column_named(name, names, path)) for name in categorical}
    left = {column_named(name, names, path) for name in without}
    asked = [name for name in names if name not in left] if columns is None else columns
    wanted = {name: names.index(column_named(name, names, path)) for name in asked}
    lines, rows, dropped = _whole(path, wanted, lines, rows, skip_bad)
    if not rows:
        raise DataError(f"{path} has no rows of data{f' but {len(dropped)} with missing values' if dropped else ''}.")
    found, vocabularies = {}, {}
    for name, place in wanted.items():
        cells = [row[place].strip() for row in rows]
        if place in forced or not _numeric(path, name, lines, cells):
            vocabularies[name] = tuple(sorted(set(cells)))
            codes = {category: code for code, category in enumerate(vocabularies[name])}
            found[name] = torch.tensor([codes[cell] for cell in cells], device="cpu")
        else:
            found[name] = torch.tensor([float(cell) for cell in cells], dtype=torch.float64, device="cpu")
    return Table(found, vocabularies, tuple(dropped), tuple(names))


def column_named(name: str, names: Sequence[str], path: Path) -> str:
    """The column of this name, or of this place, which may be negative, where columns have no such name.

    Raises:
        DataError: there is none; with near names.
    """
    if name in names:
        return name
    try:
        return names[int(name)]
    except (ValueError, IndexError):
        near = get_close_matches(name, names, 3, 0.5)
        told = f"near names: {', '.join(near)}" if near else f"it has {', '.join(names[:20])}"
        raise DataError(f"{path} has no column {name!r}; {told}.") from None


def _rows(path: Path, delimiter: str | None) -> tuple[list[int], list[list[str]]]:
    """The rows that are not empty, and the line each ends on; the first says how many cells there are."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: byte {error.start} is no UTF-8. Convert the file to UTF-8.") from error
    source = io.StringIO(text, newline="")  # lines end where csv says, and not at every sign that Unicode has for it
    if delimiter is None:
        first = next((line for line in source if line.strip()), "")
        source.seek(0)
        delimiter = max(_DELIMITERS, key=first.count)
    lines: list[int] = []
    rows: list[list[str]] = []
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if not any(cell.strip() for cell in row) and len(row) < 2:
                continue
            if rows and len(row) != len(rows[0]):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(row)} cells, and the first row has {len(rows[0])}, split at "
                    f"{delimiter!r}."
                )
            lines.append(reader.line_num)
            rows.append(row)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from error
    if not rows:
        raise DataError(f"{path} is empty.")
    return lines, rows


def _whole(
    path: Path, wanted: Mapping[str, int], lines: list[int], rows: list[list[str]], skip_bad: bool
) -> tuple[list[int], list[list[str]], list[int]]:
    """The rows that miss no value in the columns wanted, and the lines of the others."""
    kept, dropped = [], []
    for i, row in enumerate(rows):
        gap = next((name for name, place in wanted.items() if row[place].strip().lower() in MISSING), None)
        if gap is None:
            kept.append(i)
        elif skip_bad:
            dropped.append(lines[i])
        else:
            raise DataError(
                f"{path}, line {lines[i]}: column {gap!r} has no value. Fill it in, or leave such rows out with "
                f"skip_bad=True."
            )
    return [lines[i] for i in kept], [rows[i] for i in kept], dropped


def _numeric(path: Path, name: str, lines: Sequence[int], cells: Sequence[str]) -> bool:
    """Whether a column is one of numbers.

    Raises:
        DataError: most of its cells are, and one is not, or is infinite.
    """
    numbers = [_is_number(cell) for cell in cells]
    if 2 * sum(numbers) <= len(cells):
        return False
    for line, cell, number in zip(lines, cells, numbers, strict=True):
        if not number or not math.isfinite(float(cell)):
            raise DataError(
                f"{path}, line {line}: column {name!r} has {cell[:40]!r}, which is no finite number, and most of the "
                f"column are. Correct it, or take the column as categories with categorical=[{name!r}]."
            )
    return True


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # which Python's own numbers may hold
