"""Every augmentation that maps (key, images) to images, with arguments; an entry inherits the contracts."""

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
    "compose": Case(augment.compose(augment.flip, partial(augment.crop, size=8)), True),
    "each": Case(augment.each(brighter), False),
}


def images(i: int, count: int, channels: int = 3, height: int = 8, width: int = 9, dtype=torch.float32) -> Tensor:
    key = random.fold_in(random.key(31), i)
    if dtype == torch.uint8:
        return random.bits(key, (count, channels, height, width), torch.uint8)
    return random.uniform(key, (count, channels, height, width), torch.float64).to(dtype)
