"""The first examples, on small settings; MNIST itself where FUNCNET_MNIST names a folder that has it."""

import os

import numpy as np
import pytest

pytest.importorskip("matplotlib")


def test_examples_are_short(example_path):
    assert len(example_path.read_text().splitlines()) < 80


# torch.func.jvp scripts its decompositions on the first call
@pytest.mark.filterwarnings("ignore:.torch.jit.script.:FutureWarning")
def test_gradients_are_as_expected(example, capsys):
    module = example("gradients")
    assert module.main() == 0
    assert len(capsys.readouterr().out.splitlines()) == 13
    with pytest.raises(AssertionError, match=r"not close"):
        module.show("wrong", module.T(1.0), module.T(2.0))


@pytest.mark.parametrize("seed", ["0", "1"])
def test_linear_regression_finds_the_line(seed, run):
    code, told = run("linear_regression", "--seed", seed)
    assert code == 0
    assert "truth 3.0" in told


def test_augment_draws_its_sheet(run):
    assert "13 augmentations of 8 pictures" in run("augment", "--size", "16")[1]


def test_mnist_learns(digits, run):
    code, told = run("mnist_mlp", "--data", digits, "--epochs", "5")
    assert code == 0
    assert "test accuracy 100.00% after 20 steps" in told


def test_mnist_limit_and_a_missed_accuracy(digits, idx, run):
    labels = digits / "MNIST/raw/train-labels-idx1-ubyte"
    labels.write_bytes(idx(np.zeros(600)))  # all labels wrong: nothing can be learnt
    assert run("mnist_mlp", "--data", digits)[0] == 1
    assert run("mnist_mlp", "--data", digits, "--limit", "128", "--epochs", "1")[0] == 0


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("damage", ["missing", "empty", "header", "truncated", "other"])
def test_mnist_names_a_damaged_file(name, damage, digits, example, tmp_path, capsys):
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
    assert name in err
    assert str(path.parent) in err
    assert err.count("\n") == 1
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.skipif("FUNCNET_MNIST" not in os.environ, reason="FUNCNET_MNIST names no folder")
@pytest.mark.parametrize("options", [[], ["--compile"]], ids=["eager", "compiled"])
def test_mnist_itself_reaches_98_percent(options, example, tmp_path):
    arguments = ["--data", os.environ["FUNCNET_MNIST"], "--out", str(tmp_path / "mnist.png"), *options]
    assert example("mnist_mlp", backend="inductor").main(arguments) == 0


@pytest.mark.slow
def test_the_race_draws_forty_runs(run):
    lines = run("optimizer_race", "--steps", "20")[1].splitlines()
    assert len(lines) == 10
    losses = {line.split()[0]: float(line.split()[-1]) for line in lines}
    assert losses["adam"] < 0.5  # from 2.3
