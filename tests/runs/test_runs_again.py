"""A folder keeps the run that it has: what would go on otherwise than it began is refused, and nothing is written."""

import json

import pytest
import torch

from funcnet import _compat, random
from funcnet.cli import main
from funcnet.runs import Config, RunError, plan
from funcnet.runs.folder import Folder
from funcnet.runs.rows import Facts

PICTURES = ["--data", "synthetic:images?n=100&size=8&classes=3", "--model", "mlp:8", "--quiet"]


def run(capsys, *words):
    """Status, and what came on stdout and stderr."""
    status = main([str(word) for word in words])
    return status, *capsys.readouterr()


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(capsys, folder, *words):
    """The line that a command is refused with, which leaves a folder as it is."""
    capsys.readouterr()
    before = contents(folder)
    status, out, err = run(capsys, *words)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert contents(folder) == before
    return err


@pytest.fixture
def table(tmp_path):
    """A file of 40 rows, and a run of one epoch on it."""
    file = tmp_path / "table.csv"
    file.write_text("a,b,y\n" + "".join(f"{i},{'red' if i % 2 else 'blue'},{i}\n" for i in range(40)))
    words = ["--data", f"csv:{file}#y", "--model", "linear", "--epochs", "1", "--batch-size", "8", "--quiet"]
    assert main(["train", *words, "--out", str(tmp_path / "run")]) == 0
    return file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text + "40,red,40\n", "its rows: (32, 8) then, (33, 8) now"),
        (lambda text: text.replace("39,red,39", "39,green,39"), "its shape: (3,) then, (4,) now"),
        (lambda text: text.replace("red", "pink"), "its columns: "),
        (lambda text: text.replace("\n3,", "\n9000,").replace("\n4,", "\n9000,"), "its mean: "),
        (lambda text: text.replace(",3\n", ",9000\n").replace(",4\n", ",9000\n"), "its target: "),
    ],
)
def test_other_data_than_the_run_had_is_refused(table, change, message, capsys):
    folder, text = table.parent / "run", table.read_text()
    table.write_text(change(text))
    for words in (["resume", folder, "--epochs", "3"], ["resume", folder]):
        err = refused(capsys, folder, *words)
        assert f"the data is no longer that of the run in {folder}: {message}" in err
        assert "or train anew into another folder" in err
    table.write_text(text)
    assert run(capsys, "resume", folder, "--epochs", "3", "--quiet")[0] == 0


def test_the_last_bits_of_what_is_measured_are_no_other_data():
    facts = Facts("regression", (2,), (), (1e-9, 5.0), (1.0, 2.0), (3.0, 4.0), source="here", rows=(8, 2))
    near = facts._replace(mean=(-1e-9, 5.00001), std=(1.00001, 2.0), target=(3.00001, 4.0), source="there")
    assert facts.differing(near) == ""
    assert facts.differing(facts._replace(mean=(0.001, 5.0))).startswith("its mean: (1e-09, 5.0)")
    assert facts.differing(facts._replace(mean=(0.0,))).startswith("its mean: ")
    assert facts.differing(facts._replace(target=(3.0, 4.01))) == "its target: (3.0, 4.0) then, (3.0, 4.01) now"


def test_checkpoints_of_another_model_leave_the_files_as_they_are(tmp_path, capsys):
    folder = tmp_path / "a"
    assert main(["train", *PICTURES, "--epochs", "1", "--out", str(folder)]) == 0
    config = folder / "config.toml"
    config.write_text(config.read_text().replace("64-8-3", "64-9-3"))
    err = refused(capsys, folder, "resume", folder, "--epochs", "2", "--quiet")
    assert "are of another run than its config.toml" in err


def test_a_run_that_came_meanwhile_is_left_alone(tmp_path, capsys, monkeypatch):
    folder, words = tmp_path / "a", ["train", *PICTURES, "--steps", "1", "--out", tmp_path / "a"]
    real = plan.make

    def slowly(*args, **kwargs):
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.toml").write_text("another run\n")
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(plan, "make", slowly)
        status, _, err = run(capsys, *words)
    assert status == 2
    assert "has a run already: go on with funcnet resume" in err
    assert contents(tmp_path) == {folder / "config.toml": b"another run\n"}
    (folder / "config.toml").unlink()
    (folder / "checkpoints" / "step-00000001").mkdir()
    assert "has a run already" in refused(capsys, tmp_path, *words)
    (folder / "checkpoints" / "step-00000001").rmdir()
    assert run(capsys, *words)[0] == 0  # what a run left that was killed before it wrote anything


def test_a_number_that_somebody_took_is_passed_over(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    real = plan.make

    def slowly(*args, **kwargs):
        (tmp_path / "runs" / "1").mkdir(parents=True)
        return real(*args, **kwargs)

    monkeypatch.setattr(plan, "make", slowly)
    assert run(capsys, "train", *PICTURES, "--steps", "1")[0] == 0
    assert list((tmp_path / "runs" / "1").iterdir()) == []
    assert (tmp_path / "runs" / "2" / "result.json").exists()
    (tmp_path / "runs" / "3").write_text("")
    monkeypatch.setattr(plan, "make", real)
    assert run(capsys, "train", *PICTURES, "--steps", "1", "--model", "nets")[0] == 2
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["1", "2", "3"]


def test_what_a_run_goes_on_with_is_taken_from_options_and_file(tmp_path, capsys):
    folder = tmp_path / "a"
    words = ["train", *PICTURES, "--resume", "--out", folder, "--epochs", "1"]
    assert run(capsys, *words)[0] == 0
    assert "no device 'nowhere'" in refused(capsys, folder, *words, "--device", "nowhere")
    (tmp_path / "a.toml").write_text("epochs = 3\n")
    assert run(capsys, *words[:-2], "--config", tmp_path / "a.toml")[0] == 0
    assert json.loads((folder / "result.json").read_text())["epochs"] == 3
    (tmp_path / "a.toml").write_text('device = "nowhere"\n')
    assert "no device 'nowhere'" in refused(capsys, folder, *words[:-2], "--config", tmp_path / "a.toml")


def test_an_end_that_lies_behind_is_refused(tmp_path, capsys):
    folder = tmp_path / "a"
    assert main(["train", *PICTURES, "--batch-size", "20", "--epochs", "3", "--out", str(folder)]) == 0
    err = refused(capsys, folder, "resume", folder, "--epochs", "2", "--quiet")
    assert "has done 3 epochs already, and --epochs 2 would end before: write --epochs 3 or more" in err
    err = refused(capsys, folder, "resume", folder, "--steps", "11", "--quiet")
    assert "has done 12 steps already, and --steps 11 would end before: write --steps 12 or more" in err
    assert run(capsys, "resume", folder, "--epochs", "3", "--quiet")[0] == 0
    assert run(capsys, "resume", folder, "--steps", "14", "--quiet")[0] == 0
    err = refused(capsys, folder, "resume", folder, "--epochs", "3", "--quiet")
    assert "has done 3 epochs and a part already, and --epochs 3 would end before: write --epochs 4 or more" in err


def test_compiling_without_a_compiler_is_refused_before_anything_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_compat, "cpp_compiler_problem", lambda: "no compiler on this machine")
    err = refused(capsys, tmp_path, "train", *PICTURES, "--device", "cpu", "--compile", "--out", tmp_path / "a")
    assert "--compile found no C++ compiler (no compiler on this machine): install g++" in err
    assert "or leave --compile out" in err
    assert list(tmp_path.iterdir()) == []


def test_the_weights_that_a_run_began_with_may_be_gone(tmp_path, capsys):
    folder, file = tmp_path / "a", tmp_path / "w.pt"
    torch.save({"1.weight": random.normal(random.key(1), (8, 64))}, file)
    words = ["train", *PICTURES, "--init-from", file, "--out", folder]
    assert run(capsys, *words, "--epochs", "1")[0] == 0
    file.unlink()
    assert run(capsys, "resume", folder, "--epochs", "2", "--quiet")[0] == 0
    for each in (folder / "checkpoints").glob("step-*"):
        each.rename(tmp_path / each.name)
    assert "w.pt cannot be read" in refused(capsys, folder, "resume", folder, "--quiet")


def test_a_folder_of_weights_is_no_run(tmp_path, capsys):
    (tmp_path / "weights").mkdir()
    words = ["train", *PICTURES, "--init-from", tmp_path / "weights", "--out", tmp_path / "a"]
    assert "weights is a folder without weights" in refused(capsys, tmp_path, *words)
    file = tmp_path / "weights" / "model.pt"
    torch.save({"1.weight": random.normal(random.key(1), (8, 64))}, file)
    assert f"weights is a folder: name the file in it ('{file}')" in refused(capsys, tmp_path, *words)
    (tmp_path / "weights" / "config.toml").write_text("")
    assert "has no whole checkpoint yet" in refused(capsys, tmp_path, *words)


def test_a_home_is_found_wherever_a_path_is_written(table, capsys, monkeypatch):
    home = table.parent
    monkeypatch.setenv("HOME", str(home))
    words = ["--data", "csv:~/table.csv#y", "--model", "linear", "--init-from", "~/run", "--steps", "2", "--quiet"]
    words += ["--batch-size", "8"]
    assert run(capsys, "train", *words, "--out", home / "b")[0] == 0
    config, _ = Folder(home / "b").read()
    assert (config.data, config.init_from) == (f"csv:{table}#y", str(home / "run"))
    assert run(capsys, "find-lr", *words, "--rates", "10")[0] in (0, 1)
    status, out, _ = run(capsys, "evaluate", home / "b", "--data", "csv:~/table.csv#y", "--json")
    assert (status, json.loads(out)["data"]) == (0, f"csv:{table}#y")
    with pytest.raises(RunError, match=f"{home}/sets"):
        plan.make(Config(data="mnist", model="linear", root="~/sets"))


def test_a_column_is_no_part_of_a_path(table):
    table.write_text(table.read_text().replace("y", "m//s", 1))
    assert plan.make(Config(data=f"csv:{table}#m//s", model="linear", batch_size=8)).config.data.endswith("#m//s")
