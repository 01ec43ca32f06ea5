"""Each augmentation against a loop over the images that draws from random's own functions."""

import colorsys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from funcnet import random
from funcnet.data import augment
from tests.data.augment_cases import box, draw, images

seeds = st.integers(0, 2**31 - 1)


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


@given(seed=seeds, p=st.sampled_from([0.0, 0.5, 1.0]), wide=st.booleans())
def test_random_erasing(seed, p, wide):
    key, x = random.key(seed), images(4, 5, 3, 6, 7)
    scale, ratio = ((0.2, 0.9), (0.1, 10.0)) if wide else ((0.02, 0.33), (0.3, 3.3))
    looped = x.clone()
    for i in range(5):
        whether, which = random.split(random.split(key, 5)[i])
        found = box(random.uniform(which, (22,)), 6, 7, scale, ratio)
        if random.uniform(whether, (1,)) < p and found is not None:
            top, left, high, wide = found
            looped[i, :, top : top + high, left : left + wide] = 0.5
    assert torch.equal(augment.random_erasing(key, x, p, scale, ratio, fill=0.5), looped)


@given(seed=seeds, p=st.sampled_from([0.0, 0.5, 1.0]))
def test_grayscale(seed, p):
    key, x = random.key(seed), images(5, 5)
    looped = [
        (0.2989 * image[0] + 0.587 * image[1] + 0.114 * image[2]).expand(3, -1, -1) if draw(key, i, 5, 1) < p else image
        for i, image in enumerate(x)
    ]
    torch.testing.assert_close(augment.grayscale(key, x, p), torch.stack(looped))
    alone = x[:, :1]
    assert torch.equal(augment.grayscale(key, alone, p), alone)


@given(seed=seeds)
def test_color_jitter_by_the_colour_module_of_python(seed):
    key, x = random.key(seed), images(6, 3, 3, 3, 3, torch.float64)
    x[0] = x[0, :1]  # one picture is grey
    looped = torch.empty_like(x)
    for i in range(3):
        b, c, s, h = (draw(key, i, 3, 4).double() * 2 - 1).tolist()
        b, c, s, h = 1 + 0.5 * b, 1 + 0.8 * c, 1 + 0.8 * s, 0.4 * h
        image = (x[i] * b).clamp(0, 1)
        mean = (0.2989 * image[0] + 0.587 * image[1] + 0.114 * image[2]).mean()
        image = (c * image + (1 - c) * mean).clamp(0, 1)
        image = (s * image + (1 - s) * (0.2989 * image[0] + 0.587 * image[1] + 0.114 * image[2])).clamp(0, 1)
        for row in range(3):
            for column in range(3):
                hue, *rest = colorsys.rgb_to_hsv(*image[:, row, column].tolist())
                looped[i, :, row, column] = torch.tensor(colorsys.hsv_to_rgb((hue + h) % 1, *rest))
    found = augment.color_jitter(key, x, 0.5, 0.8, 0.8, 0.4)
    torch.testing.assert_close(found, looped, rtol=0, atol=1e-6)  # the draws are float32


def test_what_is_fixed_at_nothing_changes_nothing():
    x = images(7, 3)
    assert torch.equal(augment.color_jitter(random.key(0), x), x)
    assert torch.equal(augment.rotate(random.key(0), x, 0), x)
    torch.testing.assert_close(augment.resized_crop(random.key(0), x, (8, 9), (1.0, 1.0), (9 / 8, 9 / 8)), x)
    turned = augment.color_jitter(random.key(0), x, hue=(0.5, 0.5))
    torch.testing.assert_close(augment.color_jitter(random.key(0), turned, hue=(0.5, 0.5)), x)


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
        (lambda k, x: augment.random_erasing(k, x, 2), r"random_erasing got p=2, which is a probability"),
        (lambda k, x: augment.random_erasing(k, x, scale=(0.5, 0.2)), r"scale=\(0\.5, 0\.2\): the lowest comes first"),
        (lambda k, x: augment.resized_crop(k, x, 4, (0.5, 2)), r"scale=\(0\.5, 2\): .* both are between 0 and 1"),
        (lambda k, x: augment.resized_crop(k, x, 4, ratio=(0, 1)), r"ratio=\(0, 1\): .* both are at least 0\.001"),
        (
            lambda k, x: augment.rotate(k, x, -5),
            r"degrees=-5: .* either side of 0, and between 0 and 360",
        ),
        (lambda k, x: augment.color_jitter(k, x, -0.1), r"brightness=-0\.1: .* either side of 1, and not negative"),
        (lambda k, x: augment.color_jitter(k, x, hue=0.6), r"hue=0\.6: .* between 0 and 0\.5"),
        (lambda k, x: augment.color_jitter(k, x, contrast=(-1, 1)), r"contrast=\(-1, 1\): .* both are at least 0"),
        (lambda k, x: augment.color_jitter(k, x[:, :2], 0.1), r"one channel or of three .* got \(2, 2, 8, 9\)"),
        (lambda k, x: augment.grayscale(k, x[:, :2]), r"grayscale takes images of one channel or of three"),
        (lambda k, x: augment.grayscale(k, x, 1.1), r"grayscale got p=1\.1"),
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
        (lambda k, x: augment.resized_crop(k, x, 4, 0.5), r"scale=0\.5: write the lowest and the highest"),
        (lambda k, x: augment.compose()(k, x), r"compose takes functions .* and got \(\)"),
        (lambda k, x: augment.compose(augment.flip, 0.5)(k, x), r"compose takes functions"),
    ],
)
def test_what_is_of_another_kind_is_named(call, message):
    with pytest.raises(TypeError, match=message):
        call(random.key(0), images(0, 2))
