"""The guide's snippets run and print what it shows, up to the digits."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "debugging.md"


def pages():
    spec = importlib.util.spec_from_file_location("pages", Path(__file__).with_name("pages.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain(text):
    """Without digits, spaces between columns, and units that go with the digits."""
    text = re.sub(r"-?\d[\d.,]*(e[+-]\d+)?( [kMG]?B)?", "#", text)
    return [" ".join(line.split()) for line in text.splitlines()]


def test_it_prints_what_it_shows(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = pages().run(PAGE)
    assert sum(kind is not None for _, kind, _, _ in found) == 6
    for code, kind, shown, printed in found:
        if kind == "text":
            assert plain(printed) == plain(shown), code
        elif kind == "console":
            assert plain(printed)[0] == plain(shown)[0]
            assert printed.count("\n") == shown.count("\n")
        else:
            assert not printed
    text = PAGE.read_text()
    assert "aten::" in text
    assert "in submodule '1' (Entropy)" in text
    assert "vanishing" in found[-1][3]


def test_all_tools_are_named():
    import funcnet.diagnostics as room

    text = PAGE.read_text()
    for name, value in vars(room).items():
        if callable(value) and name.islower() and name != "flow_numbers":
            assert f"`{name}`" in text, name


@pytest.mark.parametrize(("text", "expected"), [("a  1.5 kB\nb 2e-3", ["a #", "b #"])])
def test_digits_are_left_out(text, expected):
    assert plain(text) == expected
