"""What every augmentation is given: images, shares, sizes, ranges and a value to fill with."""

import math
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "Images", "Range", "Size", "bound", "check_images", "exact", "filling", "interval", "real", "restored", "share",
    "sizes", "spread",
]  # fmt: skip

Images = Tensor
"""`(N, C, H, W)`: uint8 in 0..255, or floating in 0..1."""

Size = int | Sequence[int]
"""A height and a width, or one number for both."""

Range = Sequence[float]
"""The lowest and the highest."""


def check_images(by: str, images: Images, *, least: int = 4) -> None:
    """Raise unless these are uint8 or floating images with at least so many axes."""
    if not isinstance(images, Tensor):
        raise TypeError(
            f"{by} takes images as a tensor (N, C, H, W), and got {type(images).__name__}. For a PIL image write "
            "torchvision.transforms.v2.functional.pil_to_tensor(image)[None]."
        )
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(
            f"{by} takes uint8 images in 0..255 or floating ones in 0..1, and got {images.dtype}. Write "
            "images.to(torch.uint8), or images.float() / 255."
        )
    if images.ndim < least or (least == 4 and images.ndim != 4):
        one = " For one image write images[None]." if images.ndim == 3 else ""
        hint = " A batch without channels becomes one with them by images[:, None]." if images.ndim == 3 else ""
        raise ValueError(f"{by} takes images of shape (N, C, H, W), and got {tuple(images.shape)}.{one}{hint}")


def bound(images: Images) -> float:
    """The value of white."""
    return 255.0 if images.dtype == torch.uint8 else 1.0


def real(images: Images) -> Tensor:
    """The images in a dtype to compute in: float32, or float64 where they are that."""
    return images if images.dtype == torch.float64 else images.to(torch.float32)


def exact(device: torch.device) -> torch.dtype:
    """The dtype of places and angles: float64, or float32 where a device has no wider."""
    return torch.float32 if device.type == "mps" else torch.float64


def restored(computed: Tensor, images: Images) -> Tensor:
    """What was computed in the dtype of the images: uint8 rounded to the nearest level."""
    if images.dtype == torch.uint8:
        computed = computed.round().clamp(0, 255)
    return computed.to(images.dtype)


def share(by: str, p: float, name: str = "p") -> float:
    """A probability."""
    if not 0 <= p <= 1:
        raise ValueError(f"{by} got {name}={p}, which is a probability, between 0 and 1.")
    return p


def sizes(by: str, name: str, size: Size, *, least: int = 1) -> tuple[int, int]:
    """A height and a width of at least so many pixels."""
    try:
        pair = (operator.index(size),) * 2 if not isinstance(size, Sequence) else tuple(map(operator.index, size))
    except TypeError:
        pair = ()
    if len(pair) != 2:
        raise TypeError(f"{by} got {name}={size!r}: write {name}=32, or {name}=(24, 32) for height and width.")
    if min(pair) < least:
        raise ValueError(f"{by} got {name}={size!r}: a number of pixels is at least {least}.")
    return pair[0], pair[1]


def interval(by: str, name: str, value: Range, low: float, high: float = math.inf) -> tuple[float, float]:
    """A lowest and a highest value, in this order and within these limits."""
    if not isinstance(value, Sequence) or len(value) != 2:
        raise TypeError(f"{by} got {name}={value!r}: write the lowest and the highest, as {name}=(0.5, 1.0).")
    if not low <= value[0] <= value[1] <= high:
        limits = f"between {low:g} and {high:g}" if high < math.inf else f"at least {low:g}"
        raise ValueError(f"{by} got {name}={tuple(value)}: the lowest comes first, and both are {limits}.")
    return float(value[0]), float(value[1])


def spread(
    by: str, name: str, value: float | Range, about: float, most: float, least: float = -math.inf
) -> tuple[float, float]:
    """The range `about - value .. about + value`, of which what lies under `least` is cut, or the range that is given.

    No end of it is further than `most` from `about`.
    """
    low, high = about - most, about + most
    if isinstance(value, Sequence):
        return interval(by, name, value, max(low, least), high)
    if not 0 <= value <= most:
        limit = f"between 0 and {most:g}" if most < math.inf else "not negative"
        raise ValueError(
            f"{by} got {name}={value}: one number is how far it goes to either side of {about:g}, and {limit}. For a "
            f"lowest and a highest write {name}=(low, high)."
        )
    return max(about - value, least), about + value


def filling(by: str, name: str, value: float, images: Images) -> float:
    """A value that pixels of this dtype can have: an integer for uint8, which a Python float would promote."""
    if images.dtype == torch.uint8 and not (0 <= value <= 255 and value == int(value)):
        raise ValueError(f"{by} got {name}={value} for uint8 images, whose pixels are whole numbers from 0 to 255.")
    return int(value) if images.dtype == torch.uint8 else float(value)
