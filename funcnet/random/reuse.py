"""Find a key that is drawn from twice."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from funcnet import _compat

__all__ = ["KeyReuseError", "check_reuse", "consume", "watching"]

# One dict from key words to the call site that consumed them, per `check_reuse` block open on this thread.
_local = threading.local()
# How many blocks are open on all threads: the only thing a draw looks at when nothing is checked.
_open = 0
_lock = threading.Lock()


class KeyReuseError(RuntimeError):
    """A key was drawn from, or split, a second time."""


def watching() -> bool:
    """Whether any thread has a `check_reuse` block open."""
    return _open > 0


def _call_site() -> str:
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("funcnet", "torch"):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def consume(key: Tensor, by: str) -> None:
    """Record that `by` used `key` up; raise `KeyReuseError` when something already has."""
    blocks: list[dict[tuple[int, ...], tuple[str, str]]] = getattr(_local, "blocks", [])
    if not blocks or not _compat.readable(key):
        return
    value = tuple(key.tolist())
    site = _call_site()
    for used in blocks:
        if value in used:
            first, first_site = used[value]
            raise KeyReuseError(
                f"The key {value} is used twice: first by random.{first} at {first_site}, now by random.{by} at "
                f"{site}. Two draws from one key are the same numbers. "
                "Write `key, sub = random.split(key)` before the second "
                "and draw from `sub`, or give each draw `random.fold_in(key, i)`."
            )
    for used in blocks:
        used[value] = (by, site)


@contextmanager
def check_reuse() -> Iterator[None]:
    """Inside this block a key value that was already drawn from or split raises `KeyReuseError`.

    A key is recognised by its two words, so a copy of it counts as the key. `fold_in` does not use its key up (many
    folds of one key are the way to name many streams), but each result may be used once. The check is for the thread
    that opened it and for plain eager calls: a key that is batched by `vmap`, wrapped by another transform or traced
    by a compiler has no value to look at, and passes. Outside the block a draw pays for one comparison.

    Raises: `KeyReuseError`, naming both places.

    >>> from funcnet import random
    >>> with random.check_reuse():
    ...     k = random.key(0)
    ...     x = random.normal(k, (2,))
    ...     try:
    ...         y = random.normal(k, (2,))
    ...     except random.KeyReuseError as error:
    ...         print(str(error)[:28])
    The key (0, 0) is used twice
    """
    global _open
    blocks = _local.__dict__.setdefault("blocks", [])
    blocks.append({})
    with _lock:
        _open += 1
    try:
        yield
    finally:
        with _lock:
            _open -= 1
        blocks.pop()
