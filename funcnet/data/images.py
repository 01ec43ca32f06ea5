"""Folders of pictures, a folder for each class, as one tensor of pixels."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from funcnet.data.errors import DataError

__all__ = ["SUFFIXES", "Images", "read_images", "read_picture"]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})


class Images(NamedTuple):
    """The pictures of a folder."""

    x: Tensor
    """uint8 `(n, 3, height, width)`."""
    label: Tensor
    """int64 `(n,)`: the place of each picture's class in `classes`."""
    classes: tuple[str, ...]
    """The names of the class folders, sorted."""
    skipped: dict[str, str]
    """The files that could not be read, with the reason."""


def read_images(
    folder: str | os.PathLike[str],
    size: int | tuple[int, int] | None = None,
    *,
    classes: Sequence[str] | None = None,
    skip_bad: bool = False,
    threads: int | None = None,
) -> Images:
    """Every picture of a folder whose folders are the classes, in the order of their names, in RGB.

    Args:
        folder: where the class folders are. Files of other kinds, and names that begin with a dot, are passed over.
        size: height and width, or one for both, to which each picture is resized with antialiasing, whatever its
            proportions; None takes them as they are, and then they must be of one size.
        classes: the classes that there must be, as those of the training set for a test set; None takes the folders.
        skip_bad: list pictures that cannot be read in `skipped`, where they are an error otherwise.
        threads: how many decode at once; None takes one a core.

    Raises:
        DataError: the folder cannot be read or has no class folders; one is empty, or is none of `classes`; a picture
            cannot be decoded or has another size, which the message names.
    """
    folder = Path(folder)
    if isinstance(size, int):
        size = size, size
    if size is not None and min(size) <= 0:
        raise ValueError(f"size is {size}; it is the height and width of the pictures and must be positive.")
    found = _folders(folder, classes)
    files = [(file, label) for label, name in enumerate(found) for file in _files(folder / name)]
    skipped: dict[str, str] = {}

    def load(file: Path) -> Tensor | Exception:
        try:
            return torch.from_numpy(_decode(file, size)).permute(2, 0, 1)
        except Exception as error:  # decoders raise whatever they like on a broken file
            return error

    x = torch.empty(0, 3, 0, 0, dtype=torch.uint8, device="cpu")
    labels: list[int] = []
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for (file, label), picture in zip(files, pool.map(load, (file for file, _ in files)), strict=True):
            reason, way = f"{type(picture).__name__}: {picture}", "mend or remove it"
            if isinstance(picture, Tensor):
                if not labels:
                    x = torch.empty(len(files), *picture.shape, dtype=torch.uint8, device="cpu")
                if picture.shape == x.shape[1:]:
                    x[len(labels)] = picture
                    labels.append(label)
                    continue
                reason = f"it is {tuple(picture.shape[1:])} high and wide, and others are {tuple(x.shape[2:])}"
                way = "give a size to resize to"
            if not skip_bad:
                pool.shutdown(cancel_futures=True)
                cause = picture if isinstance(picture, Exception) else None
                raise DataError(
                    f"{file} cannot be used ({reason}): {way}, or leave such pictures out with skip_bad=True."
                ) from cause
            skipped[str(file)] = reason
    missing = [name for label, name in enumerate(found) if label not in set(labels)]
    if missing:
        raise DataError(
            f"{folder / missing[0]} has no picture that can be used: {len(skipped)} of {len(files)} in {folder} cannot."
        )
    x = x[: len(labels)].clone() if skipped else x
    return Images(x, torch.tensor(labels, device="cpu"), tuple(found), skipped)


def read_picture(file: str | os.PathLike[str], size: tuple[int, int]) -> Tensor:
    """One picture in RGB, resized as `read_images` does: uint8 `(3, height, width)`.

    Raises:
        DataError: it cannot be decoded.
    """
    try:
        return torch.from_numpy(_decode(Path(file), size)).permute(2, 0, 1)
    except Exception as error:  # decoders raise whatever they like on a broken file
        raise DataError(f"{file} cannot be used ({type(error).__name__}: {error}).") from error


def _folders(folder: Path, classes: Sequence[str] | None) -> list[str]:
    try:
        found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}.") from error
    if not found:
        raise DataError(
            f"{folder} has no folders: put the pictures of each class in a folder of its name, as {folder}/cat/1.jpg."
        )
    if classes is not None and found != sorted(classes):
        more, less = sorted(set(found) - set(classes)), sorted(set(classes) - set(found))
        told = [f"{', '.join(names)} {what}" for names, what in ((more, "is new"), (less, "is missing")) if names]
        raise DataError(f"{folder} has other classes than {', '.join(classes)}: {'; '.join(told)}.")
    return list(found if classes is None else classes)


def _files(folder: Path) -> list[Path]:
    """The pictures in a class folder and the folders in it, sorted."""
    found: list[Path] = []
    seen: set[str] = set()
    for path, folders, names in os.walk(folder, followlinks=True):
        place = os.path.realpath(path)
        if place in seen:  # by a link, which may lead to a folder that it is in
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(path, name)
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
        ]
    if not found:
        raise DataError(
            f"{folder} has no pictures ({' '.join(sorted(SUFFIXES))}): add some, or remove this folder, a class."
        )
    return sorted(found)


def _decode(file: Path, size: tuple[int, int] | None) -> "np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]":
    """uint8 `(height, width, 3)`."""
    with Image.open(file) as opened:
        if size is not None:
            opened.draft("RGB", (2 * size[1], 2 * size[0]))  # JPEG is decoded at a half or less where that is enough
        image: Image.Image = opened
        # Sixteen bits a pixel, which RGB would cut off at 255; those of PPM, and once of PNG, Pillow calls I.
        if opened.mode.startswith("I;16") or (opened.mode == "I" and opened.format in ("PPM", "PNG")):
            image = Image.fromarray((np.asarray(opened) >> 8).astype(np.uint8))
        elif opened.mode in ("I", "F"):
            kind = "integers of 32 bits" if opened.mode == "I" else "floating numbers"
            raise ValueError(f"its pixels are {kind}, of which nobody knows what is white; save it with 8 or 16 bits")
        elif "transparency" in opened.info:
            image = opened.convert("RGBA")
        image = image.convert("RGB")
    if size is not None and image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.array(image)  # a copy, since Pillow's own memory is not to be written
