"""What lax asks of the trees that go through its loops, and the words in which a wrong one is refused."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.tree.mismatch import align

__all__ = ["Carry", "described", "flat_tensors", "name_of", "pair", "predicate", "scanned"]

_NUMBERS = (bool, int, float, complex)


def name_of(f: Callable[..., Any]) -> str:
    """What errors call a function."""
    return getattr(f, "__name__", type(f).__name__)


def described(value: Any) -> str:
    """A leaf in words: its dtype, shape, and where it is if not on the CPU."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    where = "" if value.device.type == "cpu" else f" on {value.device}"
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}{where}"


def leaf_name(path: str) -> str:
    """A leaf of a tree in words."""
    return f"leaf {path!r}" if path else "its only leaf"


def flat_tensors(value: Any, what: str) -> tuple[list[Tensor], tree.TreeDef]:
    """A tree taken apart, its numbers made tensors. There are no weak types: a float has torch's default dtype."""
    leaves, treedef = tree.flatten(value)
    return [leaf if isinstance(leaf, Tensor) else _tensor(leaf, value, n, what) for n, leaf in enumerate(leaves)], treedef


def _tensor(leaf: Any, value: Any, place: int, what: str) -> Tensor:
    if type(leaf) in _NUMBERS:
        return torch.full((), leaf)  # not as_tensor, whose value a traced graph would keep as a constant from outside
    raise TypeError(
        f"{what} is a tree of tensors and numbers, and {leaf_name(tree.paths(value)[place])} is {described(leaf)}. "
        f"Let the function close over what is neither."
    )


def pair(out: Any, by: str, f: Callable[..., Any], what: str) -> Any:
    """A pair that a function must return."""
    if not isinstance(out, tuple) or len(out) != 2:
        got = f"a tuple of {len(out)}" if isinstance(out, tuple) else described(out)
        raise TypeError(f"{by} calls {name_of(f)} for a pair {what}, and it returned {got}.")
    return out


class Carry:
    """What goes from step to step: the same structure, shapes and dtypes all along."""

    def __init__(self, init: Any, by: str, f: Callable[..., Any]) -> None:
        """Take the first one."""
        self.by, self.f = by, f
        self.leaves, self.treedef = flat_tensors(init, f"the first carry of {by}")
        self._kinds = [(t.shape, t.dtype, t.device) for t in self.leaves]
        self._paths = tree.paths(init)

    def filled(self, leaves: Sequence[Tensor]) -> Any:
        """The tree of a step."""
        return tree.unflatten(self.treedef, leaves)

    def matched(self, out: Any) -> list[Tensor]:
        """The flat carry that a step returned, in the order of the first."""
        found, treedef = tree.flatten(out)
        if treedef != self.treedef:
            found = self._aligned(out)
        kinds = self._kinds
        leaves = [
            leaf if isinstance(leaf, Tensor) else self._number(leaf, n) for n, leaf in enumerate(found)
        ]
        for n, leaf in enumerate(leaves):
            if (leaf.shape, leaf.dtype, leaf.device) != kinds[n]:
                self._refuse(n, leaf)
        return leaves

    def _aligned(self, out: Any) -> list[Any]:
        like = self.filled([torch.empty(shape, dtype=dtype, device="meta") for shape, dtype, _ in self._kinds])
        leaves = align(out, like)
        if leaves is None:
            try:
                tree.check_like(out, like, f"the carry that {name_of(self.f)} returned", "the one it was given", shape=False)
            except tree.TreeMismatchError as error:
                raise TypeError(f"{self.by} needs a carry of one structure. {error}") from None
        assert leaves is not None  # check_like has raised
        return leaves

    def _number(self, leaf: Any, place: int) -> Tensor:
        _, dtype, device = self._kinds[place]
        rank = _NUMBERS.index(type(leaf)) if type(leaf) in _NUMBERS else len(_NUMBERS)
        if rank > (3 if dtype.is_complex else 2 if dtype.is_floating_point else 0 if dtype == torch.bool else 1):
            self._refuse(place, leaf)
        return torch.full((), leaf, dtype=dtype, device=device)

    def _refuse(self, place: int, became: Any) -> None:
        shape, dtype, device = self._kinds[place]
        was = torch.empty(shape, dtype=dtype, device="meta")
        if not isinstance(became, Tensor) or became.shape == shape:
            hint = f"In {name_of(self.f)} write .to({device.type!r}) for it"
            if not isinstance(became, Tensor) or became.dtype != dtype:
                hint = f"Start with {_kind_of(became)}, or in {name_of(self.f)} write .to({dtype}) for it"
        else:
            hint = f"Start with one of shape {tuple(became.shape)}, or reduce or index it in {name_of(self.f)}"
        raise TypeError(
            f"{self.by} needs a carry whose leaves keep shape and dtype, and {leaf_name(self._paths[place])} was "
            f"{described(was).removesuffix(' on meta')} and became {described(became)}. {hint}."
        )


def _kind_of(value: Any) -> str:
    dtype = value.dtype if isinstance(value, Tensor) else torch.as_tensor(value).dtype if type(value) in _NUMBERS else None
    return "a tensor" if dtype is None else f"one of {dtype}"


def scanned(xs: Any, length: int | None) -> tuple[list[Tensor], tree.TreeDef, int]:
    """What is scanned over, taken apart, and how many steps that are."""
    leaves, treedef = tree.flatten(xs)
    named = tree.leaves_with_path(xs)
    for path, leaf in named:
        if not isinstance(leaf, Tensor) or leaf.ndim == 0:
            got = described(leaf)
            raise TypeError(
                f"scan takes steps along the first axis of every leaf of xs, and {leaf_name(path)} is {got}, which has "
                f"none. Let the function close over what is the same in all steps."
            )
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 0):
        raise TypeError(f"scan takes its length as an int of at least 0, and got {length!r}.")
    lengths = {path: leaf.shape[0] for path, leaf in named}
    if not lengths:
        if length is None:
            raise TypeError("scan needs xs with tensors, whose first axis it steps along, or length=, the number of steps.")
        return [], treedef, length
    first = next(iter(lengths))
    for path, size in lengths.items():
        if size != lengths[first]:
            raise ValueError(
                f"scan needs one length in all leaves of xs: {first!r} has {lengths[first]}, and {path!r} has {size} "
                f"on its first axis."
            )
    if length is not None and length != lengths[first]:
        raise ValueError(
            f"scan was given length={length}, and xs has {lengths[first]} steps on its first axis. Leave length out, "
            f"or slice xs."
        )
    return leaves, treedef, lengths[first]


def predicate(value: Any, by: str, what: str) -> Tensor:
    """A truth value as a 0-dim boolean tensor."""
    if type(value) is bool:
        return torch.full((), value)
    if isinstance(value, Tensor) and value.ndim == 0 and value.dtype == torch.bool:
        return value
    hint = "Write a comparison, such as x > 0"
    if isinstance(value, Tensor) and value.ndim:
        hint = "Write .all() or .any() for one answer, or torch.where for one an element; vmap maps over many"
    raise TypeError(f"{by} needs {what} that is a bool or a boolean tensor of shape (), and got {described(value)}. {hint}.")
