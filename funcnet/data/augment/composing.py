"""Augmentations one after the other, and of one image at a time."""

from collections.abc import Callable

from torch import Tensor

from funcnet.data.augment.arguments import Images, check_images
from funcnet.data.augment.draws import image_keys, splits
from funcnet.transforms import vmap

__all__ = ["Augmentation", "compose", "each"]

Augmentation = Callable[[Tensor, Images], Tensor]


def compose(*functions: Augmentation) -> Augmentation:
    """Apply augmentations in this order, each with keys of its own.

    Each function is called with a batch of keys `(N, 2)`: those of this room take it, and `each` makes one that does.
    Function `j` of `m` has for image `i` the key `random.split(k_i, m)[j]`, with `k_i` the key of the image.

    Args:
        functions: `(key, images) -> images`. Bind other arguments with `functools.partial`, and write
            `lambda key, images: normalize(images, mean, std)` for what draws nothing.

    Raises:
        TypeError: there is no function, or one cannot be called.

    >>> from funcnet import random
    >>> both = compose(lambda key, x: x.flip(-1), lambda key, x: x + 1)
    >>> both(random.key(0), torch.tensor([[[[0.0, 1.0]]]]))
    tensor([[[[2., 1.]]]])
    """
    if not functions or not all(map(callable, functions)):
        raise TypeError(
            f"compose takes functions (key, images) -> images, and got {functions!r}. Write compose(flip, "
            "partial(crop, size=32))."
        )

    def composed(key: Tensor, images: Images) -> Tensor:
        check_images("compose", images)
        parts = splits(image_keys("compose", key, images.shape[0]), len(functions))
        for part, function in zip(parts, functions, strict=True):
            images = function(part, images)
        return images

    return composed


def each(function: Augmentation) -> Augmentation:
    """Make an augmentation of batches from one of a single image, `(key, image) -> image` with `(C, H, W)`.

    The function is mapped over the images and their keys, so it must be one that `vmap` takes.

    >>> from funcnet import random
    >>> noisy = each(lambda key, image: image + 0.1 * random.normal(key, image.shape))
    >>> noisy(random.key(0), torch.zeros(2, 1, 4, 4)).shape
    torch.Size([2, 1, 4, 4])
    """

    def of_batch(key: Tensor, images: Images) -> Tensor:
        check_images("each", images)
        mapped: Tensor = vmap(function)(image_keys("each", key, images.shape[0]), images)
        return mapped

    return of_batch
