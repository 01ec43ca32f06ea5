"""Augmentation of batches of images as pure functions of a key.

Each takes a key and images `(N, C, H, W)`, uint8 in 0..255 or floating in 0..1, and returns a batch of the same dtype.
No shape depends on a draw, so that all of it runs under `jit`, `vmap` and `grad`, and inside a compiled step.

Image `i` draws from a key of its own, `random.split(key, N)[i]`. A batch of keys `(N, 2)` may stand in place of the
key, and then

    f(key, images)[i] == f(random.split(key, N)[i : i + 1], images[i : i + 1])[0]

`compose` keeps this, and `each` makes such a function of one for a single image. `mixup` and `cutmix` mix images with
one another, take one key, and return images and soft targets.

>>> from functools import partial
>>> from funcnet import random
>>> augmented = compose(flip, partial(crop, size=8, padding=1), partial(cutout, size=3))
>>> augmented(random.key(0), torch.zeros(4, 3, 8, 8, dtype=torch.uint8)).shape
torch.Size([4, 3, 8, 8])
"""

from funcnet.data.augment.colour import color_jitter as color_jitter
from funcnet.data.augment.colour import grayscale as grayscale
from funcnet.data.augment.colour import normalize as normalize
from funcnet.data.augment.composing import Augmentation as Augmentation
from funcnet.data.augment.composing import compose as compose
from funcnet.data.augment.composing import each as each
from funcnet.data.augment.erasing import cutout as cutout
from funcnet.data.augment.erasing import random_erasing as random_erasing
from funcnet.data.augment.geometry import crop as crop
from funcnet.data.augment.geometry import flip as flip
from funcnet.data.augment.mixing import cutmix as cutmix
from funcnet.data.augment.mixing import mixup as mixup
from funcnet.data.augment.resampling import resized_crop as resized_crop
from funcnet.data.augment.resampling import rotate as rotate

__all__ = [
    "Augmentation",
    "color_jitter",
    "compose",
    "crop",
    "cutmix",
    "cutout",
    "each",
    "flip",
    "grayscale",
    "mixup",
    "normalize",
    "random_erasing",
    "resized_crop",
    "rotate",
]
