"""`funcnet predict`: what a trained model says of pictures, rows of a table, or the beginning of a text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from funcnet import data, random
from funcnet.data.images import SUFFIXES, read_picture
from funcnet.data.tables import Table, read_table
from funcnet.runs.errors import RunError
from funcnet.runs.rows import Facts
from funcnet.runs.trained import Trained

__all__ = ["continued", "predict"]


def predict(found: Trained, inputs: Sequence[str], top: int) -> list[dict[str, Any]]:
    """Predictions of a classifier or a regression, one for each picture or row.

    Args:
        found: the model.
        inputs: files of pictures and folders of them, or CSV files.
        top: how many of the likeliest classes to tell.

    Returns: for each a dict of `input`, and `class` with `probability` and `top`, or `value`.

    Raises:
        RunError: an input is not what the model was trained on.
        DataError: one cannot be read.
    """
    facts = found.task.facts
    names, x = _pictures(inputs, facts) if len(facts.shape) == 3 else _tables(inputs, facts)
    output = found.output(x.to(found.ts.step.device)).cpu()
    if facts.kind == "regression":
        return [{"input": name, "value": value} for name, value in zip(names, output.tolist(), strict=True)]
    shares, places = output.double().softmax(-1).topk(min(top, len(facts.classes)))
    told = []
    for name, each, at in zip(names, shares.tolist(), places.tolist(), strict=True):
        ranked = {facts.classes[place]: share for place, share in zip(at, each, strict=True)}
        told.append({"input": name, "class": facts.classes[at[0]], "probability": each[0], "top": ranked})
    return told


def _pictures(inputs: Sequence[str], facts: Facts) -> tuple[list[str], Tensor]:
    files: list[Path] = []
    for path in map(Path, inputs):
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise RunError(f"{path} has no pictures ({' '.join(sorted(SUFFIXES))}).")
        files += inside
    channels, height, width = facts.shape
    pictures = torch.stack([read_picture(file, (height, width)) for file in files])
    if channels == 1:
        pictures = data.augment.grayscale(random.key(0), pictures, p=1.0)[:, :1]
    elif channels != 3:
        raise RunError(f"the model was trained on pictures of {channels} channels, and files have 3.")
    return [str(file) for file in files], pictures


def _tables(inputs: Sequence[str], facts: Facts) -> tuple[list[str], Tensor]:
    if not facts.columns:
        raise RunError(f"the model was trained on {facts.source}, whose columns have no names: predict in Python.")
    wanted = list(dict.fromkeys(name for name, _ in facts.columns))
    known: dict[str, list[str]] = {}
    for name, category in facts.columns:
        if category is not None:
            known.setdefault(name, []).append(category)
    names: list[str] = []
    parts: list[Tensor] = []
    for path in map(Path, inputs):
        table = read_table(path, header=facts.header, columns=wanted, categorical=list(known))
        for name, words in table.vocabularies.items():
            if name not in known:
                raise RunError(f"{path}: column {name!r} has words, such as {words[0]!r}, and no numbers.")
            unknown = sorted(set(words) - set(known[name]))
            if unknown:
                raise RunError(
                    f"{path}: column {name!r} has the category {unknown[0]!r}, and the model knows "
                    f"{', '.join(known[name])}."
                )
        features = [_feature(table, name, category) for name, category in facts.columns]
        parts.append(torch.stack(features, 1).float())
        names += [f"{path}, row {i + 1}" for i in range(len(parts[-1]))]
    return names, torch.cat(parts)


def _feature(table: Table, name: str, category: str | None) -> Tensor:
    """float64 `(n,)`: a column of numbers, or where a column has a category, which need not be in this file."""
    column = table.columns[name]
    if category is None:
        return column
    words = table.vocabularies[name]
    return (column == (words.index(category) if category in words else -1)).double()


def continued(found: Trained, prompt: str, tokens: int, temperature: float, key: Tensor) -> str:
    """How a language model goes on after the beginning of a text.

    Args:
        found: the model.
        prompt: the beginning, of characters that it knows.
        tokens: how many to add.
        temperature: 0 takes the likeliest each time, 1 draws as likely as the model says, more draws wilder.
        key: int32 `(2,)`; token `i` draws from `fold_in(key, i)`.

    Raises:
        DataError: the prompt has a character that the training text had not.
        RunError: it is empty.
    """
    facts = found.task.facts
    if not prompt:
        raise RunError("the prompt is empty: give the beginning of a text.")
    device = found.ts.step.device
    written = data.encode(prompt, facts.classes or None)
    for i in range(tokens):
        window = written[-facts.shape[0] :].to(device)[None]
        logits = found.following(window)[0].double().cpu()
        drawn = random.categorical(random.fold_in(key, i), logits / temperature) if temperature else logits.argmax()
        written = torch.cat([written, drawn.long()[None]])
    return data.decode(written, facts.classes or None)
