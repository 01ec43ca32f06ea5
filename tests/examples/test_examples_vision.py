"""The examples with pictures, on a few rows in the formats of the real data."""

import numpy as np
import pytest
import torch
from torchvision.models import shufflenet_v2_x0_5

from funcnet import Model, random

pytest.importorskip("matplotlib")

NAMES = ["fashion_cnn", "trashnet_resnet", "transfer", "mnist_gan"]
SLOW_COMPILED = pytest.param([], marks=pytest.mark.slow)
TINY = "--size", "32", "--epochs", "1", "--batch", "10"
IDS = ["compiled", "eager"]


@pytest.mark.parametrize("options", [[], ["--eager"]], ids=IDS)
def test_the_cnn_learns(options, clothes, run):
    code, told = run("fashion_cnn", "--data", clothes, *options)
    assert code == 0
    assert "test accuracy 100.00%, at least 91%" in told


def test_the_cnn_misses_what_cannot_be_learnt(clothes, idx, run):
    (clothes / "FashionMNIST/raw/train-labels-idx1-ubyte").write_bytes(idx(np.zeros(600)))
    assert run("fashion_cnn", "--data", clothes, "--epochs", "1", "--eager", EPOCHS=1)[0] == 1
    assert run("fashion_cnn", "--data", clothes, "--epochs", "1", "--eager")[0] == 0  # a short run has no floor


@pytest.mark.parametrize("options", [SLOW_COMPILED, ["--eager"]], ids=IDS)
def test_a_net_sees_photographs(options, photos, run):
    code, told = run("trashnet_resnet", "--data", photos, *TINY, *options, resnet18=shufflenet_v2_x0_5)
    assert code == 0
    assert "at least 70%" in told


def test_a_net_that_has_hardly_seen_photographs_misses(photos, run):
    assert run("trashnet_resnet", "--data", photos, *TINY, "--eager", resnet18=shufflenet_v2_x0_5, EPOCHS=1)[0] == 1


def ways(told):
    """The accuracies in transfer's table."""
    rows = [line.split() for line in told.splitlines() if line.endswith("%")]
    return {way: float(accuracy.rstrip("%")) for way, accuracy in rows}


@pytest.mark.parametrize("options", [[], ["--eager"]], ids=IDS)
def test_transfer_compares_three_ways(options, digits, clothes, run):
    code, told = run("transfer", "--data", digits, "--labels", "10", "--batch", "10", "--epochs", "4", *options)
    assert code == 0
    assert list(ways(told)) == ["frozen", "scratch", "unfrozen"]
    assert min(ways(told).values()) > 90


def test_transfer_misses_what_cannot_be_learnt(digits, clothes, idx, run):
    (digits / "MNIST/raw/train-labels-idx1-ubyte").write_bytes(idx(np.arange(600) * 7 % 60 // 6))
    assert run("transfer", "--data", digits, "--epochs", "1", "--eager", EPOCHS=1)[0] == 1


@pytest.fixture
def weights(tmp_path):
    """A small net of a thousand classes in a file of torch's."""
    params, state = Model(shufflenet_v2_x0_5).init(random.key(1))
    torch.save(params | state, tmp_path / "net.pth")
    return tmp_path / "net.pth"


def test_transfer_takes_weights_and_a_folder(photos, weights, run):
    source = "--data", f"folder:{photos}/trashnet", "--weights", weights, "--model", "shufflenet_v2_x0_5"
    code, told = run("transfer", *source, *TINY, "--eager")
    assert code == 0
    assert list(ways(told)) == ["frozen", "scratch", "unfrozen"]


def test_transfer_keeps_the_frozen_body(photos, weights, example):
    transfer = example("transfer")
    rows = transfer.data.load(f"folder:{photos}/trashnet", size=32)
    start, model = torch.load(weights, weights_only=True), Model(shufflenet_v2_x0_5, num_classes=5)
    tensors, _ = transfer.learn(model, rows, 1, random.key(0), True, 10, start=start, frozen=True)
    moved = {name for name, tensor in tensors.items() if name not in start or not torch.equal(tensor, start[name])}
    assert moved == {"fc.weight", "fc.bias"}
    tensors, _ = transfer.learn(model, rows, 1, random.key(0), True, 10, start=start)
    assert not torch.equal(tensors["conv1.0.weight"], start["conv1.0.weight"])
    assert not torch.equal(tensors["conv1.1.running_mean"], start["conv1.1.running_mean"])


def test_transfer_refuses_weights_of_another_model(photos, weights, run):
    source = "--data", f"folder:{photos}/trashnet", "--weights", weights, "--model", "squeezenet1_1"
    with pytest.raises(KeyError, match=r"classifier"):
        run("transfer", *source, *TINY, "--eager")


def test_transfer_names_a_file_that_holds_no_weights(photos, example, capsys):
    with pytest.raises(SystemExit) as stop:
        example("transfer").main(["--data", f"folder:{photos}/trashnet", "--weights", str(photos / "none.pth")])
    assert stop.value.code == 2
    assert "none.pth cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("options", [SLOW_COMPILED, ["--eager"]], ids=IDS)
def test_a_gan_that_has_hardly_played_misses_the_score(options, digits, run):
    code, told = run("mnist_gan", "--data", digits, "--epochs", "1", *options, EPOCHS=1)
    assert code == 1
    assert float(told.split("score ")[1].split(",")[0]) < 6


def test_a_short_game_has_no_floor(digits, run):
    assert run("mnist_gan", "--data", digits, "--epochs", "1", "--eager")[0] == 0


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
