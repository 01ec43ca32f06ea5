"""Weights that others wrote: safetensors files, whole or in shards, and torch files; put into a model's tensors."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..tree import TreeMismatchError
from .errors import CheckpointError, StrPath
from .manifest import MANIFEST
from .matching import Names, Report, choose, compare
from .structure import check_tensor
from .tensorfile import read_header, read_tensors
from .text import parsed

__all__ = ["adopt", "load_state_dict"]

_INDEX = ".safetensors.index.json"
_WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name


def load_state_dict(path: StrPath) -> dict[str, Tensor]:
    """The tensors of a file of weights by name, on the CPU, each in memory of its own.

    Args:
        path: a safetensors file; the index of a set of them (`model.safetensors.index.json`), whose shards must lie
            beside it; or a torch file, read with `weights_only=True` and in no other way. In the last a dict under
            `"state_dict"` is unwrapped; `module.` and `_orig_mod.` are taken off where every name begins with them.

    Raises:
        CheckpointError: the file is absent, cut short, of another kind, or holds anything but tensors by name.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".pt") as file:
    ...     torch.save({"state_dict": {"module.weight": torch.ones(2)}}, file.name)
    ...     load_state_dict(file.name)
    {'weight': tensor([1., 1.])}
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(_advice(path))
    try:
        if path.name.endswith(_INDEX):
            return _unwrapped(_sharded(path))
        return _unwrapped(_one_file(path, None) if path.suffix == ".safetensors" else _torch_file(path))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error


def _advice(folder: Path) -> str:
    if (folder / MANIFEST).exists():
        return f"{folder} is a checkpoint of funcnet: write checkpoint.load({str(folder)!r})."
    kinds = ("*" + _INDEX, "*.safetensors", "*.pt", "*.pth", "*.bin")
    found = next((path for kind in kinds for path in sorted(folder.glob(kind))), None)
    return f"{folder} is a folder" + (f": write load_state_dict({str(found)!r})." if found else " without weights.")


def _one_file(path: Path, names: set[str] | None) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or those of these names."""
    with path.open("rb") as stream:
        entries = read_header(stream, path)
        absent = (names or set()) - entries.keys()
        if absent:
            raise CheckpointError(f"{path} lacks {min(absent)!r}, which the index says it has.")
        wanted = None if names is None else {name: entries[name].plain() for name in entries if name in names}
        return read_tensors(stream, path, entries, wanted)


def _sharded(path: Path) -> dict[str, Tensor]:
    index = parsed(path.read_bytes(), path, "the index")
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{path} has no weight_map from names to shards.")
    shards: dict[str, set[str]] = {}
    for name, shard in places.items():
        # One plain file name, by the rules of any system: an index may not reach out of its folder.
        plain = isinstance(shard, str) and shard.endswith(".safetensors") and not set(shard) & set("/\\:\0")
        if not plain:
            raise CheckpointError(f"{path} says that {name!r} lies in {shard!r}, which is no file of its folder.")
        shards.setdefault(shard, set()).add(name)
    found: dict[str, Tensor] = {}
    for shard, names in shards.items():
        found.update(_one_file(path.parent / shard, names))
    return {name: found[name] for name in places}


def _torch_file(path: Path) -> dict[str, Tensor]:
    with path.open("rb"):  # an absent file is an OSError, whatever torch says of it
        pass
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader fails in as many ways as a file can be wrong
        reason = str(error).strip().split("\n")[0][:200]
        raise CheckpointError(
            f"{path} cannot be read as tensors alone ({type(error).__name__}: {reason}). A torch file is read with "
            "weights_only=True or not at all, since pickled objects can run anything; where you trust it, save its "
            "tensors again: torch.save(module.state_dict(), path)."
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, and no dict of tensors by name.")
    found: dict[str, Tensor] = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            inside = [key for key, item in content.items() if isinstance(item, Mapping)]
            hint = f" Dicts lie under {inside}." if inside else ""
            raise CheckpointError(f"{path}: {name!r} is a {type(value).__name__}, and no tensor with a name.{hint}")
        try:
            check_tensor(value, name)
        except TypeError as error:
            raise CheckpointError(f"{path}: {error}") from None
        # Tied tensors, and rows of a larger one, would share memory that a step may be given.
        found[name] = value.detach().clone()
    return found


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _WRAPPERS * 2:  # in either order
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def adopt(
    tensors: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    *,
    names: Names | None = None,
    strict: bool = True,
) -> tuple[dict[str, Tensor], dict[str, Tensor], Report]:
    """A model's `(params, state)` with the values of `tensors` where the names agree, and a report.

    Values are copied, since a donating step consumes what it is given. They take the device of the tensor that they
    replace, and its dtype where both are floating, or both complex. Names that are missing in `state` alone are
    reported and no error: a file lacks the buffers that a module does not save. A second name of a tied tensor is none
    either.

    Args:
        tensors: as from `load_state_dict`.
        params: the model's own, as from `Model.init`; they may be on the meta device where all are replaced.
        state: likewise.
        names: a glob of the file's names, several, or a mapping of globs to new ones: `{"model.*": "*"}` takes a
            prefix off, `{"*": "encoder.*"}` puts one before. Only those that match are looked at, and what is
            missing is reported and no error.
        strict: raise where a parameter is missing, a name of the file is not the model's, or a shape differs.

    Raises:
        TreeMismatchError: as `strict` says.
        UnknownNameError: a glob in `names` matches nothing.

    >>> params, state = {"w": torch.zeros(2)}, {"running": torch.zeros(3)}
    >>> params, state, report = adopt({"model.w": torch.ones(2)}, params, state, names={"model.*": "*"})
    >>> params
    {'w': tensor([1., 1.])}
    >>> print(report)
    1 matched, 1 missing, 0 unexpected, 0 mismatched
      missing: 'running'
    """
    wanted = {**params, **state}
    chosen = {new: tensors[old] for new, old in choose(tensors, names).items()}
    cast = {name: tensor.to(wanted[name].dtype) for name, tensor in chosen.items() if _castable(tensor, name, wanted)}
    report = compare({**chosen, **cast}, wanted)
    tied = tuple(name for name in report.unexpected if _is_tied(chosen[name], chosen, report.matched))
    report = dataclasses.replace(
        report,
        cast=tuple(name for name in report.matched if name in cast),
        tied=tied,
        unexpected=tuple(name for name in report.unexpected if name not in tied),
    )
    absent = [name for name in report.missing if name in params and names is None]
    if strict and (absent or report.unexpected or report.mismatched):
        raise TreeMismatchError(
            f"the file does not fit the model: {report}\nRename with names={{'model.*': '*'}}, take a part with "
            "names='body.*', or what fits with strict=False."
        )
    new = {name: _placed(cast.get(name, chosen[name]), wanted[name], chosen[name]) for name in report.matched}
    return (
        {n: new.get(n, leaf) for n, leaf in params.items()},
        {n: new.get(n, leaf) for n, leaf in state.items()},
        report,
    )


def _castable(tensor: Tensor, name: str, wanted: Mapping[str, Any]) -> bool:
    leaf = wanted.get(name)
    if leaf is None or leaf.dtype == tensor.dtype:
        return False
    return (leaf.is_floating_point() and tensor.is_floating_point()) or (leaf.is_complex() and tensor.is_complex())


def _is_tied(tensor: Tensor, chosen: Mapping[str, Tensor], matched: tuple[str, ...]) -> bool:
    if tensor.numel() < 2 or bool((tensor == tensor.reshape(-1)[0]).all()):
        return False  # zeros and ones say nothing
    same = (chosen[name] for name in matched if chosen[name].shape == tensor.shape)
    return any(other.dtype == tensor.dtype and torch.equal(other, tensor) for other in same)


def _placed(tensor: Tensor, leaf: Tensor, given: Tensor) -> Tensor:
    placed = tensor if leaf.is_meta else tensor.to(leaf.device)
    return placed.clone() if placed is given else placed
