"""One run a folder: a lock file that outlives no process."""

import ctypes
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .text import parsed

__all__ = ["FolderLock"]

_NAME = ".lock"
_WINDOWS = os.name == "nt"


class FolderLock:
    """Holds a folder for this process until `release`, or until the process is dead.

    Raises `BlockingIOError` where another run holds it, naming that one; a lock whose process is dead is taken over.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lock = FolderLock(Path(folder))
    ...     try:
    ...         FolderLock(Path(folder))
    ...     except BlockingIOError:
    ...         print("held")
    ...     lock.release()
    ...     FolderLock(Path(folder)).release()
    held
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock of an existing folder."""
        self.path = folder / _NAME
        self._owner = _identity(os.getpid())
        with self._guarded() as descriptor:
            holder = _read(descriptor, self.path)
            if _alive(holder):
                here = "this process itself" if holder == self._owner else f"process {holder['pid']}"
                raise BlockingIOError(
                    f"{folder} is in use by {here} on {holder['host']}: two runs would remove each other's "
                    f"checkpoints. Close that one, or take another folder; if it is over for certain, delete "
                    f"{self.path}."
                )
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, json.dumps(self._owner).encode())

    def release(self) -> None:
        """Give the folder back; nothing in a process that was forked from the one that took it, or a second time."""
        with suppress(FileNotFoundError), self._guarded(create=False) as descriptor:
            if _read(descriptor, self.path) == self._owner == _identity(os.getpid()):
                if _WINDOWS:  # where no open file can be removed: an empty one is nobody's
                    os.ftruncate(descriptor, 0)
                else:
                    self.path.unlink()

    @contextmanager
    def _guarded(self, create: bool = True) -> Iterator[int]:
        """The lock file, open, while no one else reads or writes it."""
        while True:
            descriptor = os.open(self.path, os.O_RDWR | (os.O_CREAT if create else 0), 0o644)
            try:
                _hold(descriptor)
                with suppress(FileNotFoundError):
                    # It may have been removed while we waited: then the one that holds counts for nobody.
                    if os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                        yield descriptor
                        return
            finally:
                os.close(descriptor)


def _hold(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: the moment between reading and writing the file stays unguarded
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def _identity(pid: int) -> dict[str, Any]:
    return {"pid": pid, "host": socket.gethostname(), "started": _started(pid)}


def _started(pid: int) -> str | None:
    """When a process began, in the kernel's ticks: a number that is used again belongs to another process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields[19] if fields[0] not in "ZX" else "over, though its parent has not asked"


def _read(descriptor: int, path: Path) -> Any:
    try:
        return parsed(os.read(descriptor, 1 << 16), path, "the lock")
    except ValueError:
        return None  # fresh, or its writer died: no one else can be writing now


def _alive(holder: Any) -> bool:
    match holder:
        case {"pid": int(pid), "host": str(host), "started": started} if pid > 0:
            pass
        case _:
            return False
    if host != socket.gethostname():
        return True  # we cannot know
    if _WINDOWS:
        return _alive_on_windows(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    now = _started(pid)
    return started is None or now is None or now == started


def _alive_on_windows(pid: int) -> bool:
    """Whether a process runs, where `os.kill(pid, 0)` would interrupt it."""
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]  # on Windows alone
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(kernel.OpenProcess(0x1000, False, pid))  # PROCESS_QUERY_LIMITED_INFORMATION
    if not handle:
        return bool(ctypes.get_last_error() == 5)  # type: ignore[attr-defined]  # ERROR_ACCESS_DENIED: it is another's
    code = ctypes.c_ulong()
    known = kernel.GetExitCodeProcess(handle, ctypes.byref(code))
    kernel.CloseHandle(handle)
    return not known or code.value == 259  # STILL_ACTIVE
