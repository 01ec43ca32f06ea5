"""Writes the tables of README.md and docs/performance.md anew from `benchmarks/results/bench-*.json`.

make bench && cp build/bench.json benchmarks/results/bench-cpu.json && python benchmarks/tables.py
"""

import re
from pathlib import Path

from funcnet.bench import Report, tables, targets

ROOT = Path(__file__).parent.parent
PARTS = {
    "targets": lambda report: targets.markdown(targets.reached(report)),
    "tables": tables.markdown,
}


def filled(text: str) -> str:
    """A page with every part between `<!-- KIND: FILE -->` and `<!-- end -->` made from its file."""

    def part(found: re.Match[str]) -> str:
        kind, name = found["kind"], found["name"]
        path = ROOT / "benchmarks" / "results" / name
        body = PARTS[kind](Report.load(path)) if path.exists() else "Not measured.\n"
        return f"<!-- {kind}: {name} -->\n{body}<!-- end -->"

    pattern = r"<!-- (?P<kind>\w+): (?P<name>[\w.-]+) -->\n.*?<!-- end -->"
    return re.sub(pattern, part, text, flags=re.DOTALL)


def main() -> None:
    for page in (ROOT / "README.md", ROOT / "docs" / "performance.md"):
        page.write_text(filled(page.read_text()))


if __name__ == "__main__":
    main()
