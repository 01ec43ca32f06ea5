"""Donation in eager updates: new values in the memory of the old."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, strided
from torch.nn import Parameter

from .. import _compat
from ..jit.donation import check_separate, poison_class
from ..tree import PyTree, flatten, leaves, leaves_with_path, unflatten

__all__ = ["KINDS", "apart", "keeps", "may_give", "taken"]

KINDS = {Tensor, Parameter}
"""Tensors that a kernel for many takes, and that may be written over: ordinary ones."""

_Donated = poison_class(
    "optim.advance",
    "a tensor of params or state",
    "Use what it returned (`params, state = optim.advance(..., donate=True)`), copy what you need before the call "
    "(`tree.map(torch.clone, params)`), or leave out donate=True.",
)


def may_give(params: PyTree, state: Any, updates: PyTree) -> bool:
    """Whether a step may write into parameters and state: it is eager, and they are ordinary, with memory of their own.

    What a subclass such as DTensor holds lies elsewhere. Raises `ValueError` where parameters share memory, with each
    other, the state or the updates.
    """
    if not _compat.plain():
        return False
    trees = {"params": params, "updates": updates, "state": state}
    groups = {what: [t for t in leaves(tree) if isinstance(t, Tensor)] for what, tree in trees.items()}
    everything = [leaf for group in groups.values() for leaf in group]
    if not KINDS.issuperset(map(type, everything)):
        return False
    owned = [*groups["params"], *groups["state"]]
    storages = [leaf.untyped_storage() for leaf in owned]
    whole = all(storage.nbytes() == leaf.nbytes for storage, leaf in zip(storages, owned, strict=True))
    addresses = {storage.data_ptr() for storage in storages}
    separate = len(addresses) == len(owned)  # updates may share memory with each other
    if whole and separate and addresses.isdisjoint([leaf.untyped_storage().data_ptr() for leaf in groups["updates"]]):
        return True
    # Either something is shared, or there are leaves without elements.
    paths = [path for path, leaf in leaves_with_path(trees) if isinstance(leaf, Tensor)]
    count = len(groups["params"])
    check_separate("optim.advance", paths, everything, range(count), range(count, len(everything)))
    filled = [storage.data_ptr() for storage, leaf in zip(storages, owned, strict=True) if leaf.numel()]
    return whole and len(set(filled)) == len(filled)


def keeps(state: Any, params: PyTree) -> bool:
    """Whether a state holds the memory of parameters, which may then not be written over."""
    mine = {leaf.untyped_storage().data_ptr() for leaf in leaves(params)}
    return any(isinstance(t, Tensor) and t.untyped_storage().data_ptr() in mine for t in leaves(state))


def apart(tree: PyTree, given: PyTree) -> PyTree:
    """A tree with copies of those of its tensors that lie in the memory of the leaves of `given`.

    Outside of ordinary eager code, where nothing is written over, the tree itself.
    """
    if not _compat.plain():
        return tree
    addresses = {_address(leaf) for leaf in leaves(given)} - {None}
    found, treedef = flatten(tree)
    if addresses.isdisjoint(map(_address, found)):
        return tree
    return unflatten(treedef, [leaf.clone() if _address(leaf) in addresses else leaf for leaf in found])


def _address(leaf: Any) -> int | None:
    """Where the memory of an ordinary tensor begins; None for one without, and for whatever else it is."""
    return leaf.untyped_storage().data_ptr() or None if type(leaf) in KINDS and leaf.layout is strided else None


def taken(written: Iterable[Tensor]) -> list[Tensor]:
    """The same memory as other tensors; those that were written over can no longer be read."""
    written = list(written)
    fresh = [leaf.detach() for leaf in written]
    for leaf in written:
        leaf.__class__ = _Donated
    return fresh
