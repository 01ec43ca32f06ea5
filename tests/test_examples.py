"""The examples, on small settings; MNIST itself where FUNCNET_MNIST names a folder that torchvision reads."""

import importlib.util
import os
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from funcnet import jit

pytest.importorskip("matplotlib")

EXAMPLES = Path(__file__).parent.parent / "examples"
PNG = b"\x89PNG\r\n"


def example(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_are_short(path):
    assert len(path.read_text().splitlines()) < 80


# torch.func.jvp scripts its decompositions on the first call
@pytest.mark.filterwarnings("ignore:.torch.jit.script.:FutureWarning")
def test_gradients_are_as_expected(capsys):
    module = example("gradients")
    assert module.main() == 0
    assert len(capsys.readouterr().out.splitlines()) == 13
    with pytest.raises(AssertionError, match=r"not close"):
        module.show("wrong", module.T(1.0), module.T(2.0))


@pytest.mark.parametrize("seed", ["0", "1"])
def test_linear_regression_finds_the_line(seed, tmp_path, capsys):
    out = tmp_path / "deep" / "fit.png"
    assert example("linear_regression").main(["--seed", seed, "--out", str(out)]) == 0
    assert out.read_bytes().startswith(PNG)
    assert [path.name for path in out.parent.iterdir()] == ["fit.png"]
    assert "truth 3.0" in capsys.readouterr().out


def test_augment_draws_its_sheet(tmp_path, capsys):
    out = tmp_path / "deep" / "augment.png"
    assert example("augment").main(["--size", "16", "--out", str(out)]) == 0
    assert out.read_bytes().startswith(PNG)
    assert "13 augmentations of 8 pictures" in capsys.readouterr().out


def idx(array):
    return struct.pack(f">{1 + array.ndim}I", 2048 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def digits(tmp_path):
    """A tiny MNIST: class d is a bright row d."""
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 600), ("t10k", 100)):
        labels = np.arange(count) % 10
        images = np.zeros((count, 28, 28))
        images[np.arange(count), 2 * labels + 3] = 255
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path / "data"


def test_mnist_learns(digits, tmp_path, capsys):
    out = tmp_path / "out" / "confusion.png"
    assert example("mnist_mlp").main(["--data", str(digits), "--out", str(out), "--epochs", "5"]) == 0
    assert "test accuracy 100.00% after 20 steps" in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == ["confusion.png"]


def test_mnist_limit_and_a_missed_accuracy(digits, tmp_path):
    images = digits / "MNIST/raw/train-labels-idx1-ubyte"
    images.write_bytes(idx(np.zeros(600)))  # all labels wrong: nothing can be learnt
    arguments = ["--data", str(digits), "--out", str(tmp_path / "a.png")]
    assert example("mnist_mlp").main(arguments) == 1
    assert example("mnist_mlp").main([*arguments, "--limit", "128", "--epochs", "1"]) == 0


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("damage", ["missing", "empty", "header", "truncated", "other"])
def test_mnist_names_a_damaged_file(name, damage, digits, tmp_path, capsys):
    path = digits / "MNIST/raw" / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "header": content[:5], "truncated": content[:-1], "other": b"x" * 90}[damage])
    out = tmp_path / "out.png"
    with pytest.raises(SystemExit) as stop:
        example("mnist_mlp").main(["--data", str(digits), "--out", str(out)])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert f"{path} is missing, empty or truncated" in err
    assert f"gunzip -kf {path.parent}/*.gz" in err
    assert err.count("\n") == 1
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.skipif("FUNCNET_MNIST" not in os.environ, reason="FUNCNET_MNIST names no folder")
@pytest.mark.parametrize("options", [[], ["--compile"]], ids=["eager", "compiled"])
def test_mnist_itself_reaches_98_percent(options, tmp_path):
    arguments = ["--data", os.environ["FUNCNET_MNIST"], "--out", str(tmp_path / "mnist.png"), *options]
    assert example("mnist_mlp").main(arguments) == 0


@pytest.mark.slow
def test_the_race_draws_forty_runs(tmp_path, capsys, monkeypatch):
    out, race = tmp_path / "deep" / "race.png", example("optimizer_race")
    monkeypatch.setattr(race, "jit", partial(jit, backend="aot_eager"))
    assert race.main(["--steps", "20", "--out", str(out)]) == 0
    assert out.read_bytes().startswith(PNG)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    losses = {line.split()[0]: float(line.split()[-1]) for line in lines}
    assert losses["adam"] < 0.5  # from 2.3
