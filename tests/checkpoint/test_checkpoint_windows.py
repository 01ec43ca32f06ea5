"""The lock of a folder as Windows has it, as far as another system shows: open files stay, handles tell who lives."""

import ctypes
import json
import socket

import pytest

from funcnet.checkpoint import lock
from funcnet.checkpoint.lock import FolderLock

RUNNING, OVER, ANOTHERS, NONE = 41, 42, 43, 44
STILL_ACTIVE, ACCESS_DENIED, INVALID_PARAMETER = 259, 5, 87


class Kernel:
    """The calls of kernel32, by their documentation: a process that is over keeps its number while a handle is open."""

    def __init__(self):
        self.open, self.error = set(), 0

        def open_process(access, inherit, pid):
            self.error = {ANOTHERS: ACCESS_DENIED, NONE: INVALID_PARAMETER}.get(pid, 0)
            self.open |= set() if self.error else {pid}
            return None if self.error else pid

        self.OpenProcess = open_process

    def GetExitCodeProcess(self, handle, code):  # noqa: N802 - Windows' own name
        assert handle.value in self.open
        code._obj.value = STILL_ACTIVE if handle.value == RUNNING else 1
        return 1

    def CloseHandle(self, handle):  # noqa: N802
        self.open.remove(handle.value)


@pytest.fixture
def kernel(monkeypatch):
    kernel = Kernel()
    monkeypatch.setattr(lock, "_WINDOWS", True)
    monkeypatch.setattr(lock.os, "kill", lambda *_: pytest.fail("this would interrupt the process"))
    monkeypatch.setattr(ctypes, "WinDLL", lambda name, use_last_error: kernel, raising=False)
    monkeypatch.setattr(ctypes, "get_last_error", lambda: kernel.error, raising=False)
    return kernel


def text(pid):
    return json.dumps({"pid": pid, "host": socket.gethostname(), "started": None})


@pytest.mark.parametrize("pid", [RUNNING, ANOTHERS])
def test_a_run_that_lives_holds_its_folder(tmp_path, kernel, pid):
    (tmp_path / ".lock").write_text(text(pid))
    with pytest.raises(BlockingIOError, match=f"in use by process {pid}"):
        FolderLock(tmp_path)
    assert not kernel.open


@pytest.mark.parametrize("pid", [OVER, NONE])
def test_a_run_that_was_killed_does_not(tmp_path, kernel, pid):
    (tmp_path / ".lock").write_text(text(pid))
    FolderLock(tmp_path)
    assert str(pid) not in (tmp_path / ".lock").read_text().split(",")[0]
    assert not kernel.open


def test_a_folder_is_given_back_without_removing_an_open_file(tmp_path, kernel, monkeypatch):
    def refuse(path):
        raise PermissionError(f"{path} is in use by another process")

    monkeypatch.setattr(lock.Path, "unlink", refuse)
    held = FolderLock(tmp_path)
    held.release()
    assert (tmp_path / ".lock").read_bytes() == b""
    held.release()
    FolderLock(tmp_path).release()
