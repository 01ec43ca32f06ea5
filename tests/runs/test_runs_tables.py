"""Models of tables, used on files with other columns, gaps and categories of any spelling."""

import json

import pytest

from funcnet.cli import main
from funcnet.runs.folder import Folder


def run(capsys, *words):
    """Status, and what came on stdout and stderr."""
    status = main([str(word) for word in words])
    return status, *capsys.readouterr()


def trained(capsys, folder, header, rows, target="y"):
    """The folder of a linear model of a table, told in full by its columns."""
    file = folder / "table.csv"
    file.write_text("\n".join([*header, *rows]))
    words = ["--data", f"csv:{file}#{target}", "--model", "linear", "--optim", "sgd", "--lr", "0.1", "--epochs", "60"]
    words += ["--batch-size", "20", "--out", folder / "run", "--quiet"]
    status, _, err = run(capsys, "train", *words)
    assert (status, err) == (0, "")
    return folder / "run"


def values(capsys, run_folder, text):
    file = run_folder.parent / "new.csv"
    file.write_text(text)
    status, out, err = run(capsys, "predict", run_folder, file, "--json")
    assert (status, err) == (0, "")
    return [each["value"] for each in json.loads(out)]


def test_categories_with_an_equals_sign(tmp_path, capsys):
    worth = {"a=1": 1, "a=2": 5, "b": 9}
    folder = trained(capsys, tmp_path, ["k=v,y"], [f"{kind},{y}" for kind, y in worth.items()] * 12)
    assert Folder(folder).read()[1].columns == (("k=v", "a=1"), ("k=v", "a=2"), ("k=v", "b"))
    assert values(capsys, folder, "k=v\na=2\nb\na=1\n") == pytest.approx([5, 9, 1], abs=0.1)


def test_categories_that_look_like_numbers(tmp_path, capsys):
    worth = {"1": 1, "2": 5, "x": 9, "y": 3}
    folder = trained(capsys, tmp_path, ["kind,y"], [f"{kind},{y}" for kind, y in worth.items()] * 12)
    assert values(capsys, folder, "kind\n2\n1\n2\n") == pytest.approx([5, 1, 5], abs=0.1)
    (tmp_path / "new.csv").write_text("kind\n2\n3\n")
    status, _, err = run(capsys, "predict", folder, tmp_path / "new.csv")
    assert status == 2
    assert "column 'kind' has the category '3', and the model knows 1, 2, x, y" in err


def test_gaps_in_columns_that_are_not_needed(tmp_path, capsys):
    folder = trained(capsys, tmp_path, ["a,y"], [f"{i},{3 * i}" for i in range(40)])
    assert values(capsys, folder, "note,y,a\n,,2\nred,?,4\n") == pytest.approx([6, 12], abs=0.5)
    (tmp_path / "new.csv").write_text("a\n1\n?\n")
    status, _, err = run(capsys, "predict", folder, tmp_path / "new.csv")
    assert status == 2
    assert err == f"funcnet: {tmp_path / 'new.csv'}, line 3: column 'a' has no value. Fill it in.\n"
    (tmp_path / "new.csv").write_text("a,y\n1,1\n?,2\n")
    status, _, err = run(capsys, "evaluate", folder, "--data", f"csv:{tmp_path / 'new.csv'}#y")
    assert status == 2
    assert err.endswith("line 3: column 'a' has no value. Fill it in.\n")


def test_a_file_without_names_is_used_as_it_was_trained_on(tmp_path, capsys):
    worth = {"red": 1, "blue": 5}
    rows = [f"{kind},{word},{y}" for kind, y in worth.items() for word in ("p", "q")] * 12
    folder = trained(capsys, tmp_path, [], rows, target="2?header=no")
    assert Folder(folder).read()[1].header is False
    assert values(capsys, folder, "blue,p\nred,q\nred,p\n") == pytest.approx([5, 1, 1], abs=0.1)
