"""Every augmentation that maps (key, images) to images, with arguments; an entry inherits the contracts."""

import math
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import random
from funcnet.data import augment


class Case(NamedTuple):
    f: Any
    exact: bool
    """it moves and paints pixels, and computes none: equal to the bit, and of any dtype"""
    channels: int = 3


def brighter(key, image):
    return image * random.uniform(key, (1, 1, 1), image.dtype)


CASES = {
    "flip": Case(augment.flip, True),
    "flip-vertical": Case(partial(augment.flip, p=0.3, vertical=True), True),
    "crop": Case(partial(augment.crop, size=8), True),
    "crop-reflect": Case(partial(augment.crop, size=(7, 10), padding=(2, 3), padding_mode="reflect"), True, 1),
    "crop-edge": Case(partial(augment.crop, size=5, padding=0, padding_mode="edge"), True, 2),
    "crop-filled": Case(partial(augment.crop, size=(12, 3), padding=(3, 0), fill=1.0), True),
    "cutout": Case(partial(augment.cutout, size=4), True),
    "cutout-filled": Case(partial(augment.cutout, size=(1, 5), fill=1.0), True, 1),
    "random_erasing": Case(augment.random_erasing, True),
    "random_erasing-filled": Case(partial(augment.random_erasing, p=1.0, fill=1.0, scale=(0.1, 0.9)), True, 1),
    "resized_crop": Case(partial(augment.resized_crop, size=(5, 6)), False),
    "resized_crop-rough": Case(partial(augment.resized_crop, size=5, antialias=False), False, 1),
    "resized_crop-large": Case(partial(augment.resized_crop, size=12, scale=(0.5, 1.0)), False, 2),
    "rotate": Case(partial(augment.rotate, degrees=30), False),
    "rotate-filled": Case(partial(augment.rotate, degrees=(0, 360), fill=1.0), False, 1),
    "color_jitter": Case(partial(augment.color_jitter, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1), False),
    "color_jitter-gray": Case(partial(augment.color_jitter, brightness=0.4, contrast=0.4, hue=0.1), False, 1),
    "color_jitter-hue": Case(partial(augment.color_jitter, hue=(-0.5, 0.5)), False),
    "grayscale": Case(partial(augment.grayscale, p=0.5), False),
    "compose": Case(augment.compose(augment.flip, partial(augment.crop, size=8)), True),
    "each": Case(augment.each(brighter), False),
}


def draw(key: Tensor, i: int, count: int, *shape: int) -> Tensor:
    """The numbers that image i of count draws from the batch's key."""
    return random.uniform(random.split(key, count)[i], shape)


def box(unit: Tensor, height: int, width: int, scale: Any, ratio: Any) -> tuple[int, int, int, int] | None:
    """The rectangle of 22 uniform numbers, by a plain loop over the tries: top, left, height, width."""
    values = unit.tolist()
    for j in range(10):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * values[2 * j])
        shape = ratio[0] * (ratio[1] / ratio[0]) ** values[2 * j + 1]
        high, wide = round(math.sqrt(area / shape)), round(math.sqrt(area * shape))
        if 0 < high <= height and 0 < wide <= width:
            return int(values[20] * (height - high + 1)), int(values[21] * (width - wide + 1)), high, wide
    return None


def images(i: int, count: int, channels: int = 3, height: int = 8, width: int = 9, dtype=torch.float32) -> Tensor:
    key = random.fold_in(random.key(31), i)
    if dtype == torch.uint8:
        return random.bits(key, (count, channels, height, width), torch.uint8)
    return random.uniform(key, (count, channels, height, width), torch.float64).to(dtype)
