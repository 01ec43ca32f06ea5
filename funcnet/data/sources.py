"""Data named by a text, as on a command line: `digits`, `mnist`, `folder:PATH`, `csv:PATH#target` ..."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import random
from funcnet.data import synthetic
from funcnet.data.dataset import Dataset, Kind, check_labels, near, statistics
from funcnet.data.errors import DataError
from funcnet.data.images import SUFFIXES, read_images
from funcnet.data.known import CIFAR, IDX, default_root, read_cifar10, read_idx_set
from funcnet.data.rows import split
from funcnet.data.tables import Table, column_named, read_table
from funcnet.data.text import encode, read_text, vocabulary

__all__ = ["load"]

_TESTS = ("val", "valid", "validation", "test")
_MOST = 2**28  # zeros and ones that the categories of one column may become: a gibibyte


class _Request(NamedTuple):
    text: str
    rest: str
    """What follows the colon, without options."""
    options: dict[str, str]
    root: Path
    download: bool
    key: Tensor
    size: int | tuple[int, int] | None
    test: float | None
    skip_bad: bool

    def share(self, default: float = 0.2) -> float:
        return default if self.test is None else self.test


def load(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    key: Tensor | None = None,
    size: int | tuple[int, int] | None = None,
    test: float | None = None,
    skip_bad: bool = False,
) -> Dataset:
    """The data that a text names.

    - `digits`: scikit-learn's 1,797 digits of 8x8;
    - `mnist`, `fashion-mnist`, `cifar10`: from files under `root`, in torchvision's folders or without folders;
    - `folder:PATH`: pictures in a folder for each class; or such folders in `PATH/train` and `PATH/val` (or `valid`,
      `validation`, `test`), or in `PATH/train` alone;
    - `csv:PATH#target`: a table, of which `target` is the column to predict, by name or by number (`#-1`). Categories
      among the features become a column of zeros and ones each. `?kind=classification` takes numbers for classes,
      `?header=no` the first line for data, and `?without=id,name` leaves columns out, whatever they hold;
    - `text:PATH`: a text by characters, or with `?by=bytes` by bytes; its end is the test set;
    - `synthetic:classification?n=1000&features=20&classes=5`, `synthetic:regression`, `synthetic:images?size=28`.

    Args:
        name: one of these.
        root: where files of known names are looked for and put. Default: the variable FUNCNET_DATA, else
            `~/.cache/funcnet`.
        download: fetch files that are not there, whose sha256 is known.
        key: int32 `(2,)`: draws what is drawn, and which rows are held out; default `random.key(0)`.
        size: the height and width of the pictures of a folder.
        test: the share to hold out where the source has no test set of its own; default 0.2, and 0.1 of a text.
            Classes keep their proportions.
        skip_bad: leave out pictures that cannot be read and rows that miss a value, and list them in `info["skipped"]`.

    Raises:
        DataError: nothing has this name, with near names; the data is not there, with where it was looked for; or it is
            broken, with the file and the place in it.

    >>> data = load("synthetic:images?n=50&classes=2")
    >>> data.train["x"].shape, data.test["label"].shape, data.classes
    (torch.Size([40, 1, 28, 28]), torch.Size([10]), ('0', '1'))
    """
    kind, colon, rest = name.partition(":")
    if kind not in _SOURCES or bool(colon) != (kind in _NEEDS):
        raise _unknown(name, kind)
    rest, options = _options(rest)
    if test is not None and not 0 < test < 1:
        raise ValueError(f"test is {test}; it is the share that is held out, between 0 and 1.")
    if size is not None and kind != "folder":
        raise ValueError(
            f"size is {size}, and {name!r} has pictures of a size of its own or none; it is for folder:PATH."
        )
    allowed = {"csv": ["kind", "header", "without"], "text": ["by"]}.get(kind, [])
    for option in options:
        if kind != "synthetic" and option not in allowed:
            raise DataError(f"{name!r}: {kind} has no option {option!r}; {near(option, allowed or ['none'])}.")
    given = random.key(0) if key is None else key
    place = default_root() if root is None else Path(root)
    # Whatever the default device: rows lie on the host, and so do the places that they are taken from.
    with torch.device("cpu"):
        return _SOURCES[kind](_Request(name, rest, options, place, download, given, size, test, skip_bad))


def _unknown(name: str, kind: str) -> DataError:
    forms = [_NEEDS.get(source, source) for source in _SOURCES]
    if kind in _SOURCES:
        how = f"write {_NEEDS[kind]}" if kind in _NEEDS else f"write {kind} alone"
    elif Path(name).is_dir():
        how = f"write folder:{name} for the pictures in this folder"
    elif Path(name).is_file():
        how = f"write text:{name} or csv:{name}#target for this file"
    else:
        how = near(kind, list(_SOURCES))
    return DataError(f"{name!r} names no data: {how}. The sources are {', '.join(forms)}.")


def _options(rest: str) -> tuple[str, dict[str, str]]:
    """What stands before `?a=1&b=2`, and these."""
    before, mark, after = rest.rpartition("?")
    if not mark or not all("=" in pair for pair in after.split("&")):
        return rest, {}  # a name may have a question mark
    return before, dict(pair.split("=", 1) for pair in after.split("&"))


def _divided(request: _Request, rows: dict[str, Tensor], classes: tuple[str, ...], info: Mapping[str, Any]) -> Dataset:
    """A data set of rows, part of which is held out."""
    labels = rows["label"] if classes else None
    test, train = split(request.key, rows, request.share(), labels=labels)
    for part, found in (("training", train), ("test", test)):
        if not len(found["label"]):
            raise DataError(
                f"{request.text!r} has {len(rows['label'])} rows, of which test={request.share()} leaves none for the "
                f"{part} set."
            )
    kind: Kind = "classification" if classes else "regression"
    return Dataset(train, test, kind, classes, statistics(train["x"]), {"source": request.text, **info})


def _digits(request: _Request) -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError("digits are in scikit-learn, which is not installed: pip install scikit-learn.") from None
    bunch = load_digits()
    x = torch.from_numpy(bunch.images).float()[:, None] / 16
    return _divided(request, {"x": x, "label": torch.from_numpy(bunch.target).long()}, tuple("0123456789"), {})


def _known(request: _Request) -> Dataset:
    name = request.text
    if name == "cifar10":
        (train, test), classes = read_cifar10(request.root, request.download), CIFAR.classes
    else:
        (train, test), classes = read_idx_set(name, request.root, request.download), IDX[name].classes
    return Dataset(train, test, "classification", classes, statistics(train["x"]), {"source": name})


def _folder(request: _Request) -> Dataset:
    first, second = _parts(Path(request.rest))
    train = read_images(first, request.size, skip_bad=request.skip_bad)
    if second is None:
        return _divided(request, {"x": train.x, "label": train.label}, train.classes, {"skipped": train.skipped})
    size = request.size or (train.x.shape[2], train.x.shape[3])
    test = read_images(second, size, classes=train.classes, skip_bad=request.skip_bad)
    rows = [{"x": part.x, "label": part.label} for part in (train, test)]
    info = {"source": request.text, "skipped": train.skipped | test.skipped}
    return Dataset(rows[0], rows[1], "classification", train.classes, statistics(train.x), info)


def _parts(folder: Path) -> tuple[Path, Path | None]:
    """Where the classes to train on are, and those to test on, where these have a folder of their own.

    Raises:
        DataError: there is a training set and nobody knows which of the other folders is the test set.
    """
    found = {path.name.lower(): path for path in _folders(folder)}
    train = found.pop("train", None)
    if train is None:
        return folder, None
    test = next((found[name] for name in _TESTS if name in found), None)
    if test is None:
        if not _folders(train) or any(path.suffix.lower() in SUFFIXES for path in train.iterdir()):
            return folder, None  # a class of trains
        if found:
            others = ", ".join(path.name for path in found.values())
            raise DataError(
                f"{folder} has a training set in {train.name}, and beside it {others}: call the one to test on "
                f"{', '.join(_TESTS[:-1])} or {_TESTS[-1]}, or write folder:{train} to hold part of this one out."
            )
    return train, test


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []  # whoever reads it tells why


def _csv(request: _Request) -> Dataset:
    file, mark, wanted = request.rest.rpartition("#")
    kind, header = request.options.get("kind"), request.options.get("header")
    if kind not in (None, "classification", "regression") or header not in (None, "yes", "no"):
        raise DataError(f"{request.text!r}: kind is classification or regression, and header yes or no.")
    path = Path(file if mark else request.rest)
    named = None if header is None else header == "yes"
    without = request.options["without"].split(",") if "without" in request.options else ()
    table = read_table(path, header=named, without=without, skip_bad=request.skip_bad)
    if not mark:
        raise DataError(
            f"{request.text!r} does not say what to predict. Write csv:{path}#{table.names[-1]}, or another of "
            f"the columns {', '.join(table.names)}."
        )
    target = column_named(wanted, table.names, path)
    if target not in table.columns:
        raise DataError(f"{request.text!r} is to predict column {target!r}, and to leave it out: name it once.")
    label = table.columns[target]
    classes = table.vocabularies.get(target, ())
    if classes and kind == "regression":
        raise DataError(f"{path}: column {target!r} has categories, such as {classes[0]!r}, and no numbers to predict.")
    if not classes and kind == "classification":
        values, label = torch.unique(label, return_inverse=True)
        classes = tuple(str(int(value)) if value.is_integer() else repr(value) for value in values.tolist())
    x, columns = _features(table, target, path)
    rows = {"x": x, "label": label if classes else label.float()}
    info = {
        "target": target,
        "features": [name if category is None else f"{name}={category}" for name, category in columns],
        "columns": columns,  # a pair for each feature, since names and categories may have a "=" of their own
        "header": named,
        "skipped": [f"{path}, line {line}" for line in table.dropped],
    }
    return _divided(request, rows, classes, info)


def _features(table: Table, target: str, path: Path) -> tuple[Tensor, list[tuple[str, str | None]]]:
    """All columns but the target as float32 `(n, features)`, and the column and category of each feature."""
    features: list[Tensor] = []
    columns: list[tuple[str, str | None]] = []
    for name, column in table.columns.items():
        if name == target:
            continue
        categories = table.vocabularies.get(name)
        if categories is None:
            features.append(column[:, None].float())
        elif len(column) * len(categories) > _MOST:
            raise DataError(
                f"{path}: column {name!r} has {len(categories):,} categories in {len(column):,} rows, too many for a "
                f"column of zeros and ones each. Leave it out: csv:{path}#{target}?without={name}."
            )
        else:  # not by one_hot, whose int64 are twice as much memory
            zeros = torch.zeros(len(column), len(categories), dtype=torch.float32)
            features.append(zeros.scatter_(1, column[:, None], 1.0))
        columns += [(name, category) for category in categories or (None,)]
    if not features:
        raise DataError(f"{path} has no column but {target!r}, and so nothing to predict it from.")
    return torch.cat(features, 1), columns


def _text(request: _Request) -> Dataset:
    by = request.options.get("by", "characters")
    if by not in ("characters", "bytes"):
        raise DataError(f"{request.text!r}: text is taken by characters or by bytes, and not by {by!r}.")
    text = read_text(request.rest)
    classes = vocabulary(text) if by == "characters" else ()
    tokens = encode(text, classes or None)
    cut = len(tokens) - round(request.share(0.1) * len(tokens))
    if not 0 < cut < len(tokens):
        raise DataError(f"{request.rest} has {len(tokens)} tokens, too few to hold some out.")
    rows = {"token": tokens[:cut]}, {"token": tokens[cut:]}
    return Dataset(*rows, "language", classes, None, {"source": request.text, "by": by})


def _synthetic(request: _Request) -> Dataset:
    drawn, held = random.split(request.key)
    rows, classes = synthetic.draw(drawn, request.rest, request.options)
    if classes:
        check_labels(rows["label"], classes, request.text)
    return _divided(request._replace(key=held), rows, tuple(str(i) for i in range(classes)), {})


_SOURCES: dict[str, Callable[[_Request], Dataset]] = {
    "digits": _digits,
    **dict.fromkeys((*IDX, "cifar10"), _known),
    "folder": _folder,
    "csv": _csv,
    "text": _text,
    "synthetic": _synthetic,
}
_NEEDS = {
    "folder": "folder:PATH",
    "csv": "csv:PATH#target",
    "text": "text:PATH",
    "synthetic": "synthetic:" + "|".join(synthetic.KINDS),
}
