"""Files and folders that are written whole or not at all."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO

__all__ = ["discard", "recover", "sync_file", "sync_folder", "whole", "whole_folder"]

_numbers = count()  # two threads of one process never share a temporary name
_PARTIAL, _REPLACED = "partial", "replaced"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder, which takes the place of `path` once all is written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole(Path(folder) / "a.txt") as temporary:
    ...         _ = temporary.write_text("all of it")
    ...     os.listdir(folder)
    ['a.txt']
    """
    temporary = _hidden(path, _PARTIAL)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, which takes its place once all is written and lies on the disk.

    What was at `path` is moved aside before, and removed after: a process killed between the two renames leaves both
    under hidden names, and `recover` puts the older back.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole_folder(Path(folder) / "a") as temporary:
    ...         _ = (temporary / "b.txt").write_text("all of it")
    ...     os.listdir(folder), os.listdir(Path(folder) / "a")
    (['a'], ['b.txt'])
    """
    temporary = _hidden(path, _PARTIAL)
    aside = _hidden(path, _REPLACED)
    try:
        temporary.mkdir()
        yield temporary
        sync_folder(temporary)
        if path.exists():
            os.rename(path, aside)
        os.rename(temporary, path)
        sync_folder(path.parent)
    finally:
        _settle(aside, path)
        shutil.rmtree(temporary, ignore_errors=True)


def _settle(aside: Path, path: Path) -> None:
    """Put back what was being replaced, unless something has taken its place."""
    if aside.exists():
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.rename(aside, path)


def _hidden(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}-{next(_numbers)}.{kind}")


def sync_file(stream: IO[bytes]) -> None:
    """Have the system write a file to the disk before it is closed."""
    stream.flush()
    os.fsync(stream.fileno())


def sync_folder(path: Path) -> None:
    """Have the system write a folder's list of files to the disk."""
    if os.name == "nt":  # opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(path: Path) -> None:
    """Remove a folder so that a process killed meanwhile leaves nothing under its name."""
    aside = _hidden(path, _PARTIAL)
    os.rename(path, aside)
    shutil.rmtree(aside, ignore_errors=True)


def recover(folder: Path, prefix: str) -> None:
    """Clear what killed writers of such names left in `folder`: temporaries go, what was being replaced is put back.

    Only for one who knows that no one else is writing such names.
    """
    for left in list(folder.glob(f".{prefix}*.{_REPLACED}")):
        _settle(left, folder / left.name[1:].rsplit(".", 2)[0])
    for left in list(folder.glob(f".{prefix}*.{_PARTIAL}")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
