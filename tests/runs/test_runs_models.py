"""Models and augmentations by name, for data of each kind."""

import pytest
import torch

from funcnet import random
from funcnet.runs import RunError, augmenting, models
from funcnet.runs.rows import Facts

PICTURES = Facts("classification", (1, 8, 8), ("a", "b", "c"), (0.5,), (0.2,))
TABLE = Facts("regression", (4,), (), (0.0,) * 4, (1.0,) * 4)
TEXT = Facts("language", (16,), tuple("abcde"))


@pytest.mark.parametrize(
    ("text", "facts", "full", "count"),
    [
        ("linear", PICTURES, "linear", 64 * 3 + 3),
        ("mlp", TABLE, "mlp:4-128-1", 4 * 128 + 128 + 128 + 1),
        ("mlp:5", PICTURES, "mlp:64-5-3", 64 * 5 + 5 + 5 * 3 + 3),
        ("mlp:3", PICTURES, "mlp:64-3-3", 64 * 3 + 3 + 9 + 3),
        ("mlp:64", PICTURES, "mlp:64-64-3", 64 * 64 + 64 + 64 * 3 + 3),
        ("mlp:64-5-3", PICTURES, "mlp:64-5-3", 64 * 5 + 5 + 5 * 3 + 3),
        ("mlp:5,dropout=0.5", PICTURES, "mlp:64-5-3,dropout=0.5", 64 * 5 + 5 + 5 * 3 + 3),
        ("cnn:4-6", PICTURES, "cnn:4-6", 36 + 8 + 216 + 12 + 6 * 4 * 3 + 3),
        ("lstm:7,layers=1", TEXT, "lstm:7,layers=1", 5 * 7 + 4 * (2 * 49 + 14) + 7 * 5 + 5),
        ("gpt:8,heads=2,layers=1", TEXT, "gpt:8,layers=1,heads=2", 40 + 128 + 4 * 64 + 32 + 8 * 64 + 40 + 6 * 8),
    ],
)
def test_models_take_their_ends_from_the_data(text, facts, full, count):
    built = models.build(text, facts)
    assert built.text == full
    params, _ = built.model.init(random.key(0))
    assert sum(leaf.numel() for leaf in params.values()) == count
    assert models.build(full, facts).text == full


def test_torchvisions_models_know_the_classes():
    built = models.build("torchvision:resnet18", PICTURES)
    assert built.text == "torchvision:resnet18(num_classes=3)"
    assert built.channels == 3
    assert models.build(built.text, PICTURES).text == built.text


def test_a_gpt_does_not_look_ahead():
    model = models.build("gpt:8,layers=2,heads=2", TEXT).model
    params, state = model.init(random.key(0))
    tokens = random.randint(random.key(1), (2, 16), 0, 5).long()
    changed = tokens.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 5
    a, b = model(params, state, tokens), model(params, state, changed)
    torch.testing.assert_close(a[:, :9], b[:, :9])
    assert (a[:, 9:] - b[:, 9:]).abs().amax(-1).min() > 1e-6


@pytest.mark.parametrize(
    ("text", "facts", "message"),
    [
        ("mpl:3", PICTURES, "'mpl' is no model; near names: mlp"),
        ("mpl", PICTURES, "'mpl' is no model; near names: mlp"),
        ("mlp:64-10", PICTURES, "begins with 64 but does not end with 3.*write mlp:64-10-3, or mlp:64-64-10-3"),
        ("mlp:32-3", PICTURES, "ends with 3 but does not begin with 64.*write mlp:64-32-3, or mlp:64-32-3-3"),
        ("mlp:0", PICTURES, "no sizes"),
        ("mlp:5,drop=1", PICTURES, "'drop' is no option of mlp; near names: dropout"),
        ("mlp:5,dropout=1", PICTURES, "below 1 is wanted"),
        ("cnn:1-2-3-4", PICTURES, "at most 3 stages fit, as in cnn:1-2-3"),
        ("cnn", TABLE, "is for pictures"),
        ("lstm", PICTURES, "write linear, mlp or cnn"),
        ("mlp:5", TEXT, "write lstm or gpt"),
        ("gpt:10,heads=4", TEXT, "no 4 equal heads. Write heads=2"),
        ("lstm:5-5", TEXT, "write lstm:5,layers=2"),
        ("torchvision:resnet18", TABLE, "is for pictures"),
        ("torchvision:resnet81", PICTURES, "torchvision has no model 'resnet81'"),
        ("nowhere.nets:f", PICTURES, "nowhere.nets cannot be imported"),
    ],
)
def test_what_is_no_model(text, facts, message):
    with pytest.raises(ValueError, match=message):
        models.build(text, facts)


@pytest.mark.parametrize("name", augmenting.NAMES)
def test_every_augmentation_has_its_name(name):
    text = {"cutout": "cutout:3", "rotate": "rotate:15"}.get(name, name).replace("_", "-")
    augmented = augmenting.build([text], PICTURES)
    x = (random.uniform(random.key(1), (6, 1, 8, 8)) * 255).to(torch.uint8)
    label = torch.arange(6) % 3
    pictures, labels = augmented(random.key(0), x, label)
    assert pictures.shape == x.shape
    assert pictures.dtype == torch.uint8
    if name in ("mixup", "cutmix"):
        assert labels.shape == (6, 3)
        torch.testing.assert_close(labels.sum(1), torch.ones(6))
    else:
        assert torch.equal(labels, label)


@pytest.mark.parametrize(
    ("given_", "facts", "message"),
    [
        (["flop"], PICTURES, "'flop' is no augmentation; near names: flip"),
        (["flip:q=1"], PICTURES, "'q' is no option of flip"),
        (["flip:p=2"], PICTURES, "'flip:p=2': "),
        (["cutout"], PICTURES, "needs its size: write cutout:size="),
        (["crop:4"], PICTURES, "pictures of 1x4x4, which are evaluated at 1x8x8"),
        (["mixup", "flip"], PICTURES, "as the last"),
        (["mixup", "cutmix"], PICTURES, "as the last"),
        (["flip"], TABLE, "is for pictures"),
    ],
)
def test_what_is_no_augmentation(given_, facts, message):
    with pytest.raises(RunError, match=message):
        augmenting.build(given_, facts)
