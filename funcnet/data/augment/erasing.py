"""Rectangles that are painted over."""

import torch
from torch import Tensor

from funcnet.data.augment.arguments import Images, Range, Size, check_images, filling, interval, share, sizes
from funcnet.data.augment.boxes import boxes
from funcnet.data.augment.draws import below, image_keys, splits, uniforms

__all__ = ["cutout", "inside", "random_erasing"]


def cutout(key: Tensor, images: Images, size: Size, *, fill: float = 0.0) -> Tensor:
    """Paint over a rectangle about a random pixel of each image (DeVries and Taylor, arXiv:1708.04552).

    The centre is any pixel with equal probability, so the part of the rectangle beyond the border is lost.

    Args:
        key: int32 `(2,)`, or `(N, 2)` for a key an image.
        images: `(N, C, H, W)`, uint8 or floating.
        size: height and width of the rectangle.
        fill: what it is painted with.

    Raises:
        TypeError, ValueError: what are no images, or no key; a rectangle larger than the image.

    >>> from funcnet import random
    >>> cutout(random.key(3), torch.ones(1, 1, 4, 4), 2)[0, 0]
    tensor([[0., 1., 1., 1.],
            [1., 1., 1., 1.],
            [1., 1., 1., 1.],
            [1., 1., 1., 1.]])
    """
    check_images("cutout", images)
    high, wide = sizes("cutout", "size", size)
    fill = filling("cutout", "fill", fill, images)
    count, _, height, width = images.shape
    if high > height or wide > width:
        raise ValueError(
            f"cutout got size={(high, wide)} for images of {height} x {width}: nothing would be left. Take a smaller "
            "size; half of the image is usual."
        )
    unit = uniforms(image_keys("cutout", key, count), 2).to(images.device)
    top, left = below(unit[:, 0], height) - high // 2, below(unit[:, 1], width) - wide // 2
    return torch.where(inside(images, top, left, top + high, left + wide), fill, images)


def random_erasing(
    key: Tensor,
    images: Images,
    p: float = 0.5,
    scale: Range = (0.02, 0.33),
    ratio: Range = (0.3, 3.3),
    *,
    fill: float = 0.0,
) -> Tensor:
    """Paint over a rectangle of random area and shape within an image (Zhong et al., arXiv:1708.04896).

    Args:
        key: int32 `(2,)`, or `(N, 2)` for a key an image.
        images: `(N, C, H, W)`, uint8 or floating.
        p: the share of images that are painted on.
        scale: the rectangle's area as a share of the image's, lowest and highest.
        ratio: its width over its height; the logarithm is uniform. Where none of ten rectangles fits, the image stays.
        fill: what it is painted with.

    Raises:
        TypeError, ValueError: what are no images, or no key; `p` outside [0, 1]; a scale or ratio that is no range.

    >>> from funcnet import random
    >>> random_erasing(random.key(0), torch.ones(1, 1, 4, 4), p=1.0, scale=(0.25, 0.25), ratio=(1.0, 1.0)).sum()
    tensor(12.)
    """
    check_images("random_erasing", images)
    share("random_erasing", p)
    scale = interval("random_erasing", "scale", scale, 0.0, 1.0)
    ratio = interval("random_erasing", "ratio", ratio, 1e-3)
    fill = filling("random_erasing", "fill", fill, images)
    whether, which = splits(image_keys("random_erasing", key, images.shape[0]), 2)
    (top, left, high, wide), _ = boxes(which, (images.shape[2], images.shape[3]), scale, ratio, images.device)
    chosen = (uniforms(whether, 1) < p).to(images.device)[:, 0]
    # A rectangle that ends where it begins holds nothing.
    bottom = torch.where(chosen, top + high, top)
    return torch.where(inside(images, top, left, bottom, left + wide), fill, images)


def inside(images: Images, top: Tensor, left: Tensor, bottom: Tensor, right: Tensor) -> Tensor:
    """Whether a pixel lies in the rectangle of its image, `(N, 1, H, W)`; bottom and right are beyond it."""
    y = torch.arange(images.shape[-2], device=images.device)
    x = torch.arange(images.shape[-1], device=images.device)
    rows = (y >= top[:, None]) & (y < bottom[:, None])
    columns = (x >= left[:, None]) & (x < right[:, None])
    return rows[:, None, :, None] & columns[:, None, None, :]
