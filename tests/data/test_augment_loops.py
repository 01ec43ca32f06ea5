"""Each augmentation against a loop over the images that draws from random's own functions."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from funcnet import random
from funcnet.data import augment
from tests.data.augment_cases import images

seeds = st.integers(0, 2**31 - 1)


def draw(key, i, count, *shape):
    """The numbers that image i of count draws from the batch's key."""
    return random.uniform(random.split(key, count)[i], shape)


@given(seed=seeds, p=st.sampled_from([0.0, 0.2, 0.5, 1.0]), vertical=st.booleans())
def test_flip(seed, p, vertical):
    key, x = random.key(seed), images(0, 6)
    looped = [image.flip(1 if vertical else 2) if draw(key, i, 6, 1) < p else image for i, image in enumerate(x)]
    assert torch.equal(augment.flip(key, x, p, vertical=vertical), torch.stack(looped))


@given(
    seed=seeds,
    mode=st.sampled_from(["constant", "reflect", "edge"]),
    padding=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    data=st.data(),
)
def test_crop(seed, mode, padding, data):
    key, x = random.key(seed), images(1, 4, 2, 6, 7)
    above, left = padding
    size = (data.draw(st.integers(1, 6 + 2 * above)), data.draw(st.integers(1, 7 + 2 * left)))
    arguments = {"mode": {"edge": "replicate"}.get(mode, mode)} | ({"value": 0.5} if mode == "constant" else {})
    looped = []
    for i in range(4):
        padded = F.pad(x[i : i + 1], (left, left, above, above), **arguments)[0]
        room = torch.tensor([6 + 2 * above - size[0] + 1, 7 + 2 * left - size[1] + 1])
        top, start = (draw(key, i, 4, 2) * room).long().tolist()
        looped.append(padded[:, top : top + size[0], start : start + size[1]])
    found = augment.crop(key, x, size, padding, fill=0.5, padding_mode=mode)
    assert torch.equal(found, torch.stack(looped))


@given(seed=seeds, high=st.integers(1, 6), wide=st.integers(1, 7), fill=st.sampled_from([0.0, 0.25]))
def test_cutout(seed, high, wide, fill):
    key, x = random.key(seed), images(2, 5, 3, 6, 7)
    looped = x.clone()
    for i in range(5):
        centre = (draw(key, i, 5, 2) * torch.tensor([6, 7])).long().tolist()
        top, left = centre[0] - high // 2, centre[1] - wide // 2
        looped[i, :, max(top, 0) : top + high, max(left, 0) : left + wide] = fill
    assert torch.equal(augment.cutout(key, x, (high, wide), fill=fill), looped)


@given(seed=seeds)
def test_compose_and_each(seed):
    key, x = random.key(seed), images(3, 4)
    looped = []
    for k, image in zip(random.split(key, 4), x, strict=True):
        first, second, third = random.split(k, 3)
        turned = augment.flip(first[None], image[None])
        cut = augment.crop(second[None], turned, 8)
        looped.append(cut[0] + random.normal(third, cut[0].shape))
    noisy = augment.each(lambda key, image: image + random.normal(key, image.shape))
    found = augment.compose(augment.flip, lambda key, x: augment.crop(key, x, 8), noisy)(key, x)
    torch.testing.assert_close(found, torch.stack(looped))


def test_the_share_of_what_is_drawn():
    x = torch.arange(2.0).expand(20_000, 1, 1, 2)
    share = augment.flip(random.key(0), x, 0.3)[:, 0, 0, 0].mean()
    assert abs(share - 0.3) < 4 * (0.21 / 20_000) ** 0.5
    ramp = torch.arange(5.0).expand(20_000, 1, 1, 5)
    starts = augment.crop(random.key(1), ramp, (1, 2), (0, 1), fill=-1.0)[:, 0, 0, 0]
    counts = torch.stack([(starts == value).sum() for value in range(-1, 5)])  # six places: -1, 0, ... 4
    assert counts.sum() == 20_000
    assert ((counts - 20_000 / 6) ** 2 / (20_000 / 6)).sum() < 25.7  # chi-squared of five, one in ten thousand


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k, x: augment.flip(k, x, 1.5), r"flip got p=1\.5, which is a probability"),
        (lambda k, x: augment.flip(k, x, -0.1), r"p=-0\.1"),
        (lambda k, x: augment.crop(k, x, 18), r"size=\(18, 18\) for images of 8 x 9.*larger than the padded image, 16"),
        (lambda k, x: augment.crop(k, x, 8, 8, padding_mode="reflect"), r"a reflection has at most one pixel less"),
        (lambda k, x: augment.crop(k, x, 8, padding_mode="wrap"), r"'wrap'\. Write 'constant', 'reflect' or 'edge'"),
        (lambda k, x: augment.crop(k, x, 0), r"size=0: a number of pixels is at least 1"),
        (lambda k, x: augment.crop(k, x, 3, -1), r"padding=-1: a number of pixels is at least 0"),
        (lambda k, x: augment.crop(k, (x * 255).byte(), 3, fill=0.5), r"fill=0\.5 for uint8 images"),
        (lambda k, x: augment.cutout(k, x, 10), r"size=\(10, 10\) for images of 8 x 9: nothing would be left"),
        (lambda k, x: augment.cutout(k, (x * 255).byte(), 3, fill=256), r"fill=256 for uint8 images"),
        (lambda k, x: augment.normalize(x, 0.5, 0), r"std=0: a channel is divided by it"),
        (lambda k, x: augment.normalize(x, 0.5, [1.0, 0.0, 1.0]), r"a channel is divided by it"),
        (lambda k, x: augment.normalize(x, [0.5, 0.5], 1), r"mean with shape \(2,\) for images of 3 channels"),
        (lambda k, x: augment.normalize(x, 0.5, torch.ones(3, 1)), r"std with shape \(3, 1\)"),
    ],
)
def test_values_out_of_range_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(random.key(0), images(0, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k, x: augment.crop(k, x, 2.5), r"size=2\.5: write size=32, or size=\(24, 32\)"),
        (lambda k, x: augment.crop(k, x, (1, 2, 3)), r"size=\(1, 2, 3\)"),
        (lambda k, x: augment.compose()(k, x), r"compose takes functions .* and got \(\)"),
        (lambda k, x: augment.compose(augment.flip, 0.5)(k, x), r"compose takes functions"),
    ],
)
def test_what_is_of_another_kind_is_named(call, message):
    with pytest.raises(TypeError, match=message):
        call(random.key(0), images(0, 2))
