"""Images mixed with others of their batch, and their labels with them."""

import math

import torch
from torch import Tensor

from funcnet import _compat, random
from funcnet.data.augment.arguments import Images, check_images, real, restored
from funcnet.data.augment.draws import below
from funcnet.data.augment.erasing import inside

__all__ = ["cutmix", "mixup"]


def mixup(
    key: Tensor, images: Images, labels: Tensor, alpha: float = 0.2, classes: int | None = None
) -> tuple[Tensor, Tensor]:
    """Mix each image with another of the batch, and their labels alike (Zhang et al., arXiv:1710.09412).

    With weights `w`, `(N,)`, of the distribution Beta(alpha, alpha) and a permutation `o`, image `i` becomes
    `w[i] images[i] + (1 - w[i]) images[o[i]]`, and so does its target.

    The weights are made of two uniform numbers each, without rejection: `w = (1 + r) / 2`,
    `r = c sqrt((1 - q) / (q + (1 - q) c**2))`, `q = u**(1 / alpha)`, `c = cos(2 pi v)` (Devroye, "Random variate
    generation in one line of code", WSC 1996).

    Args:
        key: int32 `(2,)`: the first of its two parts permutes, and the second draws `u` and `v`, `(2, N)`.
        images: `(N, C, H, W)`, uint8 or floating.
        labels: `(N,)`, integers under `classes`; or `(N, classes)`, floating, one-hot or soft.
        alpha: small leaves almost the one image or the other, 1 makes the weights uniform.
        classes: how many there are; needed for integers.

    Returns: images in their dtype (uint8 rounded), and soft targets `(N, classes)`: float32, or the dtype of those
        given.

    Raises:
        TypeError, ValueError: what are no images, no key or no labels; labels out of range (where the host can read
            them without waiting: in eager code on the CPU); `alpha` that is not positive.

    >>> from funcnet import random
    >>> images, targets = mixup(random.key(0), torch.eye(4).reshape(4, 1, 2, 2), torch.arange(4), classes=4)
    >>> torch.equal(images.flatten(1), targets)
    True
    """
    check_images("mixup", images)
    targets = _targets("mixup", labels, images, classes)
    order, weights = _draw(_split("mixup", key, alpha, 2), alpha, images)
    mixed = _blend(real(images), order, weights[:, None, None, None])
    return restored(mixed, images), _blend(targets, order, weights[:, None])


def cutmix(
    key: Tensor, images: Images, labels: Tensor, alpha: float = 1.0, classes: int | None = None
) -> tuple[Tensor, Tensor]:
    """Paste a rectangle of another image of the batch into each, and mix the labels by area (arXiv:1905.04899).

    With weights and an order as in `mixup`, image `i` has a rectangle of `sqrt(1 - w[i])` of its height and width from
    image `o[i]`, about a random pixel and cut off at the borders. The weight of its own label is the share of pixels
    that are left.

    Args:
        key: int32 `(2,)`: the third of its three parts draws the middles of the rectangles.
        images, labels, alpha, classes: as in `mixup`.

    Returns: images in their dtype, and soft targets as in `mixup`.

    Raises:
        TypeError, ValueError: as in `mixup`.

    >>> from funcnet import random
    >>> squares = torch.eye(4)[:, :, None, None].expand(4, 4, 8, 8)  # image i is white in channel i
    >>> images, targets = cutmix(random.key(0), squares, torch.arange(4), classes=4)
    >>> torch.equal(images.mean((2, 3)), targets)
    True
    """
    check_images("cutmix", images)
    targets = _targets("cutmix", labels, images, classes)
    count, _, height, width = images.shape
    keys = _split("cutmix", key, alpha, 3)
    order, weights = _draw(keys, alpha, images)
    unit = random.uniform(keys[2], (2, count)).to(images.device)
    half = 0.5 * torch.sqrt(1 - weights)
    y, x = below(unit[0], height), below(unit[1], width)
    above, aside = (half * height).long(), (half * width).long()
    top, bottom = (y - above).clamp(min=0), (y + above).clamp(max=height)
    left, right = (x - aside).clamp(min=0), (x + aside).clamp(max=width)
    kept = 1 - ((bottom - top) * (right - left)).to(weights.dtype) / (height * width)
    pasted = torch.where(inside(images, top, left, bottom, right), images.index_select(0, order), images)
    return pasted, _blend(targets, order, kept[:, None])


def _split(by: str, key: Tensor, alpha: float, parts: int) -> Tensor:
    """The parts of the key, once it and `alpha` are known to be right: a key is used up by one split."""
    random.check_key(key, by)
    if not alpha > 0:
        raise ValueError(
            f"{by} got alpha={alpha}: the weights follow Beta(alpha, alpha), so it is positive. Leave {by} out to mix "
            "nothing."
        )
    return random.split(key, parts)


def _draw(keys: Tensor, alpha: float, images: Images) -> tuple[Tensor, Tensor]:
    """Whom each image is mixed with, and the weight it keeps, `(N,)` each."""
    count = images.shape[0]
    u, v = random.uniform(keys[1], (2, count))
    power = torch.log1p(-u) / alpha  # of 1 - u, which is uniform as well, and not 0
    cosine = torch.cos(2 * math.pi * v)
    q, rest = torch.exp(power), -torch.expm1(power)
    root = cosine * torch.sqrt(rest / (q + rest * cosine**2))
    return random.permutation(keys[0], count).to(images.device), ((1 + root) / 2).to(images.device)


def _blend(values: Tensor, order: Tensor, weights: Tensor) -> Tensor:
    return torch.lerp(values.index_select(0, order), values, weights.to(values.dtype))


def _targets(by: str, labels: Tensor, images: Images, classes: int | None) -> Tensor:
    """Soft targets `(N, classes)` of labels of either kind."""
    count = images.shape[0]
    if not isinstance(labels, Tensor):
        raise TypeError(f"{by} takes labels as a tensor, and got {type(labels).__name__}. Write torch.tensor(labels).")
    if labels.shape[:1] != (count,) or labels.ndim not in (1, 2):
        raise ValueError(
            f"{by} got labels of shape {tuple(labels.shape)} for {count} images: integers of shape ({count},), or soft "
            f"labels of shape ({count}, classes)."
        )
    if labels.ndim == 2:
        if not labels.is_floating_point():
            raise TypeError(
                f"{by} got labels of {labels.dtype} and shape {tuple(labels.shape)}: soft ones are floating. Write "
                "labels.float() for one-hot rows, or labels.argmax(1)."
            )
        if classes not in (None, labels.shape[1]):
            raise ValueError(f"{by} got classes={classes} for labels of shape {tuple(labels.shape)}. Leave it out.")
        return labels
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"{by} got labels of {labels.dtype} and shape {tuple(labels.shape)}: classes are integers.")
    if classes is None:
        raise ValueError(f"{by} needs to know how many classes there are: write classes=10.")
    if count and _compat.readable(labels):
        low, high = (int(end) for end in labels.aminmax())
        if low < 0 or high >= classes:
            raise ValueError(
                f"{by} got labels from {low} to {high} and classes={classes}: they count from 0 to {classes - 1}."
            )
    return (labels[:, None] == torch.arange(classes, device=labels.device)).to(images.device, torch.float32)
