"""Which pixel goes where: flips and crops."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from funcnet import _compat
from funcnet.data.augment.arguments import Images, Size, check_images, filling, share, sizes
from funcnet.data.augment.draws import below, image_keys, uniforms

__all__ = ["crop", "flip", "gather"]

Padding = Literal["constant", "reflect", "edge"]


def flip(key: Tensor, images: Images, p: float = 0.5, *, vertical: bool = False) -> Tensor:
    """Turn each image over, left to right, with probability `p`.

    Args:
        key: int32 `(2,)`, or `(N, 2)` for a key an image.
        images: `(N, C, H, W)`, uint8 or floating.
        p: the share of images that are turned.
        vertical: top to bottom instead.

    Raises:
        TypeError, ValueError: what are no images, or no key; `p` outside [0, 1].

    >>> from funcnet import random
    >>> flip(random.key(0), torch.arange(3.0).reshape(1, 1, 1, 3), p=1.0)
    tensor([[[[2., 1., 0.]]]])
    """
    check_images("flip", images)
    share("flip", p)
    turned = uniforms(image_keys("flip", key, images.shape[0]), 1) < p
    return torch.where(turned.to(images.device)[:, :, None, None], images.flip(-2 if vertical else -1), images)


def crop(
    key: Tensor,
    images: Images,
    size: Size,
    padding: Size = 4,
    *,
    fill: float = 0.0,
    padding_mode: Padding = "constant",
) -> Tensor:
    """Cut a window at a place of its own from each image, after padding it.

    Args:
        key: int32 `(2,)`, or `(N, 2)` for a key an image.
        images: `(N, C, H, W)`, uint8 or floating.
        size: height and width of the window.
        padding: pixels added above and below, and at the left and the right.
        fill: their value where `padding_mode` is "constant".
        padding_mode: "constant"; "reflect", which mirrors without repeating the border; or "edge", which repeats it.

    Returns: `(N, C, *size)`; every place at which the window fits is equally likely.

    Raises:
        TypeError, ValueError: what are no images, or no key; a window larger than the padded image; a reflection of
            more pixels than there are; an unknown mode.

    >>> from funcnet import random
    >>> crop(random.key(1), torch.arange(1.0, 10).reshape(1, 1, 3, 3), 3, padding=1)
    tensor([[[[0., 4., 5.],
              [0., 7., 8.],
              [0., 0., 0.]]]])
    """
    check_images("crop", images)
    high, wide = sizes("crop", "size", size)
    above, left = sizes("crop", "padding", padding, least=0)
    fill = filling("crop", "fill", fill, images)
    count, _, height, width = images.shape
    room = (height + 2 * above - high, width + 2 * left - wide)
    if min(room) < 0:
        raise ValueError(
            f"crop got size={(high, wide)} for images of {height} x {width} and padding={(above, left)}: the window is "
            f"larger than the padded image, {height + 2 * above} x {width + 2 * left}. Take a smaller size or more "
            "padding."
        )
    if padding_mode == "reflect" and (above >= height or left >= width):
        raise ValueError(
            f"crop got padding={(above, left)} for images of {height} x {width}: a reflection has at most one pixel "
            "less than the image. Write padding_mode='edge', or less padding."
        )
    if padding_mode not in ("constant", "reflect", "edge"):
        raise ValueError(f"crop got padding_mode={padding_mode!r}. Write 'constant', 'reflect' or 'edge'.")
    unit = uniforms(image_keys("crop", key, count), 2).to(images.device)
    rows, columns = below(unit[:, 0], room[0] + 1), below(unit[:, 1], room[1] + 1)
    if _compat.plain() and not images.requires_grad and (images.is_floating_point() or padding_mode == "constant"):
        mode = "replicate" if padding_mode == "edge" else padding_mode
        value = fill if mode == "constant" else None
        padded = F.pad(images, (left, left, above, above), mode, value) if above or left else images
        return _window(padded, rows, columns, (high, wide))
    rows = rows[:, None] - above + torch.arange(high, device=images.device)
    columns = columns[:, None] - left + torch.arange(wide, device=images.device)
    if padding_mode == "reflect":
        return gather(images, _mirrored(rows, height)[:, :, None], _mirrored(columns, width)[:, None])
    cut = gather(images, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None])
    if padding_mode == "constant" and (above or left):
        within = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
        cut = torch.where(within[:, None], cut, fill)
    return cut


def _window(images: Images, rows: Tensor, columns: Tensor, size: tuple[int, int]) -> Tensor:
    """`images[n, :, rows[n] : rows[n] + height, columns[n] : columns[n] + width]`.

    All windows are one view, of which an index takes rows as a whole: half of the time of `gather`. Its derivative
    would make that view a tensor.
    """
    views = images.unfold(2, size[0], 1).unfold(3, size[1], 1)
    return views[torch.arange(images.shape[0], device=images.device), :, rows, columns]


def _mirrored(index: Tensor, size: int) -> Tensor:
    """The index with what lies outside reflected at the first and the last."""
    return (size - 1) - ((size - 1) - index.abs()).abs()


def gather(images: Images, rows: Tensor, columns: Tensor) -> Tensor:
    """`images[n, :, rows[n], columns[n]]`, for indices within the image that broadcast to `(N, h, w)`."""
    count, channels, height, width = images.shape
    # One index into the flat batch: a fifth of the time of an index for each axis, on the CPU.
    first = torch.arange(count * channels, device=images.device).reshape(count, channels, 1, 1) * (height * width)
    index = first + (rows * width + columns)[:, None]
    return images.reshape(-1).index_select(0, index.reshape(-1)).reshape(index.shape)
