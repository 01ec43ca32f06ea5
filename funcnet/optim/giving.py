"""Donation in eager updates: new values in the memory of the old."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.nn import Parameter

from .. import _compat
from ..jit.donation import check_separate, poison_class
from ..tree import PyTree, leaves, leaves_with_path

__all__ = ["KINDS", "may_give", "taken"]

KINDS = {Tensor, Parameter}
"""Tensors that a kernel for many takes, and that may be written over: ordinary ones."""

_Donated = poison_class(
    "optim.advance",
    "a tensor of params or state",
    "Use what it returned (`params, state = optim.advance(..., donate=True)`), copy what you need before the call "
    "(`tree.map(torch.clone, params)`), or leave out donate=True.",
)


def may_give(params: PyTree, state: Any, updates: PyTree) -> bool:
    """Whether a step may write into parameters and state: it is eager and all are tensors with memory of their own.

    Those of a subclass, such as a DTensor, are not: what they hold lies elsewhere.

    Raises `ValueError` where they do, one with another or with the updates.
    """
    if not _compat.plain():
        return False
    mine = [leaf for leaf in leaves((params, state)) if isinstance(leaf, Tensor)]
    theirs = [leaf for leaf in leaves(updates) if isinstance(leaf, Tensor)]
    if not KINDS.issuperset(map(type, mine)) or not KINDS.issuperset(map(type, theirs)):
        return False
    whole, addresses = True, set()
    for leaf in mine:
        storage = leaf.untyped_storage()
        addresses.add(storage.data_ptr())
        whole = whole and storage.nbytes() == leaf.nbytes
    if whole and len(addresses) == len(mine):
        addresses.update([leaf.untyped_storage().data_ptr() for leaf in theirs])
        if len(addresses) == len(mine) + len(theirs):
            return True
    # Either something is wrong, or there are leaves without elements.
    trees = {"params": params, "state": state, "updates": updates}
    paths = [path for path, leaf in leaves_with_path(trees) if isinstance(leaf, Tensor)]
    own, others = range(len(mine)), range(len(mine), len(paths))
    check_separate("optim.advance", paths, [*mine, *theirs], own, others)
    return True


def taken(written: Iterable[Tensor]) -> list[Tensor]:
    """The same memory as other tensors; those that were written over can no longer be read."""
    written = list(written)
    fresh = [leaf.detach() for leaf in written]
    for leaf in written:
        leaf.__class__ = _Donated
    return fresh
