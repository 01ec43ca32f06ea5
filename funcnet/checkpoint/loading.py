"""Reading a checkpoint back, whole or in part."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..tree import TreeMismatchError, flatten, leaves_with_path, unflatten
from .errors import CheckpointError, StrPath
from .manifest import OLDER, TENSORS, Manifest, TensorInfo, check_size, read_manifest
from .matching import Names, choose, compare
from .structure import name_of, rebuild
from .tensorfile import read_header, read_tensors, stored

__all__ = ["load"]


def load(
    folder: StrPath,
    like: Any = None,
    *,
    device: torch.device | str | None = None,
    strict: bool = True,
    names: Names | None = None,
    types: Iterable[type] = (),
) -> Any:
    """The tree that was saved in `folder`, after its size and sha256 were found right.

    Args:
        folder: what `save` returned.
        like: a tree of the structure that is wanted; of its tensors only shape, dtype and device are looked at, so
            that they may be on the meta device or fake. The result has its containers and classes. Without it, the
            file's own structure is rebuilt: nothing is imported because a file says so, and classes are those of
            funcnet and those in `types`.
        device: where the tensors go. Default: where those of `like` are, or the CPU.
        strict: raise where the file and `like` differ. Otherwise the result is `(tree, report)`, and what is missing
            or differs is what it was in `like`.
        names: a glob of the file's names (`"params.body.*"`), several, or a mapping of globs to new names, each `*`
            for what it matched (`{"params.body.*": "params.encoder.*"}`): load these alone into `like`. The result is
            `(tree, report)`; the other leaves are those of `like`.
        types: NamedTuples and dataclasses that may be rebuilt without `like`.

    Raises:
        CheckpointError: there is none, it is incomplete, or was changed after it was written.
        TreeMismatchError: names, shapes or dtypes differ from `like`.
        UnknownNameError: a glob in `names` matches nothing.

    >>> import tempfile
    >>> from funcnet.checkpoint import save
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save(f"{folder}/a", {"body": {"w": torch.ones(2)}, "fc": torch.ones(3)})
    ...     start = {"encoder": {"w": torch.zeros(2)}, "fc": torch.zeros(5)}
    ...     tree, report = load(path, start, names={"body.*": "encoder.*"})
    >>> tree["encoder"], report.matched
    ({'w': tensor([1., 1.])}, ('encoder.w',))
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if like is None:
        if names is not None or not strict:
            raise TypeError(
                "names= and strict=False need like=, the tree to load into; for the file's tensors by name write "
                f"load_state_dict({str(folder / TENSORS)!r})."
            )
        allowed = {name_of(kind): kind for kind in types}
        leaves: dict[str, Any] = {**manifest.values, **_tensors(manifest, manifest.tensors)}
        if device is not None:
            leaves = {path: _moved(leaf, torch.device(device)) for path, leaf in leaves.items()}
        try:
            return rebuild(manifest.tree, "", leaves, allowed, folder)
        except RecursionError:
            raise CheckpointError(f"{folder}: its tree is nested too deep.") from None
    saved = {**manifest.tensors, **manifest.values}
    chosen = choose(saved, names)
    wanted = dict(named := leaves_with_path(like))
    if len(wanted) != len(named):
        raise ValueError("two leaves of like have the same path, as 'a.b' and 'b' under 'a' would: rename one.")
    report = compare({new: saved[old] for new, old in chosen.items()}, wanted)
    if strict and (report.unexpected or report.mismatched or (report.missing and names is None)):
        raise TreeMismatchError(
            f"the checkpoint {folder} does not fit like: {report}\nBuild like as it was built for saving; or take "
            "what fits with strict=False, or a part with names=."
        )
    used = {chosen[new] for new in report.matched}
    read = _tensors(manifest, {old: info for old, info in manifest.tensors.items() if old in used})
    values = {
        new: _moved(read[chosen[new]] if chosen[new] in read else saved[chosen[new]], _place(wanted[new], device))
        for new in report.matched
    }
    tree = unflatten(flatten(like)[1], [values.get(path, leaf) for path, leaf in wanted.items()])
    return tree if strict and names is None else (tree, report)


def _place(leaf: Any, device: torch.device | str | None) -> torch.device:
    if device is not None:
        return torch.device(device)
    return leaf.device if isinstance(leaf, Tensor) and not leaf.is_meta else torch.device("cpu")


def _moved(leaf: Any, device: torch.device) -> Any:
    return leaf.to(device) if isinstance(leaf, Tensor) else leaf


def _tensors(manifest: Manifest, wanted: Mapping[str, TensorInfo]) -> dict[str, Tensor]:
    """The wanted tensors of a checkpoint, once all of its file was seen to be as it was written."""
    path = manifest.folder / TENSORS
    digest = hashlib.sha256()
    check_size(manifest)
    try:
        with path.open("rb") as stream:
            entries = read_header(stream, path, digest)
            if entries.keys() != manifest.tensors.keys():
                raise CheckpointError(
                    f"{path} has other names than its manifest: one of the two was replaced; {OLDER}."
                )
            for name, info in manifest.tensors.items():
                if entries[name][:2] != stored(info.dtype, info.shape):
                    raise CheckpointError(
                        f"{path}: {name!r} is {entries[name].code} of shape {entries[name].shape}, and its manifest "
                        f"says {info.dtype} of shape {info.shape}: one of the two was replaced; {OLDER}."
                    )
            into = {name: (info.dtype, info.shape) for name, info in wanted.items()}
            found = read_tensors(stream, path, entries, into, digest)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}; {OLDER}.") from error
    if digest.hexdigest() != manifest.sha256:
        raise CheckpointError(f"{path} is not what was written: its sha256 differs from the manifest's; {OLDER}.")
    return {name: _laid_out(tensor, wanted[name].strides) for name, tensor in found.items()}


def _laid_out(tensor: Tensor, strides: tuple[int, ...] | None) -> Tensor:
    if strides is None:
        return tensor
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device="cpu").copy_(tensor)
