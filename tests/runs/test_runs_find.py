"""`funcnet find-lr`."""

import json

import pytest

from funcnet.cli import main
from funcnet.runs import commands

WORDS = ["find-lr", "--data", "synthetic:images?n=400&size=8&classes=3", "--model", "mlp:16", "--batch-size", "40"]


def run(capsys, *words):
    try:
        status = main([str(word) for word in words])
    except SystemExit as stop:
        status = stop.code
    return status, *capsys.readouterr()


def test_a_rate_is_suggested_and_trains(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *WORDS, "--json", "--quiet", "--rates", "60")
    found = json.loads(out)
    assert (status, err) == (0, "")
    assert 1e-4 < found["suggestion"] < 1
    assert len(found["rates"]) == len(found["losses"]) <= 60
    assert found["rates"] == sorted(found["rates"])
    assert list(tmp_path.iterdir()) == []
    words = ["train", *WORDS[1:], "--lr", found["suggestion"], "--epochs", "4", "--quiet", "--json"]
    status, out, _ = run(capsys, *words, "--out", tmp_path / "a")
    assert json.loads(out)["metrics"]["test_accuracy"] > 0.9


def test_the_sweep_is_drawn_and_told(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    words = [*WORDS, "--optim", "sgd:momentum=0.9", "--rates", "40", "--plot", tmp_path / "rates.png"]
    status, out, err = run(capsys, *words)
    assert status == 0
    assert out.startswith("--lr ")
    assert "mlp:64-16-3" in err
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [tmp_path / "rates.png"]


def test_compiled_and_eager_sweeps_agree(capsys, monkeypatch):
    monkeypatch.setattr(commands, "_BACKEND", "aot_eager")
    words = [*WORDS, "--rates", "20", "--high", "0.1", "--json", "--quiet", "--precision", "fp64"]
    eager, compiled = (json.loads(run(capsys, *words, *more)[1]) for more in ([], ["--compile"]))
    assert compiled["losses"] == pytest.approx(eager["losses"], rel=1e-6)


def test_no_suggestion_is_status_1(capsys):
    status, out, _ = run(capsys, *WORDS, "--low", "1e-12", "--high", "1e-11", "--rates", "20", "--quiet")
    assert status == 1
    assert out.startswith("no suggestion: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--low", "1", "--high", "0.1"], "--low 1 is not below --high 0.1"),
        (["--low", "0"], "'0' is no number above 0"),
        (["--rates", "9"], "'9' is no whole number from 10 on"),
        (["--plot", "nowhere/a.png"], "there is no folder nowhere; make it first"),
        (["--plot", "a.doc"], "is no picture"),
        (["--optim", "sm3"], "which no sweep can change"),
        (["--optim", "adma"], "near names: adam"),
    ],
)
def test_what_cannot_be_swept(words, message, capsys):
    status, out, err = run(capsys, *WORDS, *words)
    assert (status, out) == (2, "")
    assert message in err.splitlines()[-1]
