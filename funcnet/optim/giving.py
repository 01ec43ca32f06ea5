"""Donation in eager updates: new values in the memory of the old."""

import weakref
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import attrgetter, is_, methodcaller
from typing import Any, NamedTuple

from torch import Tensor, strided
from torch.nn import Parameter

from .. import _compat
from ..jit.donation import check_separate, poison_class
from ..tree import PyTree, TreeDef, flatten, leaves, leaves_with_path, unflatten

__all__ = ["KINDS", "Asked", "Last", "apart", "keeps", "may_give", "taken"]

Asked = Callable[[], bool]
"""Whether a step may write over what it is given; asked where it is not known."""

_data = attrgetter("data")
_data_ptr, _is_contiguous = methodcaller("data_ptr"), methodcaller("is_contiguous")

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


class _Known(NamedTuple):
    treedef: TreeDef
    leaves: list[weakref.ref[Tensor]]
    addresses: list[int]
    own_kinds: Callable[..., bool]
    grad_kinds: Callable[..., bool]


class Last:
    """What a donating step returned last: when it comes back, nothing has to be asked of it again.

    It was found to be ordinary, contiguous, of one dtype and device, without a graph, whole and separate; the same
    tensors at the same addresses are so still. Leaves are held weakly, and what is known is replaced in one go: threads
    that share an optimizer miss what the other left, and ask.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._known: _Known | None = None

    def columns(self, updates: PyTree, count: Tensor, *trees: PyTree) -> list[list[Tensor]] | None:
        """The leaves of the updates and of these trees, if the latter are what was returned; else None."""
        known = self._known
        if known is None or not _compat.plain():
            return None
        opened = [flatten(tree) for tree in (updates, *trees)]
        if any(treedef != known.treedef for _, treedef in opened):
            return None
        grads, *own = [values for values, _ in opened]
        everything = [count, *chain.from_iterable(own)]
        if (
            all(map(is_, everything, [leaf() for leaf in known.leaves]))
            and known.own_kinds(*everything)
            and list(map(_data_ptr, everything)) == known.addresses
            and known.grad_kinds(*grads)
            and set(known.addresses).isdisjoint([leaf.untyped_storage().data_ptr() for leaf in grads])
        ):
            return [grads, *own]
        return None

    def keep(self, treedef: TreeDef, grads: Sequence[Tensor], count: Tensor, *columns: Sequence[Tensor]) -> None:
        """Remember what is returned, and of what kind the updates were."""
        everything = [count, *chain.from_iterable(columns)]
        known, self._known = self._known, None
        if not all(map(_is_contiguous, (*grads, *everything))):
            return
        addresses = list(map(_data_ptr, everything))
        if known is None or not known.own_kinds(*everything) or not known.grad_kinds(*grads):
            kinds = _compat.guards(everything), _compat.guards(grads)
        else:
            kinds = known.own_kinds, known.grad_kinds
        if kinds[0] is not None and kinds[1] is not None:
            self._known = _Known(treedef, list(map(weakref.ref, everything)), addresses, kinds[0], kinds[1])


def taken(written: Iterable[Tensor]) -> list[Tensor]:
    """The same memory as other tensors; those that were written over can no longer be read."""
    written = list(written)
    # `data` is a detached alias, too, without the dispatcher's microsecond; but a tangent stays on `detach` alone.
    fresh = [leaf.detach() for leaf in written] if _compat.forward_mode() else list(map(_data, written))
    for leaf in written:
        leaf.__class__ = _Donated
    return fresh
