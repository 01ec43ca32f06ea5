"""The picture sets that everyone uses: where their files are, what they must be, and how they are read."""

import hashlib
import os
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from funcnet.data.dataset import check_labels
from funcnet.data.errors import DataError
from funcnet.data.fetch import fetch
from funcnet.data.idx import read_idx

__all__ = ["CIFAR", "IDX", "default_root", "read_cifar10", "read_idx_set"]

Rows = dict[str, Tensor]


class IdxSet(NamedTuple):
    """A set of four IDX files."""

    folder: str
    """Torchvision's name for its folder."""
    mirrors: tuple[str, ...]
    classes: tuple[str, ...]
    sha256: dict[str, str]
    """Of each gzipped file."""
    labels: str
    """The sha256 of the bytes of all training labels, which tells the sets apart: their files have the same names."""


FILES = {
    ("train", "x"): "train-images-idx3-ubyte",
    ("train", "label"): "train-labels-idx1-ubyte",
    ("test", "x"): "t10k-images-idx3-ubyte",
    ("test", "label"): "t10k-labels-idx1-ubyte",
}

IDX = {
    "mnist": IdxSet(
        "MNIST",
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        tuple("0123456789"),
        {
            "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
        "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    ),
    "fashion-mnist": IdxSet(
        "FashionMNIST",
        (
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        {
            "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
        "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    ),
}


class CifarSet(NamedTuple):
    """CIFAR-10 in its binary form: records of a label and 3 x 32 x 32 pixels. (The Python form is pickle.)"""

    folder: str = "cifar-10-batches-bin"
    archive: str = "cifar-10-binary.tar.gz"
    mirrors: tuple[str, ...] = ("https://www.cs.toronto.edu/~kriz/",)
    sha256: str = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
    train: tuple[str, ...] = (
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
    )
    test: tuple[str, ...] = ("test_batch.bin",)
    classes: tuple[str, ...] = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )


CIFAR = CifarSet()
_RECORD = 1 + 3 * 32 * 32
_MOST = 10_000 * _RECORD  # bytes of a file


def default_root() -> Path:
    """The folder of the variable FUNCNET_DATA, else `~/.cache/funcnet`."""
    return Path(os.environ.get("FUNCNET_DATA") or Path.home() / ".cache" / "funcnet")


def read_idx_set(name: str, root: Path, download: bool) -> tuple[Rows, Rows]:
    """The training and the test rows of a set in `IDX`: uint8 `x` `(n, 1, height, width)`, int64 `label` `(n,)`.

    Raises:
        DataError: a file is not there, broken, or of another set; pictures and labels differ in number; a label is none
            of the classes.
    """
    known = IDX[name]
    places = [root / known.folder / "raw", root / known.folder, root / "raw", root]
    parts: dict[str, Rows] = {"train": {}, "test": {}}
    paths: dict[tuple[str, str], Path] = {}
    for (part, what), file in FILES.items():
        found = next(
            (path for place in places for path in (place / file, place / f"{file}.gz") if path.is_file()), None
        )
        if found is None and download:
            urls = [f"{mirror}{file}.gz" for mirror in known.mirrors]
            found = fetch(urls, places[0] / f"{file}.gz", known.sha256[file])
        if found is None:
            raise _absent(name, f"{file}.gz or {file}", places, known.mirrors[0] + f"{file}.gz")
        paths[part, what] = found
        parts[part][what] = read_idx(found)
    for part, rows in parts.items():
        x, label = rows["x"], rows["label"]
        if x.ndim != 3 or x.dtype != torch.uint8 or label.ndim != 1 or len(x) != len(label) or not len(x):
            raise DataError(
                f"{paths[part, 'x']} is {x.dtype} of shape {tuple(x.shape)} and {paths[part, 'label']} of shape "
                f"{tuple(label.shape)}; pictures are uint8 (n, height, width), and labels (n,)."
            )
        rows["x"], rows["label"] = x[:, None], label.long()
        check_labels(rows["label"], len(known.classes), str(paths[part, "label"]))
    if parts["train"]["x"].shape[1:] != parts["test"]["x"].shape[1:]:
        raise DataError(f"{paths['train', 'x']} and {paths['test', 'x']} have pictures of different sizes.")
    digest = hashlib.sha256(bytes(parts["train"]["label"].to(torch.uint8).tolist())).hexdigest()
    other = next((other for other, those in IDX.items() if other != name and those.labels == digest), None)
    if other is not None:
        raise DataError(
            f"{paths['train', 'label']} is a file of {other}, and {name} was asked for: its files have the same names. "
            f"Put each set in a folder of its own, {known.folder}/raw and {IDX[other].folder}/raw."
        )
    return parts["train"], parts["test"]


def read_cifar10(root: Path, download: bool) -> tuple[Rows, Rows]:
    """The training and the test rows of CIFAR-10: uint8 `x` `(n, 3, 32, 32)`, int64 `label` `(n,)`.

    Raises:
        DataError: a file is not there or broken, or a label is none of the classes.
    """
    places = [root / CIFAR.folder, root]
    names = (*CIFAR.train, *CIFAR.test)
    place = next((place for place in places if (place / names[0]).is_file()), None)
    if place is None:
        archive = root / CIFAR.archive
        if not archive.is_file():
            urls = [mirror + CIFAR.archive for mirror in CIFAR.mirrors]
            if not download:
                raise _absent("cifar10", f"{CIFAR.folder}/{names[0]} or {CIFAR.archive}", [root], urls[0])
            fetch(urls, archive, CIFAR.sha256)
        place = places[0]
        _unpack(archive, place, names)
    train, test = (_records([place / name for name in part]) for part in (CIFAR.train, CIFAR.test))
    return train, test


def _absent(name: str, file: str, places: list[Path], url: str) -> DataError:
    folders = ", ".join(str(place) for place in places)
    return DataError(
        f"{name} is not there: no file {file} in {folders}. Pass download=True (on the command line --download) to get "
        f"it from {url}, or the folder that has it as root, or in the variable FUNCNET_DATA."
    )


def _unpack(archive: Path, place: Path, names: tuple[str, ...]) -> None:
    """Copy the files of these names, and nothing else, out of an archive; the folder appears when it is complete."""
    folder: Path | None = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}."))
        with tarfile.open(archive, "r:gz") as tar:
            for name in names:
                member = tar.getmember(f"{CIFAR.folder}/{name}")
                file = tar.extractfile(member) if member.isfile() and member.size <= _MOST else None
                if file is None:
                    raise DataError(f"{archive}: {member.name} is no file of at most {_MOST} bytes.")
                Path(folder, name).write_bytes(file.read())
        folder.chmod(0o755)
        folder.rename(place)
    except (tarfile.TarError, zlib.error, EOFError, KeyError, OSError) as error:
        raise DataError(f"{archive} cannot be unpacked: {error}. Remove it, and get it again.") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _records(paths: list[Path]) -> Rows:
    pixels, labels = [], []
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
        if not content or len(content) % _RECORD:
            raise DataError(
                f"{path} has {len(content)} bytes, which is no whole number of records of {_RECORD}. Get it again."
            )
        records = torch.from_numpy(np.frombuffer(bytearray(content), np.uint8)).reshape(-1, _RECORD)
        check_labels(records[:, 0].long(), len(CIFAR.classes), str(path))
        labels.append(records[:, 0].long())
        pixels.append(records[:, 1:].reshape(-1, 3, 32, 32))
    return {"x": torch.cat(pixels), "label": torch.cat(labels)}
