"""Images seen at other places than their own pixels: resized windows and rotations."""

import torch
import torch.nn.functional as F
from torch import Tensor

from funcnet.data.augment.arguments import (
    Images,
    Range,
    Size,
    check_images,
    exact,
    filling,
    interval,
    real,
    restored,
    sizes,
    spread,
)
from funcnet.data.augment.boxes import boxes
from funcnet.data.augment.draws import image_keys, uniforms
from funcnet.data.augment.geometry import gather

__all__ = ["resized_crop", "rotate"]


def resized_crop(
    key: Tensor,
    images: Images,
    size: Size,
    scale: Range = (0.08, 1.0),
    ratio: Range = (3 / 4, 4 / 3),
    *,
    antialias: bool = True,
) -> Tensor:
    """Cut a rectangle of random area and shape from each image, and resize it (Szegedy et al., arXiv:1409.4842).

    Of ten rectangles the first that fits is taken, and where none does, the largest in the middle whose shape `ratio`
    allows, as `torchvision.transforms.v2.RandomResizedCrop` has it. Resizing is linear, by two small matrices for each
    image.

    Args:
        key: int32 `(2,)`, or `(N, 2)` for a key an image.
        images: `(N, C, H, W)`, uint8 or floating.
        size: height and width of the result.
        scale: the area as a share of the image's, lowest and highest.
        ratio: width over height, lowest and highest; its logarithm is uniform.
        antialias: widen the filter where the image shrinks, so that every pixel counts.

    Returns: `(N, C, *size)`; uint8 is rounded.

    Raises:
        TypeError, ValueError: what are no images, or no key; a scale or ratio that is no range.

    >>> from funcnet import random
    >>> resized_crop(random.key(0), torch.ones(2, 3, 8, 8), 4).shape
    torch.Size([2, 3, 4, 4])
    """
    check_images("resized_crop", images)
    out = sizes("resized_crop", "size", size)
    scale = interval("resized_crop", "scale", scale, 0.0, 1.0)
    ratio = interval("resized_crop", "ratio", ratio, 1e-3)
    count, channels, height, width = images.shape
    drawn, found = boxes(image_keys("resized_crop", key, count), (height, width), scale, ratio, images.device)
    middle = torch.tensor(_middle(height, width, ratio), device=images.device)
    top, left, high, wide = torch.where(found, drawn, middle[:, None])
    pixels = real(images)
    down = _weights(top, high, out[0], height, antialias).to(pixels.dtype)
    across = _weights(left, wide, out[1], width, antialias).to(pixels.dtype)
    narrow = torch.bmm(pixels.reshape(count, channels * height, width), across.mT)
    return restored(down[:, None] @ narrow.reshape(count, channels, height, out[1]), images)


def _middle(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """The largest rectangle in the middle of an allowed shape: top, left, height, width."""
    high = min(height, max(1, round(width / ratio[0])))
    wide = min(width, max(1, round(height * ratio[1])))
    return (height - high) // 2, (width - wide) // 2, high, wide


def _weights(start: Tensor, length: Tensor, after: int, before: int, antialias: bool) -> Tensor:
    """How much each of `before` pixels adds to each of `after` that stand for a part of them, `(N, after, before)`.

    A triangle about the place that the pixel stands for, one pixel wide to either side, or as wide as a new pixel
    where that is more; what lies outside of the part does not count.
    """
    step = (length.to(exact(length.device)) / after)[:, None, None]
    # In the same dtype: integers and a half would be in the default one, which may hold few numbers.
    centre = (torch.arange(after, device=start.device, dtype=step.dtype)[:, None] + 0.5) * step + start[:, None, None]
    pixel = torch.arange(before, device=start.device, dtype=step.dtype)
    reach = step.clamp(min=1.0) if antialias else 1.0
    weight = (1 - (pixel + 0.5 - centre).abs() / reach).clamp(min=0)
    within = (pixel >= start[:, None]) & (pixel < (start + length)[:, None])
    weight = weight * within[:, None]
    return weight / weight.sum(-1, keepdim=True)


def rotate(key: Tensor, images: Images, degrees: float | Range, *, fill: float = 0.0) -> Tensor:
    """Turn each image about its middle by a random angle, counterclockwise, with linear interpolation.

    Args:
        key: int32 `(2,)`, or `(N, 2)` for a key an image.
        images: `(N, C, H, W)`, uint8 or floating.
        degrees: the lowest and the highest angle; one number is that much to either side.
        fill: the value of what lies outside of the image.

    Raises:
        TypeError, ValueError: what are no images, or no key; angles that are no range.

    >>> from funcnet import random
    >>> rotate(random.key(0), torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), (90, 90)).round()
    tensor([[[[2., 4.],
              [1., 3.]]]])
    """
    check_images("rotate", images)
    low, high = spread("rotate", "degrees", degrees, 0.0, 360.0)
    fill = filling("rotate", "fill", fill, images)
    count, _, height, width = images.shape
    unit = uniforms(image_keys("rotate", key, count), 1).to(images.device)
    angle = torch.deg2rad(low + (high - low) * unit.to(exact(unit.device)))[:, :, None]
    y = (torch.arange(height, device=images.device, dtype=angle.dtype) - (height - 1) / 2)[:, None]
    x = torch.arange(width, device=images.device, dtype=angle.dtype) - (width - 1) / 2
    rows = angle.sin() * x + angle.cos() * y + (height - 1) / 2
    columns = angle.cos() * x - angle.sin() * y + (width - 1) / 2
    return restored(_between(images, rows, columns, fill), images)


def _between(images: Images, rows: Tensor, columns: Tensor, fill: float) -> Tensor:
    """The images at places between pixels, `(N, h, w)`: the mean of the four around, weighed by nearness."""
    pixels = F.pad(real(images), (1, 1, 1, 1), value=fill)
    # Beyond the border of one pixel all is alike.
    rows, columns = (rows + 1).clamp(0, pixels.shape[-2] - 1), (columns + 1).clamp(0, pixels.shape[-1] - 1)
    top, left = rows.floor().clamp(max=pixels.shape[-2] - 2), columns.floor().clamp(max=pixels.shape[-1] - 2)
    down, right = (rows - top).to(pixels.dtype)[:, None], (columns - left).to(pixels.dtype)[:, None]
    y, x = top.long(), left.long()
    above = torch.lerp(gather(pixels, y, x), gather(pixels, y, x + 1), right)
    beneath = torch.lerp(gather(pixels, y + 1, x), gather(pixels, y + 1, x + 1), right)
    return torch.lerp(above, beneath, down)
