"""What a trained model is measured on and how it is told."""

import json

import pytest
import torch
from PIL import Image

from funcnet.cli import main
from funcnet.runs import evaluating, plan, predicting

PICTURES = ["--data", "synthetic:images?n=100&size=8&classes=3", "--model", "mlp:8", "--quiet"]


def run(capsys, *words):
    """Status, and what came on stdout and stderr."""
    status = main([str(word) for word in words])
    return status, *capsys.readouterr()


def metrics(capsys, folder, *words):
    status, out, err = run(capsys, "evaluate", folder, "--json", *words)
    assert (status, err) == (0, "")
    return json.loads(out)


def test_a_text_is_taken_as_the_model_was_trained(tmp_path, capsys):
    plain, accents, words = tmp_path / "plain.txt", tmp_path / "accents.txt", ["--model", "lstm:8,layers=1"]
    plain.write_text("abcd" * 200)
    accents.write_text("abcéé" * 62)  # its last tenth begins within a character's bytes
    words += ["--length", "8", "--steps", "2", "--batch-size", "4", "--quiet", "--out"]
    assert main(["train", "--data", f"text:{plain}?by=bytes", *words, str(tmp_path / "b")]) == 0
    assert main(["train", "--data", f"text:{accents}", *words, str(tmp_path / "c")]) == 0
    capsys.readouterr()
    for folder in (tmp_path / "b", tmp_path / "c"):
        for part in ("test", "train", "all"):
            as_characters = metrics(capsys, folder, "--data", f"text:{accents}", "--part", part)
            as_bytes = metrics(capsys, folder, "--data", f"text:{accents}?by=bytes", "--part", part)
            assert as_characters["metrics"] == as_bytes["metrics"]
            assert as_characters["rows"] == as_bytes["rows"]
    own = metrics(capsys, tmp_path / "c")["metrics"]
    assert own == metrics(capsys, tmp_path / "c", "--data", f"text:{accents}?by=bytes")["metrics"]
    plain.write_text("abxc" * 200)
    status, _, err = run(capsys, "evaluate", tmp_path / "c", "--data", f"text:{plain}?by=bytes")
    assert status == 2
    assert err.endswith("the character 'x' at place 2 is not in the vocabulary of 4 characters, which the model was "
                        "trained on.\n")  # fmt: skip
    plain.write_text("abcc" * 20)
    status, _, err = run(capsys, "evaluate", tmp_path / "c", "--data", f"text:{plain}")
    assert status == 2
    assert "has 8 tokens in its smaller part, too few for windows of 8: take a longer text" in err


def test_names_are_printed_as_they_are(tmp_path, capsys):
    folder = tmp_path / "some [bold] place"
    folder.mkdir()
    names = ["dog [small]", "[/x]", ":cat:"]
    (folder / "t.csv").write_text("a,y\n" + "".join(f"{i},{names[i % 3]}\n" for i in range(60)))
    words = ["--data", f"csv:{folder / 't.csv'}#y", "--model", "linear", "--steps", "2", "--batch-size", "8"]
    assert run(capsys, "train", *words, "--out", tmp_path / "a", "--quiet")[0] == 0
    status, out, err = run(capsys, "evaluate", tmp_path / "a")
    assert (status, err) == (0, "")
    assert all(out.count(name) == 2 for name in names)  # a row and a column
    assert "some [bold] place" in out.replace("\n", "")


def test_a_bad_picture_is_named_without_an_option_that_is_not_there(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / "p" / name).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (8, 8), (20 * i, 9, 200)).save(tmp_path / "p" / name / f"{i}.png")
    words = ["--data", f"folder:{tmp_path / 'p'}", "--model", "linear", "--steps", "1", "--batch-size", "4"]
    assert run(capsys, "train", *words, "--out", tmp_path / "run", "--quiet")[0] == 0
    (tmp_path / "p" / "a" / "3.png").write_bytes(b"no picture")
    status, _, err = run(capsys, "evaluate", tmp_path / "run", "--data", f"folder:{tmp_path / 'p'}")
    assert status == 2
    assert "3.png cannot be used" in err
    assert err.endswith(": mend or remove it.\n")


def no_memory(*_, **__):
    return torch.empty(2**55)


def no_memory_of_a_gpu(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


@pytest.mark.parametrize("fail", [no_memory, no_memory_of_a_gpu])
def test_memory_that_is_not_enough_is_told_in_a_line(fail, tmp_path, capsys, monkeypatch):
    def told(*words):
        status, out, err = run(capsys, *words)
        assert (status, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith("funcnet: the memory is not enough: ")
        return err

    assert run(capsys, "train", *PICTURES, "--steps", "2", "--out", tmp_path / "a")[0] == 0
    monkeypatch.setattr(evaluating.rows, "load", fail)
    assert "write a smaller --batch-size" in told("evaluate", tmp_path / "a")
    monkeypatch.undo()
    monkeypatch.setattr(predicting, "read_picture", fail)
    assert "give fewer inputs at a time" in told("predict", tmp_path / "a", "x.png")
    monkeypatch.setattr(plan.Plan, "run", lambda *_: fail)
    err = told("train", *PICTURES, "--out", tmp_path / "b")
    assert "write a smaller --batch-size, or for pictures a smaller --size" in err
    assert "train anew with a smaller --batch-size" in told("resume", tmp_path / "a", "--steps", "3", "--quiet")
    monkeypatch.setattr(plan.Task, "loss", fail)
    assert "write a smaller --batch-size" in told("train", *PICTURES, "--out", tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_another_error_of_torch_is_no_matter_of_memory(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("a defect")

    monkeypatch.setattr(plan.Plan, "run", lambda *_: fail)
    with pytest.raises(RuntimeError, match="a defect"):
        main(["train", *PICTURES, "--out", str(tmp_path / "b")])


def test_the_size_of_batches_changes_no_measure(tmp_path, capsys):
    assert run(capsys, "train", *PICTURES, "--steps", "2", "--out", tmp_path / "a")[0] == 0
    one, many = (metrics(capsys, tmp_path / "a", "--batch-size", size) for size in (3, 256))
    assert one["confusion"] == many["confusion"]
    assert one["metrics"] == pytest.approx(many["metrics"], rel=1e-5)
