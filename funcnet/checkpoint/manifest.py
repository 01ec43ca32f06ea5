"""The manifest: what a checkpoint says of itself, in JSON beside the tensors."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import CheckpointError, StrPath
from .structure import PLACE, leaves_of
from .tensorfile import CODES, DTYPES, stored
from .text import parsed, plain, restored

__all__ = ["MANIFEST", "OLDER", "TENSORS", "Manifest", "TensorInfo", "check_size", "compose", "dumped", "read_manifest"]

MANIFEST, TENSORS = "manifest.json", "tensors.safetensors"
FORMAT = 1
OLDER = "an older checkpoint may still be good"


@dataclass(frozen=True)
class TensorInfo:
    """What a manifest says of a tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    """Where they are not those of a contiguous tensor, as of weights that are channels last."""


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says of itself."""

    folder: Path
    format: int
    funcnet: str
    """The version of funcnet that wrote it."""
    torch: str
    step: int | None
    position: Any
    """Where the data was, as `save` was told."""
    metrics: Mapping[str, float]
    extra: Any
    tensors: Mapping[str, TensorInfo]
    """By path, as in `tree.paths`."""
    values: Mapping[str, Any]
    """The leaves that are no tensors, by path."""
    tree: Any
    """The structure, as JSON."""
    size: int
    """Bytes of the file of tensors."""
    sha256: str


def compose(
    tensors: Mapping[str, Tensor], node: Any, step: int | None, position: Any, metrics: Mapping[str, Any], extra: Any
) -> dict[str, Any]:
    """All of a manifest but what is known once the tensors are written."""
    if step is not None and (type(step) is not int or step < 0):
        raise TypeError(f"step is {step!r}: a checkpoint's step is an int of at least 0; write int(ts.step).")
    return {
        "format": FORMAT,
        "funcnet": version("funcnet"),
        "torch": str(torch.__version__),
        "step": step,
        "position": plain(position, "position"),
        "metrics": {str(name): plain(_float(value, name), "metrics") for name, value in metrics.items()},
        "extra": plain(extra, "extra"),
        "tensors": {path: _info(tensor) for path, tensor in tensors.items()},
        "tree": node,
    }


def _float(value: Any, name: str) -> float:
    if isinstance(value, Tensor | int | float) and (not isinstance(value, Tensor) or value.numel() == 1):
        return float(value)
    raise TypeError(f"metrics[{name!r}] is a {type(value).__name__}: a metric is a number or a tensor of one element.")


def _info(tensor: Tensor) -> dict[str, Any]:
    info: dict[str, Any] = {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
    place = stored(tensor.dtype, tensor.shape)
    if place is not None and CODES[place[0]] != tensor.dtype:
        info["stored"] = place[0]  # for those who read the file of tensors alone
    if tensor.stride() != _contiguous(tensor.shape) and _is_dense(tensor.shape, tensor.stride()):
        info["strides"] = list(tensor.stride())
    return info


def _contiguous(shape: Iterable[int]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(tuple(shape)):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _is_dense(shape: Iterable[int], strides: Iterable[int]) -> bool:
    """Whether each element of a non-empty tensor has a place of its own and no place is left out."""
    step = 1
    for stride, size in sorted((stride, size) for size, stride in zip(shape, strides, strict=True) if size != 1):
        if stride != step or size == 0:
            return False
        step *= size
    return True


def dumped(manifest: Mapping[str, Any], size: int, sha256: str) -> bytes:
    """The bytes of a manifest, closed by a checksum of its own."""
    body = {**manifest, "file": {"bytes": size, "sha256": sha256}}
    return json.dumps({**body, "checksum": _checksum(body)}, indent=1).encode()


def _checksum(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(folder: StrPath) -> Manifest:
    """What the checkpoint in `folder` says of itself: step, data position, metrics, shapes; no tensor is read.

    Raises `CheckpointError` where there is none, where it is of a newer format, or where it was changed.

    >>> import tempfile
    >>> from funcnet.checkpoint import save
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     manifest = read_manifest(save(f"{folder}/a", {"w": torch.ones(2)}, step=3, metrics={"loss": 0.5}))
    >>> manifest.step, manifest.metrics, manifest.tensors["w"].shape
    (3, {'loss': 0.5}, (2,))
    """
    folder = Path(folder)
    file = folder / MANIFEST
    try:
        body = parsed(file.read_bytes(), file, "the manifest")
    except FileNotFoundError:
        raise CheckpointError(_absent(folder)) from None
    except OSError as error:
        raise CheckpointError(f"the manifest {file} cannot be read: {error}.") from error
    if not isinstance(body, dict) or type(body.get("format")) is not int:
        raise CheckpointError(f"{file} is no manifest of a checkpoint: it names no format.")
    if body["format"] > FORMAT:
        raise CheckpointError(
            f"{file} has format {body['format']}, written by funcnet {body.get('funcnet')}, and this is funcnet "
            f"{version('funcnet')}, which reads up to {FORMAT}: install a newer one."
        )
    checksum = body.pop("checksum", None)
    try:
        if checksum != _checksum(body):
            raise CheckpointError(f"{file} was changed after it was written: its checksum differs; {OLDER}.")
        return _manifest(folder, file, body)
    except RecursionError:
        raise CheckpointError(f"{file}: the tree is nested too deep.") from None


def check_size(manifest: Manifest) -> None:
    """Raise `CheckpointError` unless the file of tensors is there and has its size."""
    path = manifest.folder / TENSORS
    try:
        size = path.stat().st_size
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}; {OLDER}.") from error
    if size != manifest.size:
        raise CheckpointError(
            f"{path} has {size} bytes and should have {manifest.size}: it was cut short or replaced; {OLDER}."
        )


def _absent(folder: Path) -> str:
    if not folder.is_dir():
        return f"there is no checkpoint {folder}: no such folder."
    inside = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}") if not path.parent.name.startswith("."))
    hint = f"; it holds others: load(folder / {inside[-1]!r})" if inside else ""
    return f"{folder} is no checkpoint: it has no {MANIFEST}{hint}."


def _manifest(folder: Path, file: Path, body: dict[str, Any]) -> Manifest:
    match body:
        case {
            "format": int(number),
            "funcnet": str(ours),
            "torch": str(theirs),
            "step": int() | None as step,
            "position": position,
            "metrics": dict(metrics),
            "extra": extra,
            "tensors": dict(tensors),
            "tree": node,
            "file": {"bytes": int(size), "sha256": str(sha256)},
        } if number >= 1:
            pass
        case _:
            raise CheckpointError(f"{file} lacks a field that every manifest has; {OLDER}.")
    scores = restored(metrics)
    if not isinstance(scores, dict) or not all(type(value) is float for value in scores.values()):
        raise CheckpointError(f"{file} has a metric that is no number.")
    infos = {path: _read_info(path, info, file) for path, info in tensors.items()}
    leaves = list(leaves_of(node, "", file))
    places = [path for path, leaf in leaves if leaf is PLACE]
    if sorted(places) != sorted(infos) or len(dict(leaves)) != len(leaves):
        raise CheckpointError(f"{file}: the leaves of its tree are not the tensors that it lists.")
    values = {path: leaf for path, leaf in leaves if leaf is not PLACE}
    return Manifest(
        folder, number, ours, theirs, step, restored(position), scores, restored(extra), infos, values, node, size,
        sha256,
    )  # fmt: skip  # one a line would be a page


def _read_info(path: str, info: Any, file: Path) -> TensorInfo:
    match info:
        case {"dtype": str(name), "shape": [*shape]} if all(type(n) is int and n >= 0 for n in shape):
            strides = info.get("strides")
        case _:
            raise CheckpointError(f"{file}: {path!r} has no valid dtype and shape.")
    dtype = DTYPES.get(name)
    if dtype is None or stored(dtype, shape) is None:
        raise CheckpointError(f"{file}: {path!r} is {name}, a dtype which torch {torch.__version__} lacks.")
    if math.prod(max(n, 1) for n in shape) * dtype.itemsize >= 2**63:
        raise CheckpointError(f"{file}: {path!r} has the impossible shape {shape}.")
    if strides is None:
        return TensorInfo(dtype, tuple(shape))
    valid = isinstance(strides, list) and len(strides) == len(shape)
    if not valid or not all(type(n) is int and 0 <= n < 2**62 for n in strides) or not _is_dense(shape, strides):
        raise CheckpointError(f"{file}: {path!r} of shape {shape} has the impossible strides {strides}.")
    return TensorInfo(dtype, tuple(shape), tuple(strides))
