"""The data of a run: rows for training and for evaluation, and what must be known of them to use a model later."""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from funcnet import data, random, tree
from funcnet.data import DataError
from funcnet.data.dataset import Kind, check_labels
from funcnet.runs.config import Config
from funcnet.runs.errors import RunError, refusing
from funcnet.train.feed import Batches

__all__ = ["Facts", "Rows", "absolute", "load", "windows"]

_VERSION = 2


class Facts(NamedTuple):
    """What a model must be told of its data, in plain values."""

    kind: Kind
    shape: tuple[int, ...]
    """Of one row of `x`: `(features,)`, `(channels, height, width)`, or `(length,)` of text."""
    classes: tuple[str, ...]
    """Names of the classes, or the vocabulary; none where a number is predicted, or bytes."""
    mean: tuple[float, ...] = ()
    """Of each feature or channel of the training set; none of text."""
    std: tuple[float, ...] = ()
    target: tuple[float, float] = (0.0, 1.0)
    """Mean and standard deviation of the numbers that are predicted."""
    columns: tuple[tuple[str, str | None], ...] = ()
    """Of a table: the column of each feature, and its category where it is one."""
    source: str = ""
    header: bool | None = None
    """Of a table: whether its first line was said to name the columns."""
    rows: tuple[int, int] = (0, 0)
    """How many to train on and to test; of text how many tokens."""

    @property
    def outputs(self) -> int:
        """How many numbers come out of the model: for a row, or for each token."""
        return 1 if self.kind == "regression" else len(self.classes) or 256

    @property
    def best(self) -> tuple[str, Literal["min", "max"]]:
        """The metric by which the best checkpoint is chosen, and which way is better."""
        return ("test_accuracy", "max") if self.kind == "classification" else ("test_loss", "min")

    @property
    def told(self) -> str:
        """The rows, for a message."""
        if self.kind == "language":
            return f"text of {self.outputs} {'characters' if self.classes else 'bytes'} in windows of {self.shape[0]}"
        what = "x".join(map(str, self.shape))
        rows = f"pictures of {what}" if len(self.shape) == 3 else f"rows of {what} features"
        return f"{rows}, {self.outputs} classes" if self.kind == "classification" else f"{rows}, and a number for each"

    def differing(self, other: "Facts") -> str:
        """What other data has not as this, wherever the two lie; empty where they are the same.

        >>> Facts("language", (8,), (), rows=(90, 10)).differing(Facts("language", (8,), (), rows=(99, 11)))
        'its rows: (90, 10) then, (99, 11) now'
        """
        for name in ("rows", *self._fields):  # more rows change all else
            mine, theirs = getattr(self, name), getattr(other, name)
            if name == "source" or mine == theirs:
                continue
            scale = self.target[1:] * 2 if name == "target" else self.std
            if name not in _MEASURED or not _close(mine, theirs, scale):
                return f"its {name}: {mine!r:.200} then, {theirs!r:.200} now"
        return ""

    def to_json(self) -> str:
        """As a file has it."""
        return json.dumps({"version": _VERSION, **self._asdict()}, indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> "Facts":
        """The facts in a file.

        Raises:
            RunError: it cannot be read, or is not what `to_json` gives.
        """
        try:
            found = json.loads(path.read_bytes())
            if found.pop("version") == _VERSION and found.keys() == set(cls._fields):
                return cls(**{name: _tuples(value) for name, value in found.items()})
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror or error}.") from error
        except (ValueError, AttributeError, KeyError, TypeError):
            pass
        raise RunError(f"{path} is not what a run of this version writes: it was cut short or edited.")


# Means and deviations, whose last bits depend on threads and devices.
_MEASURED = ("mean", "std", "target")


def _close(mine: tuple[float, ...], theirs: tuple[float, ...], scale: tuple[float, ...]) -> bool:
    """Whether these agree, relative to themselves or to the deviations: a mean may be as good as 0."""
    return len(mine) == len(theirs) == len(scale) and all(
        math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-4 * unit) for a, b, unit in zip(mine, theirs, scale, strict=True)
    )


def _tuples(value: Any) -> Any:
    """What JSON has as lists."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


class Rows(NamedTuple):
    """The data of a run, on its device."""

    facts: Facts
    train: dict[str, Tensor]
    """`x` and `label`; of text `token`, one long row."""
    test: dict[str, Tensor]
    """`x` and `label`, windows of text as well."""
    skipped: int
    """How many pictures or lines could not be read."""

    @property
    def per_epoch(self) -> int:
        """How many rows an epoch has; of text fewer by the one that is lost where windows begin elsewhere."""
        if self.facts.kind == "language":
            return (len(self.train["token"]) - 1) // self.facts.shape[0] - 1
        return len(self.train["label"])

    def batches(self, key: Tensor, size: int) -> Batches:
        """What `fit` takes its batches from. Text is cut into windows at another place each epoch."""
        if self.facts.kind != "language":
            return data.stream(key, self.train, size)
        length = self.facts.shape[0]

        def epoch(number: int) -> Iterable[Any]:
            start_key, own = random.split(random.fold_in(key, number))
            start = int(random.randint(start_key, (), 0, length))
            tokens = self.train["token"][start : start + self.per_epoch * length + 1]
            return data.batches(own, data.chunks(tokens, length), size)

        return epoch


def windows(tokens: Tensor, length: int) -> dict[str, Tensor]:
    """A text cut into windows one after the other, as rows."""
    cut = data.chunks(tokens, length)
    return {"x": cut["x"], "label": cut["label"]}


def absolute(name: str) -> str:
    """The name of data with its path made absolute, so that it is found from any folder."""
    kind, colon, rest = name.partition(":")
    if kind not in ("folder", "csv", "text") or not rest:
        return name
    path, mark, column = rest.rpartition("#") if kind == "csv" and "#" in rest else (rest, "", "")
    return f"{kind}{colon}{os.path.abspath(os.path.expanduser(path))}{mark}{column}"


def load(config: Config, device: torch.device, *, vocabulary: tuple[str, ...] | None = None) -> Rows:
    """The data that a config names.

    Args:
        config: whose settings of data count alone.
        device: where to.
        vocabulary: of text, that of a model, without one bytes; None takes what the data is named with.

    Raises:
        DataError: there is none of this name, or it cannot be read.
        RunError: an option does not fit it.
    """
    with refusing("--data"):
        try:
            found = data.load(
                config.data,
                root=config.root,
                download=config.download,
                size=_size(config.size),
                skip_bad=config.skip_bad,
            )
        except DataError as error:
            raise RunError(str(error)) from error
    train, test = dict(found.train), dict(found.test)
    source = str(found.info.get("source", config.data))
    skipped = len(found.info.get("skipped", ()))
    if found.kind == "language":
        classes = found.classes if vocabulary is None else vocabulary
        if classes != found.classes:
            train["token"], test["token"] = _again(train["token"], test["token"], found.classes, classes)
        counts = len(train["token"]), len(test["token"])
        facts = Facts("language", (config.length,), classes, source=source, rows=counts)
        if min(counts) <= 2 * config.length:
            shorter = f"write --length {max(1, (min(counts) - 1) // 2)} or less"
            raise RunError(
                f"{config.data!r} has {min(counts):,} tokens in its smaller part, too few for windows of "
                f"{config.length}: {shorter if vocabulary is None else 'take a longer text'}."
            )
        test = windows(test["token"], config.length)
    else:
        facts = _facts(found, source)
        for part, rows in (("training set", train), ("test set", test)):
            if found.kind == "classification":
                check_labels(rows["label"], len(found.classes), f"{config.data}, {part}")
    put = [tree.map(lambda leaf: leaf.to(device), rows) for rows in (train, test)]
    return Rows(facts, put[0], put[1], skipped)


def _again(train: Tensor, test: Tensor, theirs: tuple[str, ...], ours: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """The two parts of a text by another vocabulary, as it would cut the whole: a character may be several bytes."""
    whole = torch.cat([train, test])
    tokens = data.encode(data.decode(whole, theirs or None), ours or None)
    held = round(len(tokens) * len(test) / len(whole))
    return tokens[: len(tokens) - held], tokens[len(tokens) - held :]


def _facts(found: data.Dataset, source: str) -> Facts:
    statistics = found.statistics or data.statistics(found.train["x"])
    target = (0.0, 1.0)
    if found.kind == "regression":
        label = found.train["label"].double()
        deviation = label.std(correction=0).item()
        target = (label.mean().item(), deviation if deviation > 0 else 1.0)
    return Facts(
        found.kind,
        tuple(found.train["x"].shape[1:]),
        tuple(found.classes),
        tuple(statistics.mean.tolist()),
        tuple(statistics.std.tolist()),
        target,
        tuple(found.info.get("columns", ())),
        source,
        found.info.get("header"),
        (len(found.train["x"]), len(found.test["x"])),
    )


def _size(text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdecimal() and 0 < int(side) < 2**20 for side in sides):
        raise RunError(f"size is {text!r}: write 64, or height and width as 48x64.")
    numbers = [int(side) for side in sides]
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])
