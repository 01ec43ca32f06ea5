"""What cannot be run: one line that says why and what to write instead, status 2, and nothing written."""

import gzip
import os
import re
import struct
from pathlib import Path

import pytest
from PIL import Image

from funcnet.cli import main
from funcnet.runs import options

PICTURES = "synthetic:images?n=200&size=8&classes=3"


def refused(capsys, *words):
    """The line that a command is refused with."""
    try:
        status = main([str(word) for word in words])
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "mnits"], "'mnits' names no data: near names: mnist"),
        (["--data", "folder"], "write folder:PATH"),
        (["--data", "mnist", "--root", "nowhere"], "--download"),
        (["--data", "folder:nowhere"], "nowhere"),
        (["--data", "csv:nowhere.csv#y"], "nowhere.csv cannot be read"),
        (["--data", "synthetic:images?side=3"], "no option 'side'"),
        (["--size", "4"], "size is 4"),
        (["--model", "mpl"], "'mpl' is no model; near names: mlp"),
        (["--model", "mlp:784-512-3"], "ends with 3 but does not begin with 64"),
        (["--model", "cnn:1-2-3-4-5"], "at most 3 stages fit"),
        (["--model", "torchvision:resnet81"], "near names: resnet18"),
        (["--model", "torchvision:resnet18(num_classes=10)"], "its last layer must give 3"),
        (["--model", "torch.nn:Linear(3, 4)"], "the model fails on the data"),
        (["--model", "torch.nn:Identity"], "its last layer must give 3|nothing to train"),
        (["--model", "nowhere:f"], "nowhere cannot be imported"),
        (["--optim", "adma"], "near names: adam"),
        (["--optim", "sgd:momentum=high"], "sgd:momentum=high"),
        (["--schedule", "cosin"], "near names: cosine"),
        (["--optim", "sm3", "--schedule", "cosine"], "no schedule: leave --schedule out"),
        (["--optim", "lbfgs", "--schedule", "cosine"], "write one with --lr"),
        (["--batch-size", "161"], "--batch-size 161 is more than the 160 rows to train on: write 160 or less"),
        (["--accumulate", "3"], "write --batch-size 63"),
        (["--precision", "bf61"], "'bf61' is no precision; near names: bf16"),
        (["--augment", "flop"], "near names: flip"),
        (["--augment", "crop:4"], "crop to that size"),
        (["--metrics", "gradnorm"], "grad_norm"),
        (["--device", "nowhere"], "no device 'nowhere' on this machine; there are cpu"),
        (["--freeze", "fc.*"], "no name that matches 'fc.*'"),
        (["--freeze", "*"], "leaves nothing to train"),
        (["--init-from", "nowhere.pt"], "nowhere.pt"),
        (["--epochs", "2", "--steps", "3"], "give one of the two"),
        (["--epochs", "0"], "argument --epochs: '0' is no whole number from 1 on"),
        (["--lr", "fast"], "argument --lr: 'fast' is no number above 0"),
        (["--lr", "nan"], "'nan' is no number above 0"),
        (["--ema", "1"], "'1' is no number from 0 on and below 1"),
        (["--seed", str(2**64)], "more than 64 bits"),
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["--config", "nowhere.toml"], "nowhere.toml cannot be read"),
    ],
)
def test_one_line_and_no_folder(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = {"--data": PICTURES, "--model": "mlp:16", "--out": tmp_path / "runs" / "a"}
    base = {word: value for word, value in base.items() if word not in words}
    err = refused(capsys, "train", *[word for pair in base.items() for word in pair], *words)
    assert re.search(re.escape(message).replace(r"\|", "|"), err), err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("here")
    words = ["train", "--data", PICTURES, "--model", "mlp:16", "--out"]
    assert "file is a file: choose another --out" in refused(capsys, *words, tmp_path / "file" / "a")
    assert "is a file: choose another --out" in refused(capsys, *words, tmp_path / "file")
    if os.geteuid():  # root writes everywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "is not writable: choose another --out" in refused(capsys, *words, tmp_path / "locked" / "a")
    else:
        assert "/proc" in refused(capsys, *words, "/proc/nowhere/a")


def test_a_folder_that_has_a_run(tmp_path, capsys):
    words = ["train", "--data", PICTURES, "--model", "mlp:16", "--steps", "1", "--out", tmp_path / "a", "--quiet"]
    assert main([str(word) for word in words]) == 0
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    err = refused(capsys, *words)
    assert "has a run already: go on with funcnet resume" in err
    assert "(or --resume), or choose another --out" in err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("command", ["resume", "evaluate", "predict"])
def test_a_folder_without_a_run(command, tmp_path, capsys):
    more = ["x"] if command == "predict" else []
    assert "has no run (no config.toml)" in refused(capsys, command, tmp_path, *more)
    assert "is no folder" in refused(capsys, command, tmp_path / "a", *more)
    assert list(tmp_path.iterdir()) == []


def test_a_config_with_a_wrong_setting(tmp_path, capsys):
    file = tmp_path / "a.toml"
    file.write_text('data = "digits"\nmodel = "linear"\nepoch = 3\n')
    assert f"{file}: 'epoch' is no setting; near names: epochs" in refused(capsys, "train", "--config", file)
    file.write_text('data = "digits"\nmodel = "linear"\nepochs = "3"\n')
    assert "epochs is '3': it is a whole number" in refused(capsys, "train", "--config", file)
    assert "there is no data: write --data mnist" in refused(capsys, "train", "--model", "linear")


def pictures(folder, count=12):
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (20 * i, 9, 200)).save(folder / name / f"{i}.png")


def test_pictures_that_are_broken(tmp_path, capsys):
    pictures(tmp_path / "p")
    (tmp_path / "p" / "a" / "3.png").write_bytes((tmp_path / "p" / "a" / "3.png").read_bytes()[:50])
    words = ["train", "--data", f"folder:{tmp_path / 'p'}", "--model", "linear", "--batch-size", "4", "--steps", "2"]
    words += ["--out", tmp_path / "r"]
    err = refused(capsys, *words)
    assert "3.png cannot be used" in err
    assert "--skip-bad" in err
    assert not (tmp_path / "r").exists()
    assert main([str(word) for word in [*words, "--skip-bad"]]) == 0
    assert "1 unreadable pictures or lines are left out" in capsys.readouterr().err
    (tmp_path / "p" / "c").mkdir()
    assert "c has no pictures" in refused(capsys, *words[:-1], tmp_path / "r2")


def test_pictures_of_several_sizes(tmp_path, capsys):
    pictures(tmp_path / "p")
    Image.new("RGB", (9, 9)).save(tmp_path / "p" / "b" / "other.png")
    words = ["train", "--data", f"folder:{tmp_path / 'p'}", "--model", "linear", "--out", tmp_path / "r"]
    assert "give a size to resize to with --size" in refused(capsys, *words)


@pytest.mark.parametrize("fault", ["short", "label"])
def test_idx_files_that_are_broken(fault, tmp_path, capsys):
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 30), ("t10k", 10)):
        images = struct.pack(">4i", 2051, n, 28, 28) + bytes(range(256)) * (n * 784 // 256 + 1)
        labels = struct.pack(">2i", 2049, n) + bytes(
            [(77 if fault == "label" and i == 5 else i % 10) for i in range(n)]
        )
        images = images[: 16 + n * 784 - (9 if fault == "short" and part == "train" else 0)]
        (raw / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (raw / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    words = ["train", "--data", "mnist", "--root", tmp_path / "data", "--model", "linear", "--out", tmp_path / "r"]
    err = refused(capsys, *words)
    assert ("label 77" if fault == "label" else "train-images-idx3-ubyte") in err
    assert not (tmp_path / "r").exists()


def test_text_that_is_too_short(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("abc" * 100)
    words = ["train", "--data", f"text:{tmp_path / 'a.txt'}", "--model", "lstm", "--out", tmp_path / "r"]
    err = refused(capsys, *words)
    assert "has 30 tokens in its smaller part, too few for windows of 64: write --length 14 or less" in err


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a"
    words = ["--data", PICTURES, "--model", "mlp:16", "--steps", "2", "--out", str(folder), "--quiet"]
    assert main(["train", *words]) == 0
    return folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--checkpoint", "first"], "there is no checkpoint 'first'"),
        (["--checkpoint", "7"], "one of [2]"),
        (["--data", PICTURES.replace("classes=3", "classes=4")], "has classes ('0', '1', '2', '3')"),
        (["--data", PICTURES.replace("size=8", "size=9")], "has rows of shape (1, 9, 9)"),
        (["--data", "synthetic:regression"], "has kind 'regression'"),
        (["--part", "half"], "invalid choice: 'half'"),
        (["--device", "nowhere"], "there is no device 'nowhere'"),
    ],
)
def test_what_cannot_be_evaluated(run, words, message, capsys):
    assert message in refused(capsys, "evaluate", run, *words)


def test_what_cannot_be_predicted(run, tmp_path, capsys):
    assert "nowhere.png cannot be used" in refused(capsys, "predict", run, tmp_path / "nowhere.png")
    assert "has no pictures" in refused(capsys, "predict", run, tmp_path)
    assert "'0' is no whole number from 1 on" in refused(capsys, "predict", run, "x.png", "--top", "0")


def test_a_run_whose_files_were_damaged(tmp_path, capsys):
    words = ["--data", PICTURES, "--model", "mlp:16", "--steps", "2", "--out", str(tmp_path / "a"), "--quiet"]
    assert main(["train", *words]) == 0
    capsys.readouterr()
    folder = tmp_path / "a"
    tensors = next((folder / "checkpoints").glob("step-*")) / "tensors.safetensors"
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "is not what was written" in refused(capsys, "evaluate", folder)
    tensors.write_bytes(whole)
    (folder / "config.toml").write_text((folder / "config.toml").read_text().replace("64-16-3", "64-17-3"))
    assert "are of another run than its config.toml" in refused(capsys, "resume", folder, "--quiet")
    (folder / "data.json").write_text("{")
    assert "data.json is not what a run of this version writes" in refused(capsys, "evaluate", folder)


PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"


@pytest.mark.parametrize("command", ["train", "resume", "evaluate", "predict", "find-lr"])
def test_help_shows_examples_and_the_page_every_option(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"examples:\n  funcnet {command} " in text
    flags = set(re.findall(r"(?<!no)--[a-z][a-z-]+", text)) - {"--help"}
    assert flags
    page = PAGE.read_text()
    assert [flag for flag in flags if f"`{flag}" not in page and not flag.startswith("--no-")] == []


def test_every_setting_has_an_option():
    from funcnet.runs.config import _KINDS

    assert set(options.names()) == set(_KINDS)
