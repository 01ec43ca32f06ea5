"""Rectangles of a random area and shape, one in each image."""

import math

import torch
from torch import Tensor

from funcnet.data.augment.draws import uniforms

__all__ = ["boxes"]

TRIES = 10


def boxes(
    keys: Tensor, shape: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float], device: torch.device
) -> tuple[Tensor, Tensor]:
    """A rectangle for each key, and whether one was found.

    The area is uniform in `scale`, as a share of the image, and the logarithm of width over height uniform in that of
    `ratio`. Of ten tries, drawn at once, the first that fits counts; its place is uniform among those possible.

    Returns: `(4, N)` int64: top, left, height, width; and bool `(N,)`. Where none fits all four are 0.
    """
    height, width = shape
    unit = uniforms(keys, 2 * TRIES + 2).to(device)
    tries, place = unit[:, : 2 * TRIES].reshape(-1, TRIES, 2), unit[:, 2 * TRIES :]
    area = (scale[0] + (scale[1] - scale[0]) * tries[..., 0]) * (height * width)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape_of = torch.exp(low + (high - low) * tries[..., 1])
    high_of, wide_of = torch.sqrt(area / shape_of).round(), torch.sqrt(area * shape_of).round()
    fits = (high_of >= 1) & (high_of <= height) & (wide_of >= 1) & (wide_of <= width)
    found = fits.any(1)
    first = fits.int().argmax(1, keepdim=True)
    sides = torch.stack((high_of, wide_of)).gather(2, first.expand(2, -1, -1))[..., 0]
    sides = torch.where(found, sides, 0)
    room = torch.tensor([[height], [width]], device=device) - sides + 1
    corner = torch.minimum((place.mT * room).floor(), room - 1)
    return torch.where(found, torch.cat((corner, sides)), 0).long(), found
