"""The arithmetic against torchvision's, given the same parameters."""

import pytest
import torch
from torchvision.transforms.v2 import functional as T

from funcnet import random
from funcnet.data import augment
from tests.data.augment_cases import images

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


def test_normalize():
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
    for dtype in (torch.float32, torch.float64):
        x = images(3, 4, dtype=dtype)
        torch.testing.assert_close(augment.normalize(x, mean, std), T.normalize(x, mean, std))
        torch.testing.assert_close(augment.normalize(x[0], torch.tensor(mean), std), T.normalize(x[0], mean, std))
    x = images(3, 4, dtype=torch.uint8)
    torch.testing.assert_close(augment.normalize(x, mean, std), T.normalize(T.to_dtype(x, scale=True), mean, std))
    torch.testing.assert_close(augment.normalize(x, 0.5, 0.25), T.normalize(T.to_dtype(x, scale=True), [0.5], [0.25]))
