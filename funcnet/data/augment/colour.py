"""The values of pixels: normalization."""

from collections.abc import Sequence

import torch
from torch import Tensor

from funcnet.data.augment.arguments import Images, check_images

__all__ = ["normalize"]


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
