"""The commands of training, from the shell's words to what they print and write."""

import csv
import json

import pytest
import torch
from PIL import Image

from funcnet import checkpoint, random
from funcnet.cli import main
from funcnet.runs import config as configs
from funcnet.runs.folder import Folder

PICTURES = "synthetic:images?n=200&size=8&classes=3"
TABLE = "synthetic:regression?n=200&noise=0"


def run(capsys, *words):
    """Status, and what came on stdout and stderr."""
    status = main([str(word) for word in words])
    return status, *capsys.readouterr()


def params(folder):
    return checkpoint.load(checkpoint.latest(folder / "checkpoints")).params


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run's folder, to be looked at only."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    words = ["--data", PICTURES, "--model", "mlp:16", "--epochs", "3", "--log-every", "1", "--schedule", "cosine"]
    assert main(["train", *words, "--ema", "0.9", "--augment", "flip", "--out", str(folder), "--quiet"]) == 0
    return folder


def test_a_folder_explains_itself(trained):
    names = {path.name for path in trained.iterdir()}
    pytest.importorskip("matplotlib")
    assert names == {
        "config.toml", "data.json", "log.csv", "log.jsonl", "curves.png", "checkpoints", "result.json",
    }  # fmt: skip
    text = (trained / "config.toml").read_text()
    assert f"funcnet resume {trained}" in text
    assert 'model = "mlp:64-16-3"' in text
    assert "lr = 0.001" in text
    with (trained / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert len(rows) == len(lines) == 2 * 3 + 3
    assert [line["epoch"] for line in lines if "epoch" in line] == [1, 2, 3]
    assert float(rows[-1]["test_accuracy"]) == lines[-1]["test_accuracy"]
    result = json.loads((trained / "result.json").read_text())
    assert result["parameters"] == 64 * 16 + 16 + 16 * 3 + 3
    assert result["metrics"]["test_accuracy"] == lines[-1]["test_accuracy"]
    with Image.open(trained / "curves.png") as picture:
        assert picture.size[0] > 400


def test_the_written_config_gives_the_same_bits(trained, tmp_path, capsys):
    words = ["--config", trained / "config.toml", "--out", tmp_path / "b", "--json"]
    status, out, err = run(capsys, "train", *words)
    assert status == 0
    assert "3 classes" in err
    result = json.loads(out)
    assert result["metrics"] == json.loads((trained / "result.json").read_text())["metrics"]
    assert same(params(trained), params(tmp_path / "b"))
    assert (trained / "log.jsonl").read_text() == (tmp_path / "b" / "log.jsonl").read_text()


def test_options_go_before_the_file(trained, tmp_path, capsys):
    words = ["--config", trained / "config.toml", "--steps", "2", "--seed", "5", "--lr", "0.1"]
    status, out, _ = run(capsys, "train", *words, "--out", tmp_path / "b", "--quiet", "--json")
    assert (status, json.loads(out)["steps"]) == (0, 2)
    config, _ = Folder(tmp_path / "b").read()
    before, _ = Folder(trained).read()
    assert (config.steps, config.epochs, config.seed, config.lr) == (2, None, 5, 0.1)
    assert config.augment == before.augment == ("flip",)


def test_no_seed_is_that_of_another(trained, tmp_path):
    words = ["--config", str(trained / "config.toml"), "--seed", "5", "--out", str(tmp_path / "b"), "--quiet"]
    assert main(["train", *words]) == 0
    assert not same(params(trained), params(tmp_path / "b"))


def test_quiet_says_the_result_alone(tmp_path, capsys):
    words = ["--data", TABLE, "--model", "linear", "--epochs", "1", "--out", tmp_path / "a", "--quiet"]
    status, out, err = run(capsys, "train", *words)
    assert (status, err) == (0, "")
    assert "test_r2" in out
    assert str(tmp_path / "a") in out


def test_runs_are_numbered_where_no_folder_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        assert main(["train", "--data", TABLE, "--model", "linear", "--steps", "1", "--quiet"]) == 0
        assert (tmp_path / "runs" / str(number) / "result.json").exists()


def test_numbers_are_told_in_their_own_unit(tmp_path, capsys):
    file = tmp_path / "houses.csv"
    x = random.normal(random.key(4), (200, 2)).tolist()
    lines = [f"{a},{b},{'red' if a > 0 else 'blue'},{5000 + 300 * a - 200 * b + 100 * (a > 0)}" for a, b in x]
    file.write_text("\n".join(["size,age,colour,price", *lines]))
    words = ["--data", f"csv:{file}#price", "--model", "linear", "--lr", "0.05", "--epochs", "60", "--quiet"]
    status, out, _ = run(capsys, "train", *words, "--out", tmp_path / "a", "--batch-size", "40", "--json")
    metrics = json.loads(out)["metrics"]
    assert status == 0
    assert metrics["test_r2"] > 0.999
    assert metrics["test_rmse"] < 15
    status, out, _ = run(capsys, "evaluate", tmp_path / "a", "--json")
    told = json.loads(out)["metrics"]
    assert {f"test_{name}": value for name, value in told.items()} == pytest.approx(
        {name: value for name, value in metrics.items() if name.startswith("test_")}, rel=1e-5
    )
    (tmp_path / "new.csv").write_text("colour,age,size\nred,0,1\nblue,1,-1\n")
    status, out, _ = run(capsys, "predict", tmp_path / "a", tmp_path / "new.csv", "--json")
    values = [each["value"] for each in json.loads(out)]
    assert values == pytest.approx([5400, 4500], abs=30)
    (tmp_path / "bad.csv").write_text("colour,age,size\ngreen,0,1\n")
    status, out, err = run(capsys, "predict", tmp_path / "a", tmp_path / "bad.csv")
    assert (status, out) == (2, "")
    assert "column 'colour' has the category 'green', and the model knows blue, red" in err
    (tmp_path / "less.csv").write_text("colour,size\nred,1\n")
    status, out, err = run(capsys, "predict", tmp_path / "a", tmp_path / "less.csv")
    assert status == 2
    assert "no column 'age'" in err


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Red and blue pictures, a folder for each."""
    folder = tmp_path_factory.mktemp("photos")
    for place, name in enumerate(("blue", "red")):
        (folder / name).mkdir()
        for i in range(20):
            colour = [40 + i, 60, 200 - i] if place == 0 else [200 - i, 60, 40 + i]
            Image.new("RGB", (12, 10), tuple(colour)).save(folder / name / f"{i}.png")
    return folder


def test_pictures_are_told_apart(photos, tmp_path, capsys):
    words = ["--data", f"folder:{photos}", "--size", "8", "--model", "cnn:4", "--epochs", "8", "--batch-size", "8"]
    status, _, _ = run(capsys, "train", *words, "--lr", "0.01", "--out", tmp_path / "a", "--quiet")
    assert status == 0
    status, out, _ = run(capsys, "predict", tmp_path / "a", photos / "red" / "3.png", photos / "blue", "--json")
    told = json.loads(out)
    assert [each["class"] for each in told] == ["red", *["blue"] * 20]
    assert set(told[0]["top"]) == {"red", "blue"}
    assert sum(told[0]["top"].values()) == pytest.approx(1)
    status, out, _ = run(capsys, "predict", tmp_path / "a", photos / "red" / "3.png", "--top", "1")
    assert out.startswith(f"{photos / 'red' / '3.png'}: red ")
    status, out, _ = run(capsys, "evaluate", tmp_path / "a", "--part", "all", "--checkpoint", "best", "--json")
    found = json.loads(out)
    assert found["classes"] == {"blue": 1.0, "red": 1.0}
    assert found["confusion"] == [[20, 0], [0, 20]]
    status, out, _ = run(capsys, "evaluate", tmp_path / "a", "--data", f"folder:{photos}")
    assert "of each true class (rows)" in out
    (tmp_path / "broken.png").write_bytes(b"no picture")
    status, _, err = run(capsys, "predict", tmp_path / "a", tmp_path / "broken.png")
    assert status == 2
    assert "broken.png cannot be used" in err


@pytest.mark.parametrize("model", ["lstm:24,layers=1", "gpt:24,layers=1,heads=2,dropout=0.05"])
def test_text_is_gone_on_with(model, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("abcdefgh" * 300)
    words = ["--data", f"text:{tmp_path / 'a.txt'}", "--model", model, "--length", "8", "--steps", "60"]
    status, _, _ = run(
        capsys, "train", *words, "--lr", "0.01", "--batch-size", "16", "--out", tmp_path / "r", "--quiet"
    )
    assert status == 0
    status, out, _ = run(capsys, "predict", tmp_path / "r", "cde", "--tokens", "12", "--temperature", "0")
    assert (status, out) == (0, "cdefghabcdefgha\n")
    wild = ["predict", tmp_path / "r", "cde", "--tokens", "20", "--temperature", "9", "--seed"]
    drawn = [run(capsys, *wild, seed)[1] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    status, _, err = run(capsys, "predict", tmp_path / "r", "xyz")
    assert status == 2
    assert "the character 'x' at place 0" in err
    status, out, _ = run(capsys, "evaluate", tmp_path / "r", "--json")
    assert json.loads(out)["metrics"]["accuracy"] > 0.8
    (tmp_path / "b.txt").write_text("hgfedcba" * 40)
    status, out, _ = run(capsys, "evaluate", tmp_path / "r", "--json", "--data", f"text:{tmp_path / 'b.txt'}")
    assert json.loads(out)["metrics"]["accuracy"] < 0.3


def test_weights_of_another_run_and_frozen_ones(trained, tmp_path, capsys):
    words = ["--data", PICTURES.replace("classes=3", "classes=4"), "--model", "mlp:16", "--epochs", "1"]
    words += ["--init-from", trained, "--freeze", "1.*", "--out", tmp_path / "b"]
    status, _, err = run(capsys, "train", *words)
    assert status == 0
    assert "2 of 4 tensors of parameters; new: 3.weight, 3.bias" in err
    assert "1,040 parameters are frozen (2 tensors)" in err
    ts = checkpoint.load(checkpoint.latest(tmp_path / "b" / "checkpoints"))
    before = checkpoint.load(checkpoint.best(trained / "checkpoints", "test_accuracy", "max"))
    assert sorted(ts.params) == ["3.bias", "3.weight"]
    assert torch.equal(ts.state["1.weight"], before.average["1.weight"])
    status, _, err = run(capsys, "train", *words[:-2], "--freeze", "*", "--out", tmp_path / "c")
    assert status == 2
    assert "leaves nothing to train" in err


def test_weights_of_a_torch_file(tmp_path, capsys):
    weight = random.normal(random.key(1), (3, 64))
    torch.save({"1.weight": weight, "1.bias": weight[:, 0].clone()}, tmp_path / "w.pt")
    words = ["--data", PICTURES, "--model", "linear", "--steps", "1", "--freeze", "1.weight"]
    assert main(["train", *words, "--init-from", str(tmp_path / "w.pt"), "--out", str(tmp_path / "a"), "--quiet"]) == 0
    ts = checkpoint.load(checkpoint.latest(tmp_path / "a" / "checkpoints"))
    assert torch.equal(ts.state["1.weight"], weight)
    torch.save({"other": weight}, tmp_path / "x.pt")
    words = [*words, "--init-from", tmp_path / "x.pt", "--out", tmp_path / "b"]
    status, _, err = run(capsys, "train", *words)
    assert status == 2
    assert "nothing that fits: its names are such as 'other', and the model's such as '1.weight'" in err


@pytest.mark.parametrize(
    "words",
    [
        ["--precision", "fp64"],
        ["--precision", "bf16", "--augment", "mixup"],
        ["--precision", "fp16", "--accumulate", "2"],
        ["--precision", "autocast-bf16", "--model", "cnn:4-8"],
        ["--optim", "torch:Adam,amsgrad=true", "--schedule", "onecycle", "--skip-nonfinite", "--clip", "1"],
        ["--optim", "lbfgs", "--metrics", "grad_norm", "--metrics", "grad_norms"],
        ["--optim", "noisy_sgd"],
    ],
)
def test_options_work_together(words, tmp_path, capsys):
    base = ["--data", PICTURES, "--model", "mlp:16", "--epochs", "1", "--batch-size", "20", "--out", tmp_path / "a"]
    status, out, _ = run(capsys, "train", *base, *words, "--quiet", "--json")
    assert status == 0
    assert json.loads(out)["metrics"]["loss"] < 2
    if "grad_norms" in words:
        assert "grad_norm/1.weight" in json.loads(out)["metrics"]


def test_early_stopping_keeps_the_best(tmp_path, capsys):
    words = ["--data", "synthetic:classification?n=100&noise=8", "--model", "mlp:64", "--epochs", "60", "--lr", "0.01"]
    status, out, _ = run(
        capsys, "train", *words, "--early-stopping", "4", "--keep-last", "1", "--out", tmp_path / "a", "--json"
    )
    result = json.loads(out)
    assert status == 0
    assert result["stopped_early"]
    assert result["epochs"] < 60
    lines = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "epoch" in line]
    found = [line["test_accuracy"] for line in lines]
    assert found.index(max(found)) == len(found) - 5  # the first of its like, and four that were no better
    assert result["best"] == {
        "step": next(n["step"] for n in lines[::-1] if n["test_accuracy"] == max(found)),
        "test_accuracy": max(found),
    }
    kept = sorted(int(path.name[5:]) for path in (tmp_path / "a" / "checkpoints").glob("step-*"))
    assert kept == sorted({result["best"]["step"], result["steps"]})


def test_one_recompile_is_none(tmp_path, capsys, monkeypatch):
    from funcnet.runs import commands, plan

    steps = []
    real = plan.jit
    monkeypatch.setattr(commands, "_BACKEND", "aot_eager")
    monkeypatch.setattr(plan, "jit", lambda *args, **kwargs: steps.append(real(*args, **kwargs)) or steps[-1])
    words = ["--data", PICTURES, "--model", "mlp:16,dropout=0.1", "--epochs", "2", "--schedule", "warmup-cosine"]
    words += ["--compile", "--augment", "crop:padding=1", "--precision", "fp16", "--ema", "0.9", "--batch-size", "30"]
    assert main(["train", *words, "--out", str(tmp_path / "a"), "--quiet"]) == 0
    (step,) = steps
    assert step.compiles == 1
    assert main(["train", *words, "--no-compile", "--out", str(tmp_path / "b"), "--quiet"]) == 0
    assert len(steps) == 1
    a, b = params(tmp_path / "a"), params(tmp_path / "b")
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_compiled_run_is_repeated_to_the_bit(tmp_path, capsys):
    words = ["--data", PICTURES, "--model", "cnn:4", "--epochs", "2", "--compile", "--precision", "bf16", "--quiet"]
    assert main(["train", *words, "--out", str(tmp_path / "a")]) == 0
    config = tmp_path / "a" / "config.toml"
    assert main(["train", "--config", str(config), "--out", str(tmp_path / "b"), "--quiet"]) == 0
    assert same(params(tmp_path / "a"), params(tmp_path / "b"))
    assert configs.read(config)["compile"] is True
