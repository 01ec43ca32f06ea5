"""Text as integers, by characters or by bytes, and windows of it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from funcnet import random
from funcnet.data.errors import DataError

__all__ = ["Window", "chunks", "decode", "encode", "read_text", "vocabulary", "windows"]


class Window(TypedDict):
    """Stretches of text, each with the token that follows each of its tokens."""

    x: Tensor
    """Integers `(batch, length)`."""
    label: Tensor
    """Integers `(batch, length)`: `x` one further."""


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file in UTF-8, its line ends as they are, without a byte order mark.

    Raises:
        DataError: it cannot be read, is empty, or is no UTF-8.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: byte {error.start} is no UTF-8. Convert the file to UTF-8.") from error
    if not text:
        raise DataError(f"{path} is empty.")
    return text


def vocabulary(text: str) -> tuple[str, ...]:
    """The distinct characters of a text, sorted by code point.

    >>> vocabulary("abba!")
    ('!', 'a', 'b')
    """
    return tuple(sorted(set(text)))


def encode(text: str, vocabulary: Sequence[str] | None = None) -> Tensor:
    """A text as int64 `(n,)`: each character's place in the vocabulary, or the bytes of its UTF-8 without one.

    Raises:
        DataError: a character is not in the vocabulary; the message has its place.

    >>> encode("abba", ("a", "b")), encode("é")
    (tensor([0, 1, 1, 0]), tensor([195, 169]))
    """
    if vocabulary is None:
        return torch.from_numpy(np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int64))
    known = _points("".join(vocabulary))
    if len(known) != len(vocabulary):
        raise ValueError("vocabulary has an entry that is no single character; it is what data.vocabulary(text) gives.")
    order = np.argsort(known, kind="stable")
    points = _points(text)
    places = np.searchsorted(known[order], points).clip(max=max(0, len(known) - 1))
    wrong = np.flatnonzero(known[order][places] != points) if len(known) else np.arange(len(points))
    if len(wrong):
        at = int(wrong[0])
        raise DataError(
            f"the character {text[at]!r} at place {at} is not in the vocabulary of {len(vocabulary)} characters. Make "
            f"the vocabulary of all text: data.vocabulary(text)."
        )
    return torch.from_numpy(order[places].astype(np.int64))


def decode(tokens: Tensor, vocabulary: Sequence[str] | None = None) -> str:
    """The text of integers `(n,)`: the inverse of `encode`. Bytes that are no UTF-8 become the sign U+FFFD.

    Raises:
        DataError: an integer is beyond the vocabulary, or no byte.

    >>> decode(torch.tensor([0, 1, 1, 0]), ("a", "b"))
    'abba'
    """
    numbers = tokens.tolist()
    size = 256 if vocabulary is None else len(vocabulary)
    for at, number in enumerate(numbers):
        if not 0 <= number < size:
            raise DataError(f"token {number} at place {at} is outside 0 to {size - 1}.")
    if vocabulary is None:
        return bytes(numbers).decode("utf-8", "replace")
    return "".join([vocabulary[number] for number in numbers])


def windows(key: Tensor, tokens: Tensor, length: int, batch: int) -> Window:
    """Windows of a text whose places are drawn by `key`, evenly and independently. It compiles.

    Args:
        key: int32 `(2,)`.
        tokens: integers `(n,)`.
        length: tokens a window.
        batch: how many.

    Raises:
        ValueError: `length` or `batch` is not positive, or the text has no `length + 1` tokens.

    >>> drawn = windows(random.key(0), torch.arange(100), 4, 2)
    >>> drawn["x"].shape, torch.equal(drawn["label"], drawn["x"] + 1)
    (torch.Size([2, 4]), True)
    """
    _check(tokens, length)
    if batch <= 0:
        raise ValueError(f"batch is {batch}; it counts windows and must be positive.")
    starts = random.randint(key, (batch,), 0, len(tokens) - length).to(tokens.device)
    rows = tokens[starts[:, None] + torch.arange(length + 1, device=tokens.device)]
    return {"x": rows[:, :-1], "label": rows[:, 1:]}


def chunks(tokens: Tensor, length: int) -> Window:
    """A text cut into windows one after the other, each of its tokens predicted once: rows for `batches` and `stream`.

    Args:
        tokens: integers `(n,)`.
        length: tokens a window; up to `length` at the end that fill none are left out.

    Returns: windows of shape `((n - 1) // length, length)`.

    Raises:
        ValueError: `length` is not positive, or the text has no `length + 1` tokens.

    >>> chunks(torch.arange(6), 2)["label"]
    tensor([[1, 2],
            [3, 4]])
    """
    _check(tokens, length)
    end = (len(tokens) - 1) // length * length
    return {"x": tokens[:end].reshape(-1, length), "label": tokens[1 : end + 1].reshape(-1, length)}


def _check(tokens: Tensor, length: int) -> None:
    if tokens.ndim != 1 or tokens.is_floating_point():
        raise ValueError(f"tokens is {tokens.dtype} of shape {tuple(tokens.shape)}; it is one text, integers (n,).")
    if length <= 0:
        raise ValueError(f"length is {length}; it counts the tokens of a window and must be positive.")
    if len(tokens) <= length:
        raise ValueError(
            f"length is {length} and the text has {len(tokens)} tokens; a window needs one more than its length, for "
            f"the last label. Take a shorter length."
        )


def _points(text: str) -> "np.ndarray[tuple[int], np.dtype[np.uint32]]":
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))
