"""The arithmetic against torchvision's, given the same parameters."""

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as T

from funcnet import random
from funcnet.data import augment
from tests.data.augment_cases import box, draw, images

KEY = random.key(41)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8], ids=str)
def test_flip(dtype):
    x = images(0, 8, dtype=dtype)
    turned = (random.uniform(k, (1,)) < 0.5 for k in random.split(KEY, 8))
    assert torch.equal(
        augment.flip(KEY, x), torch.stack([T.horizontal_flip(i) if t else i for i, t in zip(x, turned, strict=True)])
    )


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8], ids=str)
def test_crop(mode, dtype):
    x = images(1, 8, dtype=dtype)
    looped = []
    for k, image in zip(random.split(KEY, 8), x, strict=True):
        padded = T.pad(image, [2, 2, 2, 2], fill=1 if mode == "constant" else None, padding_mode=mode)
        top, left = (random.uniform(k, (2,)) * torch.tensor([8 + 4 - 7, 9 + 4 - 7])).long().tolist()
        looped.append(T.crop(padded, top, left, 8, 8))
    assert torch.equal(augment.crop(KEY, x, 8, 2, fill=1, padding_mode=mode), torch.stack(looped))


def test_cutout():
    x = images(2, 8)
    looped = []
    for k, image in zip(random.split(KEY, 8), x, strict=True):
        y, x0 = (random.uniform(k, (2,)) * torch.tensor([8, 9])).long().tolist()
        top, left = max(y - 2, 0), max(x0 - 2, 0)
        looped.append(T.erase(image, top, left, min(y + 2, 8) - top, min(x0 + 2, 9) - left, torch.tensor(0.0)))
    assert torch.equal(augment.cutout(KEY, x, 4), torch.stack(looped))


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [(5, 6), (16, 20), (2, 3)])
def test_resized_crop(size, antialias):
    scale, ratio = (0.1, 1.0), (0.5, 2.0)
    for dtype, atol in ((torch.float64, 1e-12), (torch.float32, 1e-6), (torch.uint8, 1)):
        x = images(4, 16, height=13, width=11, dtype=dtype)
        looped = []
        for i, image in enumerate(x):
            top, left, high, wide = box(draw(KEY, i, 16, 22), 13, 11, scale, ratio)
            looped.append(T.resized_crop(image, top, left, high, wide, list(size), antialias=antialias))
        found = augment.resized_crop(KEY, x, size, scale, ratio, antialias=antialias)
        torch.testing.assert_close(found, torch.stack(looped), rtol=0, atol=atol)


@pytest.mark.parametrize("ratio", [(3.0, 4.0), (0.1, 0.2), (0.9, 1.1)])
def test_resized_crop_where_no_try_fits(ratio):
    transform = v2.RandomResizedCrop((6, 6), scale=(1.0, 1.0), ratio=ratio)
    x = images(5, 2, height=8, width=12)
    assert box(draw(KEY, 0, 2, 22), 8, 12, (1.0, 1.0), ratio) is None
    with random.seeded(KEY):
        expected = transform(x)
    torch.testing.assert_close(augment.resized_crop(KEY, x, 6, (1.0, 1.0), ratio), expected)


def test_the_law_of_the_boxes_is_torchvisions():
    """Means and shares over many images, as far as two samples of 2000 tell: four standard errors."""
    ramp = torch.stack(torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing="ij"))
    transform = v2.RandomResizedCrop((1, 1), scale=(0.3, 1.0), ratio=(0.5, 2.0))
    with random.seeded(KEY):
        theirs = [transform.make_params([ramp]) for _ in range(2000)]
    theirs = torch.tensor([[p["top"], p["left"], p["height"], p["width"]] for p in theirs]).double()
    drawn = [box(random.uniform(k, (22,)), 12, 16, (0.3, 1.0), (0.5, 2.0)) for k in random.split(random.key(42), 2000)]
    ours = torch.tensor(drawn).double()
    for f in (torch.Tensor.double, torch.Tensor.square):
        a, b = f(ours), f(theirs)
        error = ((a.var(0) + b.var(0)) / 2000).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() < 4 * error).all()


@pytest.mark.parametrize("fill", [0.0, 0.7])
def test_rotate(fill):
    # torchvision's own `fill` counts the weight of a border's pixels twice, so that it is put in here.
    x = images(6, 8, height=9, width=12)
    looped = []
    for i, image in enumerate(x):
        angle = -50 + 100 * draw(KEY, i, 8, 1).item()
        turned, shown = (T.rotate(y, angle, T.InterpolationMode.BILINEAR) for y in (image, torch.ones_like(image)))
        looped.append(turned + (1 - shown) * fill)
    torch.testing.assert_close(augment.rotate(KEY, x, 50, fill=fill), torch.stack(looped), rtol=0, atol=2e-5)


def test_random_erasing():
    x = images(7, 8)
    looped = []
    for k, image in zip(random.split(KEY, 8), x, strict=True):
        top, left, high, wide = box(random.uniform(random.split(k)[1], (22,)), 8, 9, (0.1, 0.5), (0.3, 3.3))
        looped.append(T.erase(image, top, left, high, wide, torch.tensor(0.25)))
    assert torch.equal(augment.random_erasing(KEY, x, 1.0, (0.1, 0.5), fill=0.25), torch.stack(looped))


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
@pytest.mark.parametrize("channels", [1, 3])
def test_color_jitter(name, channels):
    adjust = getattr(T, f"adjust_{name}")
    amount, about = (0.5, 0.0) if name == "hue" else (0.9, 1.0)
    place = ["brightness", "contrast", "saturation", "hue"].index(name)
    # float32's rounding. Of uint8 torchvision cuts off fractions where funcnet rounds, and those of the luminance too.
    for dtype, atol in ((torch.float32, 2e-6), (torch.uint8, 2 if name == "saturation" else 1)):
        x = images(8, 16, channels, dtype=dtype)
        x[0] = x[0, :1]
        looped = [
            adjust(image, about + amount * (2 * draw(KEY, i, 16, 4)[place].item() - 1)) for i, image in enumerate(x)
        ]
        found = augment.color_jitter(KEY, x, **{name: amount})
        torch.testing.assert_close(found, torch.stack(looped), rtol=0, atol=atol)


def test_grayscale():
    for dtype, atol in ((torch.float32, 1e-6), (torch.uint8, 1)):
        x = images(9, 8, dtype=dtype)
        found = augment.grayscale(KEY, x, 1.0)
        torch.testing.assert_close(found, T.rgb_to_grayscale(x, 3), rtol=0, atol=atol)


def test_normalize():
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
    for dtype in (torch.float32, torch.float64):
        x = images(3, 4, dtype=dtype)
        torch.testing.assert_close(augment.normalize(x, mean, std), T.normalize(x, mean, std))
        torch.testing.assert_close(augment.normalize(x[0], torch.tensor(mean), std), T.normalize(x[0], mean, std))
    x = images(3, 4, dtype=torch.uint8)
    torch.testing.assert_close(augment.normalize(x, mean, std), T.normalize(T.to_dtype(x, scale=True), mean, std))
    torch.testing.assert_close(augment.normalize(x, 0.5, 0.25), T.normalize(T.to_dtype(x, scale=True), [0.5], [0.25]))
