import re
from pathlib import Path

import pytest

import funcnet

README = Path(__file__).parent.parent / "README.md"


def code():
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    return block


def test_the_example_runs_and_learns(monkeypatch, capsys):
    monkeypatch.setattr(funcnet, "jit", lambda f, **options: real(f, **{"backend": "aot_eager"} | options))
    exec(compile(code(), "README.md", "exec"), {})
    loss, accuracy, compiles = re.findall(r"[\d.]+", capsys.readouterr().out)
    assert float(loss) < 0.2
    assert float(accuracy) > 0.93
    assert compiles == "1"


real = funcnet.jit


def test_it_is_as_long_as_promised():
    assert len(code().splitlines()) <= 25


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:tests|benchmarks|examples|docs)/[\w./]*)`", README.read_text())))
)
def test_what_it_names_exists(path):
    assert (README.parent / path).exists()


@pytest.mark.parametrize("page", ["README.md", "docs/performance.md"])
def test_its_tables_are_those_of_the_results(page):
    import tables

    text = (README.parent / page).read_text()
    assert tables.filled(text) == text
    measured = ("bench-cpu", "bench-cpu-more", "bench-cpu-gpt", "bench-cpu-resnet50", "bench-cpu-thousand")
    assert f"<!-- targets: {' '.join(f'{name}.json' for name in measured)} -->" in text
