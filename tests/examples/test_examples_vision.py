"""The examples with pictures, on a few rows in the formats of the real data."""

import numpy as np
import pytest
import torch
from torchvision.models import resnet18

from funcnet import Model, random

pytest.importorskip("matplotlib")

NAMES = ["fashion_cnn", "trashnet_resnet", "transfer", "mnist_gan"]


@pytest.mark.parametrize("options", [[], ["--eager"]], ids=["compiled", "eager"])
def test_the_cnn_learns(options, clothes, run):
    code, told = run("fashion_cnn", "--data", clothes, *options)
    assert code == 0
    assert "test accuracy 100.00%, at least 91%" in told


def test_the_cnn_misses_what_cannot_be_learnt(clothes, idx, run):
    (clothes / "FashionMNIST/raw/train-labels-idx1-ubyte").write_bytes(idx(np.zeros(600)))
    assert run("fashion_cnn", "--data", clothes, "--eager")[0] == 1
    assert run("fashion_cnn", "--data", clothes, "--eager", "--limit", "128")[0] == 0


@pytest.mark.parametrize("options", [pytest.param([], marks=pytest.mark.slow), ["--eager"]], ids=["compiled", "eager"])
def test_resnet_sees_photographs(options, photos, run):
    code, told = run("trashnet_resnet", "--data", photos, "--epochs", "1", "--size", "32", "--batch", "10", *options)
    assert code == 0
    assert "at least 70%" in told


@pytest.mark.parametrize("options", [[], ["--eager"]], ids=["compiled", "eager"])
def test_transfer_compares_three_ways(options, digits, clothes, run):
    code, told = run("transfer", "--data", digits, "--labels", "10", "--epochs", "4", *options)
    assert code == 0
    reached = {line.split()[0]: float(line.split()[1].rstrip("%")) for line in told.splitlines()}
    assert list(reached) == ["scratch", "frozen", "unfrozen"]
    # The sets are alike here, so that a body which has seen one knows the other.
    assert reached["unfrozen"] == 100
    assert reached["unfrozen"] > reached["scratch"]
    assert reached["frozen"] > reached["scratch"]


@pytest.fixture
def weights(tmp_path):
    """A resnet18 of a thousand classes in a file of torch's."""
    params, state = Model(resnet18).init(random.key(1))
    torch.save(params | state, tmp_path / "resnet18.pth")
    return tmp_path / "resnet18.pth"


def test_transfer_takes_weights_and_a_folder(photos, weights, run):
    folder = f"folder:{photos}/trashnet"
    code, told = run(
        "transfer", "--data", folder, "--weights", weights, "--model", "resnet18", "--size", "32", "--epochs", "1",
        "--labels", "10", "--eager", "--batch", "10",
    )  # fmt: skip
    assert code == 0
    assert len(told.splitlines()) == 3


def test_transfer_keeps_the_frozen_body(photos, weights, example):
    transfer = example("transfer")
    rows = transfer.data.load(f"folder:{photos}/trashnet", size=32)
    start = torch.load(weights, weights_only=True)
    model = Model(resnet18, num_classes=5)
    tensors, _ = transfer.learn(model, rows, 1, random.key(0), eager=True, batch=10, start=start, frozen=True)
    moved = {name for name, tensor in tensors.items() if name not in start or not torch.equal(tensor, start[name])}
    assert moved == {"fc.weight", "fc.bias"}
    tensors, _ = transfer.learn(model, rows, 1, random.key(0), eager=True, batch=10, start=start)
    assert not torch.equal(tensors["conv1.weight"], start["conv1.weight"])
    assert not torch.equal(tensors["bn1.running_mean"], start["bn1.running_mean"])


def test_transfer_refuses_weights_of_another_model(photos, weights, run):
    with pytest.raises(KeyError, match="classifier"):
        run("transfer", "--data", f"folder:{photos}/trashnet", "--weights", weights, "--model", "mobilenet_v2")


@pytest.mark.parametrize("options", [pytest.param([], marks=pytest.mark.slow), ["--eager"]], ids=["compiled", "eager"])
def test_the_gan_plays(options, digits, run):
    code, told = run("mnist_gan", "--data", digits, "--epochs", "1", *options)
    assert code == 0
    assert "of 2000" in told


def test_a_gan_that_has_hardly_played_misses_the_score(digits, run):
    code, told = run("mnist_gan", "--data", digits, "--eager")
    assert code == 1
    assert float(told.split("score ")[1].split()[0]) < 7


@pytest.mark.parametrize("name", NAMES)
def test_missing_data_is_one_line(name, tmp_path, example, capsys):
    with pytest.raises(SystemExit) as stop:
        example(name).main(["--data", str(tmp_path), "--out", str(tmp_path / "a.png")])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_read_is_named(photos, example, capsys):
    (photos / "trashnet/val/paper/0.png").write_text("no picture")
    with pytest.raises(SystemExit):
        example("trashnet_resnet").main(["--data", str(photos)])
    assert "val/paper/0.png cannot be used" in capsys.readouterr().err
