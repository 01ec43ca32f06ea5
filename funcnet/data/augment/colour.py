"""The values of pixels: colours and normalization."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from funcnet.data.augment.arguments import Images, Range, bound, check_images, real, restored, share, spread
from funcnet.data.augment.draws import image_keys, uniforms

__all__ = ["color_jitter", "grayscale", "normalize"]

# Luminance of red, green and blue (ITU-R BT.601), to torchvision's digits.
LUMA = (0.2989, 0.587, 0.114)


def color_jitter(
    key: Tensor,
    images: Images,
    brightness: float | Range = 0.0,
    contrast: float | Range = 0.0,
    saturation: float | Range = 0.0,
    hue: float | Range = 0.0,
) -> Tensor:
    """Change brightness, contrast, saturation and hue of each image by random amounts, in this order.

    A picture `x` becomes `b x`; then `c x + (1 - c) m`, `m` the mean of its luminance; then `s x + (1 - s) l`, `l` the
    luminance of the pixel; then its hue moves by `h` turns of the colour circle. Each result is cut off at black and
    white. These are torchvision's formulas; its `ColorJitter` draws the order as well, and rounds uint8 after each.

    Args:
        key: int32 `(2,)`, or `(N, 2)` for a key an image.
        images: `(N, C, H, W)` with one channel or three, uint8 or floating. One channel has no saturation and no hue.
        brightness, contrast, saturation: the factors `b`, `c` and `s`: uniform in `1 - value .. 1 + value` (not under
            0), or in a given range.
        hue: `h`, uniform in `-value .. value`, or in a range within -0.5 and 0.5.

    Raises:
        TypeError, ValueError: what are no images, or no key; a number of channels with no colours; a negative amount.

    >>> from funcnet import random
    >>> color_jitter(random.key(0), torch.full((1, 1, 1, 2), 0.25), brightness=(2.0, 2.0))
    tensor([[[[0.5000, 0.5000]]]])
    """
    _check_colours("color_jitter", images)
    spans = [
        spread("color_jitter", "brightness", brightness, 1.0, math.inf, 0.0),
        spread("color_jitter", "contrast", contrast, 1.0, math.inf, 0.0),
        spread("color_jitter", "saturation", saturation, 1.0, math.inf, 0.0),
        spread("color_jitter", "hue", hue, 0.0, 0.5),
    ]
    unit = uniforms(image_keys("color_jitter", key, images.shape[0]), 4).to(images.device)
    pixels, white = real(images), bound(images)
    b, c, s, h = (
        (low + (high - low) * unit[:, i, None, None, None]).to(pixels.dtype) for i, (low, high) in enumerate(spans)
    )
    coloured = images.shape[1] == 3
    # What is fixed at nothing costs nothing.
    if spans[0] != (1.0, 1.0):
        pixels = (pixels * b).clamp(0, white)
    if spans[1] != (1.0, 1.0):
        mean = _luminance(pixels).mean((-3, -2, -1), keepdim=True)
        pixels = torch.lerp(mean, pixels, c).clamp(0, white)
    if coloured and spans[2] != (1.0, 1.0):
        pixels = torch.lerp(_luminance(pixels), pixels, s).clamp(0, white)
    if coloured and spans[3] != (0.0, 0.0):
        pixels = _turned(pixels, h)
    return restored(pixels, images)


def grayscale(key: Tensor, images: Images, p: float = 0.1) -> Tensor:
    """Take the colours from an image with probability `p`: each channel becomes the luminance.

    Args:
        key: int32 `(2,)`, or `(N, 2)` for a key an image.
        images: `(N, C, H, W)` with one channel or three, uint8 or floating.
        p: the share of images that lose their colours.

    Raises:
        TypeError, ValueError: what are no images, or no key; a number of channels with no colours; `p` outside [0, 1].

    >>> from funcnet import random
    >>> grayscale(random.key(0), torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1), p=1.0).flatten()
    tensor([0.2989, 0.2989, 0.2989])
    """
    _check_colours("grayscale", images)
    share("grayscale", p)
    chosen = (uniforms(image_keys("grayscale", key, images.shape[0]), 1) < p).to(images.device)
    return torch.where(chosen[:, :, None, None], restored(_luminance(real(images)), images), images)


def _check_colours(by: str, images: Images) -> None:
    check_images(by, images)
    if images.shape[1] not in (1, 3):
        raise ValueError(
            f"{by} takes images of one channel or of three (red, green, blue), and got {tuple(images.shape)}. Apply it "
            "to the channels that are colours: images[:, :3]."
        )


def _luminance(pixels: Tensor) -> Tensor:
    """`(N, 1, H, W)`."""
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = (pixels[:, i : i + 1] for i in range(3))
    luminance: Tensor = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return luminance


def _turned(pixels: Tensor, turns: Tensor) -> Tensor:
    """The colours moved around the circle of hues, on which red is at 0, green at 1/3 and blue at 2/3.

    The largest and the smallest of a pixel's channels stay. A channel is the largest within a sixth of its own place
    on the circle, the smallest beyond a third, and linear between.
    """
    red, green, blue = (pixels[:, i : i + 1] for i in range(3))
    most, least = pixels.amax(1, keepdim=True), pixels.amin(1, keepdim=True)
    span = most - least
    divisor = torch.where(span > 0, span, 1.0)  # a grey pixel has no hue, and needs none
    sixths = torch.where(
        red == most,
        (green - blue) / divisor,
        torch.where(green == most, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    place = sixths / 6 + turns
    place = 6 * (place - place.floor())
    weights = ((place - 3).abs() - 1, 2 - (place - 2).abs(), 2 - (place - 4).abs())
    return least + span * torch.cat(weights, 1).clamp(0, 1)


def normalize(images: Images, mean: float | Sequence[float] | Tensor, std: float | Sequence[float] | Tensor) -> Tensor:
    """`(images - mean) / std`, channel by channel.

    It draws nothing and takes no key. uint8 images are divided by 255 first and become float32, so that `mean` and
    `std` always speak of 0..1.

    Args:
        images: `(..., C, H, W)`, uint8 or floating.
        mean, std: a number for all channels, or one for each.

    Raises:
        TypeError, ValueError: what are no images; neither one number nor one for each channel; a `std` of zero.

    >>> normalize(torch.tensor([[[[0, 255]]]], dtype=torch.uint8), 0.5, 0.25)
    tensor([[[[-2.,  2.]]]])
    """
    check_images("normalize", images, least=3)
    scaled = images.to(torch.float32) / 255 if images.dtype == torch.uint8 else images
    return (scaled - _per_channel("mean", mean, scaled)) / _per_channel("std", std, scaled)


def _per_channel(name: str, value: float | Sequence[float] | Tensor, images: Tensor) -> Tensor:
    if not isinstance(value, Tensor):
        numbers = [float(v) for v in value] if isinstance(value, Sequence) else [float(value)]
        if name == "std" and min(map(abs, numbers), default=1.0) == 0:
            raise ValueError(
                f"normalize got std={value}: a channel is divided by it. Write 1 for a channel that is constant."
            )
        value = torch.tensor(numbers, device=images.device)
    if value.ndim > 1 or value.numel() not in (1, images.shape[-3]):
        raise ValueError(
            f"normalize got {name} with shape {tuple(value.shape)} for images of {images.shape[-3]} channels: give one "
            "number, or one for each channel."
        )
    return value.to(images.device, images.dtype).reshape(-1, 1, 1)
