"""The command line: statuses and one-line messages."""

import sys
from importlib.metadata import version

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from funcnet import demo
from funcnet.cli import main
from funcnet.jit import CompilerMissingError


@pytest.fixture
def runs(monkeypatch):
    """Replace the demo's run by one that returns or raises what the list's first entry says."""
    answers, calls = [], []

    def run(out, seed, settings):
        calls.append((out, seed, settings))
        if isinstance(answers[0], BaseException):
            raise answers[0]
        return answers[0]

    monkeypatch.setattr(demo, "run", run)
    return answers, calls


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"funcnet {version('funcnet')}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: command"),
        (["dmeo"], "invalid choice: 'dmeo'"),
        (["demo", "--seed", "one"], "'one' is no integer"),
        (["demo", "--seed", str(2**64)], "more than 64 bits"),
    ],
)
def test_wrong_usage_exits_with_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("reached", "status"), [(True, 0), (False, 1)])
def test_status_says_whether_the_targets_were_reached(reached, status, runs, tmp_path):
    answers, calls = runs
    answers.append(reached)
    assert main(["demo", "--out", str(tmp_path), "--seed", "3"]) == status
    assert main(["demo", "--eager"]) == status
    (out, seed, settings), (_, default_seed, eager) = calls
    assert (out, seed, settings.backend) == (tmp_path, 3, "inductor")
    assert (default_seed, eager.backend) == (0, None)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "funcnet: interrupted.\n"),
        (PermissionError(13, "Permission denied"), 2, "cannot write to 'demo': Permission denied. Name another folder"),
        (CompilerMissingError("jit needs a compiler."), 2, "jit needs a compiler. Or run: funcnet demo --eager\n"),
    ],
)
def test_what_stops_the_demo_is_one_line(error, status, message, runs, capsys):
    runs[0].append(error)
    assert main(["demo"]) == status
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("package", "name"), [("sklearn", "scikit-learn"), ("matplotlib", "matplotlib")])
def test_a_missing_extra_is_named_with_the_command(package, name, monkeypatch, capsys):
    for module in list(sys.modules):
        if module.split(".")[0] == package or module.startswith("funcnet.demo"):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    missing = ModuleNotFoundError(f"No module named {package!r}", name=package)

    class Finder:
        def find_spec(self, fullname, path=None, target=None):
            if fullname.split(".")[0] == package:
                raise missing

    monkeypatch.delitem(sys.modules, package)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert main(["demo"]) == 2
    err = capsys.readouterr().err
    assert err == f'funcnet: the demo needs {name}, which is not installed: pip install "funcnet[demo]"\n'


def test_a_file_in_the_place_of_the_folder(tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    assert main(["demo", "--out", str(tmp_path / "taken"), "--eager"]) == 2
    assert "cannot write to" in capsys.readouterr().err
