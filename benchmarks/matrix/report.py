"""The tables of the matrix, and its results as plain data."""

import platform
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from matrix.judge import Verdict

# row -> "funcnet" or "raw" -> column -> verdict
Results = dict[str, dict[str, dict[str, Verdict]]]

MARKS = {"right": "+", "wrong": "x", "draws": "?", "error": "!", "n/a": "·"}


def markdown(results: Results, ways: Sequence[str], backend: str) -> str:
    """Both tables and the totals; the mark of raw torch stands beside that of funcnet."""
    columns = list(next(iter(results.values()))[ways[0]])
    numbered = [f"{i}. {column}" for i, column in enumerate(columns, 1)]
    lines = [
        f"torch {torch.__version__}, {platform.machine()}, jit by {backend}. "
        f"In each cell: {', then '.join(ways)}; + right, x wrong, ! an error, "
        "? other random numbers than the loop drew after the same seed, · not applicable.",
        "",
        "Columns: " + ", ".join(numbered) + ".",
        "",
    ]
    header = ["layer", *map(str, range(1, len(columns) + 1)), *(f"{way}: right / all" for way in ways)]
    lines += ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    for row, cells in results.items():
        marks = ["".join(MARKS[cells[way][column].kind] for way in ways) for column in columns]
        lines.append("| " + " | ".join([row, *marks, *(_fraction(cells[way].values()) for way in ways)]) + " |")
    for way in ways:
        sums = [_fraction([cells[way][column] for cells in results.values()]) for column in columns]
        total = _fraction([verdict for cells in results.values() for verdict in cells[way].values()])
        filled = [total if way == other else "" for other in ways]
        lines.append("| " + " | ".join([f"**{way}**", *sums, *filled]) + " |")
    lines += [""]
    for way in ways:
        kinds = [verdict.kind for cells in results.values() for verdict in cells[way].values()]
        counted = sum(kind != "n/a" for kind in kinds)
        lines.append(
            f"{way}: {kinds.count('right')} of {counted} right, {kinds.count('wrong')} wrong, "
            f"{kinds.count('draws')} with other draws, {kinds.count('error')} with an error, "
            f"{kinds.count('n/a')} not applicable."
        )
    reasons = [reason for row, cells in results.items() for reason in reasons_of(row, cells, "n/a")]
    return "\n".join([*lines, "", *reasons]).rstrip() + "\n"


def _fraction(verdicts: Iterable[Verdict]) -> str:
    counted = [verdict for verdict in verdicts if verdict.kind != "n/a"]
    return f"{sum(verdict.kind == 'right' for verdict in counted)} / {len(counted)}"


def tally(results: Results, way: str, row: str) -> str:
    """How many cells of one row are right."""
    return f"{way} {_fraction(results[row][way].values())}"


def reasons_of(row: str, cells: dict[str, dict[str, Verdict]], *kinds: str) -> list[str]:
    """Why the cells of a row with such outcomes are what they are, a line each."""
    return [
        f"- {way}, {row}, {column}: {' '.join(verdict.detail.split())[:400]}"
        for way, verdicts in cells.items()
        for column, verdict in verdicts.items()
        if verdict.kind in kinds
    ]


def plain(results: Results, backend: str) -> dict[str, Any]:
    """Everything, for JSON."""
    return {
        "torch": torch.__version__,
        "backend": backend,
        "cells": [
            # The first line of an error, without the trace that torch may print below it.
            {
                "layer": row,
                "transform": column,
                "by": way,
                **verdict._asdict(),
                "detail": verdict.detail[:200].split("\n")[0],
            }
            for row, cells in results.items()
            for way, verdicts in cells.items()
            for column, verdict in verdicts.items()
        ],
    }


def all_right(results: Results, way: str) -> bool:
    """Whether no cell that applies is wrong."""
    kinds = {verdict.kind for cells in results.values() for verdict in cells[way].values()}
    return kinds <= {"right", "n/a"}
