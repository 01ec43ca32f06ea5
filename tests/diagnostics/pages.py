"""Pages whose snippets run, and what they print: `python tests/diagnostics/pages.py docs/debugging.md` fills it in."""

import io
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

_BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```(text|console)\n(.*?)```\n)?", re.DOTALL)


def run(page: Path) -> list[tuple[str, str | None, str, str]]:
    """Each snippet of a page, the kind of the block below it, what stands there, and what it printed."""
    found, names = [], {"__name__": "page"}
    text = page.read_text()
    for match in _BLOCK.finditer(text):
        code, kind, shown = match.groups()
        # As many lines before it as on the page, so that errors name the page's own.
        lines = "\n" * text[: match.start(1)].count("\n")
        with redirect_stdout(io.StringIO()) as printed:
            exec(compile(lines + code, str(page), "exec"), names)
        found.append((code, kind, shown or "", printed.getvalue()))
    return found


def filled(page: Path) -> str:
    """The page with what its snippets print."""
    printed = iter(run(page))

    def block(match: re.Match[str]) -> str:
        code, kind, _, output = next(printed)
        return f"```python\n{code}```\n" + (f"\n```{kind}\n{output}```\n" if kind else "")

    return _BLOCK.sub(block, page.read_text())


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(filled(path))
