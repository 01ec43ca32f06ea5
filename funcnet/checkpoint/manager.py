"""The checkpoints of a run: a folder of them, of which the last and the best stay."""

import os
import re
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self

import torch

from .errors import CheckpointError, StrPath
from .files import discard, recover
from .loading import load
from .lock import FolderLock
from .manifest import Manifest, check_size, read_manifest
from .saving import prepare, write
from .writer import Writer

__all__ = ["Checkpoints", "best", "latest"]

_NAME = re.compile(r"step-(\d{8,})", re.ASCII)


class Checkpoints:
    """The checkpoints of a run in one folder, `step-00001234` each, written in the background.

    `save` returns once the tensors are copied to the host, so that a donating step may overwrite them; one is written
    at a time, and the next waits for it. An error of the writer is raised by the next call, whichever it is, and by
    `close`; that call does nothing else. The interpreter does not exit before the last one is written.

    Args:
        folder: of this run alone; made where it is not there. A second run in it is refused while the first is alive.
        keep_last: how many of the newest stay, at least 1; None keeps all.
        keep_best: how many of the best stay besides.
        best: the metric that decides which are.
        mode: whether the smallest (`"min"`) or the largest (`"max"`) of it is best.
        asynchronous: write in the background; otherwise `save` returns when all is on the disk.

    Raises:
        BlockingIOError: another run uses the folder.
        OSError: the folder cannot be made or written to.

    >>> import tempfile
    >>> temporary = tempfile.TemporaryDirectory()
    >>> with Checkpoints(temporary.name, keep_last=1, keep_best=1) as checkpoints:
    ...     for step, loss in enumerate([0.5, 0.1, 0.3, 0.2]):
    ...         _ = checkpoints.save({"w": torch.full((2,), step)}, step, metrics={"loss": loss})
    ...     [path.name for path in checkpoints.all()], checkpoints.best().name
    ...     tree, manifest = checkpoints.restore({"w": torch.zeros(2, dtype=torch.int64)})
    (['step-00000001', 'step-00000003'], 'step-00000001')
    >>> tree["w"], manifest.step
    (tensor([3, 3]), 3)
    >>> temporary.cleanup()
    """

    def __init__(
        self,
        folder: StrPath,
        *,
        keep_last: int | None = 3,
        keep_best: int = 0,
        best: str = "loss",
        mode: Literal["min", "max"] = "min",
        asynchronous: bool = True,
    ) -> None:
        """Take the folder, and clear what a killed run left half written in it."""
        if (keep_last is not None and keep_last < 1) or keep_best < 0:
            raise ValueError(
                f"Checkpoints keeps at least the newest: keep_last={keep_last} must be 1 or more, or None for all, and "
                f"keep_best={keep_best} 0 or more."
            )
        if mode not in ("min", "max"):
            raise ValueError(f"mode is 'min' or 'max', not {mode!r}: whether the smallest {best!r} is the best.")
        self.folder = Path(folder)
        self._keep_last, self._keep_best = keep_last, keep_best
        self._best, self._sign = best, 1 if mode == "min" else -1
        self._asynchronous = asynchronous
        self._calls = threading.RLock()
        self._process = os.getpid()
        self._writer = Writer()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FolderLock(self.folder)
        except BlockingIOError:
            raise
        except OSError as error:
            raise OSError(
                error.errno, f"no checkpoints can be kept in {self.folder} ({error.strerror}): choose another folder"
            ) from error
        # Also where the object is dropped without close, and at exit, after the writer's thread was waited for.
        self._finish = weakref.finalize(self, _finish, self._writer, lock)
        recover(self.folder, "step-")

    def __enter__(self) -> Self:
        """Itself; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def save(
        self,
        tree: Any,
        step: int,
        *,
        metrics: Mapping[str, Any] | None = None,
        position: Any = None,
        extra: Any = None,
    ) -> Path:
        """Save a tree as `step-...`, in place of one of the same step; arguments as in `checkpoint.save`.

        Returns the folder where it will be. Older ones that are neither among the last nor the best are then removed.
        """
        with self._open():
            if self._keep_best and metrics and self._best not in metrics:
                near = get_close_matches(self._best, list(metrics), 1, 0.5) or list(metrics)[:1]
                raise ValueError(
                    f"the best are kept by {self._best!r}, which is not in metrics {sorted(metrics)}: write "
                    f"Checkpoints(..., best={near[0]!r}), or leave metrics out."
                )
            target = self.folder / f"step-{step:08d}" if type(step) is int else self.folder
            prepared = prepare(
                tree, step=step, position=position, metrics=metrics, extra=extra, copy=self._asynchronous
            )

            prune = self._pruning()

            def work() -> None:
                write(prepared, target)
                prune(target)

            if self._asynchronous:
                self._writer.start(work)
            else:
                work()
            return target

    def all(self) -> list[Path]:
        """The complete checkpoints, the oldest first; a warning names those that are not."""
        with self._open():
            return [manifest.folder for _, manifest in _complete(self.folder, _warn)]

    def latest(self) -> Path | None:
        """The newest complete checkpoint, or None."""
        complete = self.all()
        return complete[-1] if complete else None

    def best(self) -> Path | None:
        """The best complete checkpoint by its metric, the newer of equals; None where none has a number for it."""
        with self._open():
            ranked = _ranked(_complete(self.folder, _warn), self._best, self._sign)
            return ranked[0] if ranked else None

    def restore(self, like: Any = None, *, device: torch.device | str | None = None) -> tuple[Any, Manifest] | None:
        """The tree and manifest of the newest checkpoint that is whole, or None where there is none at all.

        Arguments as in `checkpoint.load`. One that turns out broken is named in a warning, and the one before is taken.

        Raises:
            CheckpointError: there are some, and all are broken.
            TreeMismatchError: the newest does not fit `like`.
        """
        with self._open():
            for _, manifest in reversed(_complete(self.folder, _warn)):
                try:
                    return load(manifest.folder, like, device=device), manifest
                except CheckpointError as error:
                    _warn(error)
            broken = [path.name for _, path in _steps(self.folder)]
            if broken:
                raise CheckpointError(
                    f"none of the checkpoints in {self.folder} can be used ({', '.join(broken)}): see the warnings "
                    "before this. Start again in another folder."
                )
            return None

    def wait(self) -> None:
        """Wait until what was saved is on the disk, and raise what went wrong."""
        with self._open():
            pass

    def close(self) -> None:
        """Wait for the writer, give the folder free, and raise what went wrong. Closing twice is no error."""
        with self._calls:
            try:
                self._writer.wait()
            finally:
                self._finish()

    def _open(self) -> Any:
        """The lock of this object's calls, once the writer is done; its error is raised here."""
        if self._process != os.getpid():
            raise RuntimeError("Checkpoints belongs to the process that made it: make another after a fork.")
        with self._calls:
            if not self._finish.alive:
                raise ValueError(f"the checkpoints of {self.folder} were closed: make Checkpoints(folder) again.")
            self._writer.wait()
        return self._calls

    def _pruning(self) -> Callable[[Path], None]:
        """Removes what need not stay. It holds no reference to this object, which may be dropped meanwhile."""
        folder, last, best, metric, sign = self.folder, self._keep_last, self._keep_best, self._best, self._sign

        def prune(newest: Path) -> None:
            if last is None:
                return
            complete = _complete(folder, lambda _: None)
            stay = {manifest.folder for _, manifest in complete[-last:]} | {newest}
            stay.update(_ranked(complete, metric, sign)[:best])
            for _, manifest in complete:
                if manifest.folder not in stay:
                    discard(manifest.folder)

        return prune


def _finish(writer: Writer, lock: FolderLock) -> None:
    writer.finish()
    lock.release()


def latest(folder: StrPath) -> Path | None:
    """The newest complete checkpoint in the folder of a run, or None; a run that is alive is not disturbed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Checkpoints(folder) as checkpoints:
    ...         _ = checkpoints.save({}, 12)
    ...         checkpoints.wait()
    ...         latest(folder).name
    'step-00000012'
    """
    complete = _complete(Path(folder), _warn)
    return complete[-1][1].folder if complete else None


def best(folder: StrPath, metric: str, mode: Literal["min", "max"] = "min") -> Path | None:
    """The best complete checkpoint in the folder of a run by a metric, the newer of equals; None where none has it.

    Like `latest` it disturbs no run that is alive.
    """
    ranked = _ranked(_complete(Path(folder), _warn), metric, 1 if mode == "min" else -1)
    return ranked[0] if ranked else None


def _warn(error: CheckpointError) -> None:
    warnings.warn(f"a checkpoint is passed over: {error}", UserWarning, stacklevel=4)


def _steps(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints by name, complete or not, the oldest first."""
    named = ((_NAME.fullmatch(path.name), path) for path in folder.glob("step-*"))
    return sorted((int(hit[1]), path) for hit, path in named if hit)


def _complete(folder: Path, broken: Callable[[CheckpointError], None]) -> list[tuple[int, Manifest]]:
    """The checkpoints whose manifest is valid and whose file has its size, the oldest first."""
    found = []
    for step, path in _steps(folder):
        try:
            manifest = read_manifest(path)
            check_size(manifest)
            if manifest.step != step:
                raise CheckpointError(f"{path} says that it is of step {manifest.step}: it was renamed.")
        except CheckpointError as error:
            if path.exists():  # else a run that goes on has removed it just now
                broken(error)
        else:
            found.append((step, manifest))
    return found


def _ranked(complete: list[tuple[int, Manifest]], metric: str, sign: int) -> list[Path]:
    """The best first, the newer of equals; without those that have no number."""
    scored = [
        (sign * value, -step, manifest.folder)
        for step, manifest in complete
        if (value := manifest.metrics.get(metric)) is not None and value == value
    ]
    return [path for _, _, path in sorted(scored)]
