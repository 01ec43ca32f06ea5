"""Writes the tables of README.md and docs/performance.md anew from `benchmarks/results/bench-*.json`.

python benchmarks/tables.py

A table holds what its file holds: run all subjects of a file again, as `make results` does, and not some of them.
"""

import re
from dataclasses import replace
from pathlib import Path

from funcnet.bench import Report, tables, targets

ROOT = Path(__file__).parent.parent
PARTS = {
    "targets": lambda report: targets.markdown(targets.reached(report)),
    "tables": tables.markdown,
}


def filled(text: str) -> str:
    """A page with every part between `<!-- KIND: FILES -->` and `<!-- end -->` made from its files, of one machine."""

    def part(found: re.Match[str]) -> str:
        kind, names = found["kind"], found["names"]
        paths = [ROOT / "benchmarks" / "results" / name for name in names.split()]
        reports = [Report.load(path) for path in paths if path.exists()]
        body = PARTS[kind](joined(reports)) if reports else "Not measured.\n"
        return f"<!-- {kind}: {names} -->\n{body}<!-- end -->"

    pattern = r"<!-- (?P<kind>\w+): (?P<names>[\w. -]+?) -->\n.*?<!-- end -->"
    return re.sub(pattern, part, text, flags=re.DOTALL)


def joined(reports: list[Report]) -> Report:
    """The subjects of several runs as one report; a ratio is always of one run, since a subject is raced in one."""
    return replace(reports[0], results=[result for report in reports for result in report.results])


def main() -> None:
    for page in (ROOT / "README.md", ROOT / "docs" / "performance.md"):
        page.write_text(filled(page.read_text()))


if __name__ == "__main__":
    main()
