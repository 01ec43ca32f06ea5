"""A contact sheet of every augmentation: one drawn picture, eight keys a row."""

import argparse
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from funcnet import jit, random
from funcnet.data import augment as A

COLUMNS = 8


def picture(size: int = 64) -> Tensor:
    """A landscape `(3, size, size)`: a sky, a sun to the right, a house to the left, a fence."""
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    image = torch.stack((0.35 + 0.4 * y, 0.6 + 0.25 * y, torch.full_like(x, 0.95)))

    def paint(where: Tensor, *colour: float) -> None:
        image[:, where] = torch.tensor(colour)[:, None]

    paint(y > 0.65 + 0.04 * torch.sin(9 * x), 0.25, 0.6, 0.2)
    paint((x - 0.78) ** 2 + (y - 0.22) ** 2 < 0.012, 1.0, 0.85, 0.2)
    paint((x > 0.15) & (x < 0.45) & (y > 0.45) & (y < 0.75), 0.9, 0.85, 0.75)
    paint((y > 0.28) & (y < 0.45) & ((x - 0.3).abs() < 0.2 * (y - 0.28) / 0.17), 0.75, 0.2, 0.15)
    paint((y > 0.85) & (y < 0.88) | (y > 0.8) & (y < 0.95) & (x * 12 % 1 < 0.15), 0.5, 0.35, 0.2)
    return image


def rows(size: int) -> dict[str, A.Augmentation]:
    """What each row of the sheet shows."""
    labels = torch.arange(COLUMNS)
    single = {
        "flip": A.flip,
        "crop": partial(A.crop, size=size, padding=size // 6),
        "crop, reflect": partial(A.crop, size=size, padding=size // 6, padding_mode="reflect"),
        "resized_crop": partial(A.resized_crop, size=size),
        "rotate": partial(A.rotate, degrees=30, fill=0.5),
        "color_jitter": partial(A.color_jitter, brightness=0.4, contrast=0.4, saturation=0.6, hue=0.1),
        "hue alone": partial(A.color_jitter, hue=0.5),
        "grayscale": partial(A.grayscale, p=0.5),
        "cutout": partial(A.cutout, size=size // 3, fill=0.5),
        "random_erasing": partial(A.random_erasing, p=1.0),
    }
    mixing = {
        "mixup": lambda key, images: A.mixup(key, images, labels, 1.0, COLUMNS)[0],
        "cutmix": lambda key, images: A.cutmix(key, images, labels, 1.0, COLUMNS)[0],
    }
    return single | {"all of these": A.compose(*single.values())} | mixing


def main(argv: list[str] | None = None) -> int:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/augment.png"))
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--compile", action="store_true", help="through jit")
    options = parser.parse_args(argv)
    # In three colourings, so that what is mixed can be told apart.
    images = torch.stack([picture(options.size).roll(i % 3, 0) for i in range(COLUMNS)])
    sheet = rows(options.size)
    figure = Figure((COLUMNS, len(sheet) + 0.2), layout="constrained")
    for row, (name, f) in zip(figure.subplots(len(sheet), COLUMNS), sheet.items(), strict=True):
        shown = (jit(f) if options.compile else f)(random.key(0), images)
        for axes, image in zip(row, shown, strict=True):
            axes.imshow(image.movedim(0, -1).clamp(0, 1).numpy())
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=110)
    print(f"{len(sheet)} augmentations of {COLUMNS} pictures in {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
