"""Writing a checkpoint: a folder with a file of tensors and a manifest."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import StrPath
from .files import sync_file, whole_folder
from .manifest import MANIFEST, TENSORS, compose, dumped
from .structure import describe
from .tensorfile import CODES, chunks, written

__all__ = ["Prepared", "prepare", "save", "write"]


@dataclass(frozen=True)
class Prepared:
    """All that goes into a checkpoint."""

    tensors: Mapping[str, Tensor]
    manifest: Mapping[str, Any]


def save(
    folder: StrPath,
    tree: Any,
    *,
    step: int | None = None,
    position: Any = None,
    metrics: Mapping[str, Any] | None = None,
    extra: Any = None,
) -> Path:
    """Save a tree as the folder `folder`, which holds `tensors.safetensors` and `manifest.json`.

    It is written under a hidden name beside the target, synced to the disk and renamed: there is the whole checkpoint
    or none, and a checkpoint that is there already is replaced only once the new one is complete. Tensors may lie on
    any device and in any layout; those that share memory are written each for itself.

    Args:
        folder: where to; folders above it are made.
        tree: tensors, numbers and strings in dicts, lists, tuples, NamedTuples and registered dataclasses.
        step: the number of steps done.
        position: where the data is, in JSON's terms; it comes back from `read_manifest`.
        metrics: numbers by name.
        extra: anything else in JSON's terms.

    Returns:
        The folder.

    Raises:
        TypeError: a leaf, named by its path, that no file can hold, or a position that JSON cannot.
        FileExistsError: `folder` holds something else than a checkpoint.
        OSError: a full disk, an unwritable folder; what was there before is as it was.

    >>> import tempfile
    >>> from funcnet.checkpoint import load
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save(f"{folder}/first", {"w": torch.ones(2), "heads": (2, None)}, step=1)
    ...     load(path)
    {'w': tensor([1., 1.]), 'heads': (2, None)}
    """
    return write(prepare(tree, step=step, position=position, metrics=metrics, extra=extra), folder)


def prepare(
    tree: Any,
    *,
    step: int | None = None,
    position: Any = None,
    metrics: Mapping[str, Any] | None = None,
    extra: Any = None,
    copy: bool = False,
) -> Prepared:
    """What `save` would write; with `copy` in memory of its own on the host, so that the tree's may be overwritten."""
    node, tensors = describe(tree)
    manifest = compose(tensors, node, step, position, metrics or {}, extra)
    if copy:
        with torch.no_grad():
            tensors = {path: _copied(tensor) for path, tensor in tensors.items()}
    return Prepared(tensors, manifest)


def _copied(tensor: Tensor) -> Tensor:
    if tensor.dtype not in CODES.values() and not tensor.is_complex() and tensor.numel():
        # torch copies no integers of less than a byte, but their bytes.
        raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8).to("cpu", copy=True)
        return raw.view(tensor.dtype).reshape(tensor.shape)
    # The values alone, not all the memory of which an expanded or a cut tensor is a view.
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def write(prepared: Prepared, folder: StrPath) -> Path:
    """Write a checkpoint, as `save` says."""
    folder = Path(folder)
    _check_target(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(folder) as temporary:
            with (temporary / TENSORS).open("wb") as stream:
                size, sha256 = written(stream, chunks(prepared.tensors))
                sync_file(stream)
            with (temporary / MANIFEST).open("wb") as stream:
                stream.write(dumped(prepared.manifest, size, sha256))
                sync_file(stream)
    except OSError as error:
        raise OSError(
            error.errno,
            f"the checkpoint {folder} could not be written ({error.strerror}): nothing incomplete is left under its "
            "name. Make room, or choose a folder that can be written to, and save again",
        ) from error
    return folder


def _check_target(folder: Path) -> None:
    """Refuse to replace what is no checkpoint."""
    if folder.exists() and (not folder.is_dir() or not {p.name for p in folder.iterdir()} <= {MANIFEST, TENSORS}):
        raise FileExistsError(
            f"{folder} holds something else than a checkpoint, which saving would remove: give a name that is not "
            f"taken, as in save({str(folder / 'checkpoint')!r}, tree)."
        )
