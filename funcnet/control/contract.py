"""What lax asks of the trees that go through its loops, and the words in which a wrong one is refused."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from funcnet import tree
from funcnet.tree.mismatch import align

__all__ = ["Carry", "Results", "described", "flat_tensors", "name_of", "pair", "predicate", "scanned"]

_NUMBERS = (bool, int, float, complex)


def name_of(f: Callable[..., Any]) -> str:
    """What errors call a function."""
    return getattr(f, "__name__", type(f).__name__)


def described(value: Any) -> str:
    """A leaf in words: its dtype, shape, and where it is if not on the CPU."""
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
    where = "" if value.device.type == "cpu" else f" on {value.device}"
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}{where}"


def at(path: str) -> str:
    """Where a leaf is."""
    return f" at {path!r}" if path else ""


def leaf_name(path: str) -> str:
    """A leaf of a tree in words."""
    return f"Leaf {path!r}" if path else "Its only leaf"


def flat_tensors(value: Any, what: str) -> tuple[list[Tensor], tree.TreeDef]:
    """A tree taken apart, its numbers made tensors. There are no weak types: a float has torch's default dtype."""
    leaves, treedef = tree.flatten(value)
    return [
        leaf if isinstance(leaf, Tensor) else _tensor(leaf, value, n, what) for n, leaf in enumerate(leaves)
    ], treedef


def _tensor(leaf: Any, value: Any, place: int, what: str) -> Tensor:
    if type(leaf) in _NUMBERS:
        return torch.full((), leaf)  # not as_tensor, whose value a traced graph would keep as a constant from outside
    raise TypeError(
        f"{what} is a tree of tensors and numbers, not {described(leaf)}{at(tree.paths(value)[place])}. "
        f"Let the function close over what is neither."
    )


def pair(out: Any, by: str, f: Callable[..., Any], what: str) -> Any:
    """A pair that a function must return."""
    if not isinstance(out, tuple) or len(out) != 2:
        got = f"a tuple of {len(out)}" if isinstance(out, tuple) else described(out)
        raise TypeError(f"{by} calls {name_of(f)} for a pair {what}, and it returned {got}.")
    return out


class Kind:
    """The structure of a tree, and of its leaves the shapes, dtypes and devices, to hold other trees to."""

    def __init__(self, value: Any, what: str) -> None:
        """Take a tree of tensors and numbers; `what` is what errors call it."""
        self.leaves, self.treedef = flat_tensors(value, what)
        self._kinds = [(t.shape, t.dtype, t.device) for t in self.leaves]
        self._paths = tree.paths(value)

    def filled(self, leaves: Sequence[Tensor]) -> Any:
        """A tree of this structure."""
        return tree.unflatten(self.treedef, leaves)

    def matched(self, out: Any) -> list[Tensor]:
        """The leaves of a tree of this kind, in its order; a number takes the dtype that it should have."""
        found, treedef = tree.flatten(out)
        if treedef != self.treedef:
            found = self._aligned(out)
        leaves = [leaf if isinstance(leaf, Tensor) else self._number(leaf, n) for n, leaf in enumerate(found)]
        for n, leaf in enumerate(leaves):
            if (leaf.shape, leaf.dtype, leaf.device) != self._kinds[n]:
                self._refuse_leaf(n, leaf)
        return leaves

    def _aligned(self, out: Any) -> list[Any]:
        like = self.filled([self._example(n) for n in range(len(self._kinds))])
        leaves = align(out, like)
        if leaves is None:
            try:
                tree.check_like(out, like, *self.names, shape=False)
            except tree.TreeMismatchError as error:
                raise TypeError(f"{self.needs}, of one structure: {error}") from None
        assert leaves is not None  # check_like finds what align does not
        return leaves

    def _number(self, leaf: Any, place: int) -> Tensor:
        _, dtype, device = self._kinds[place]
        rank = _NUMBERS.index(type(leaf)) if type(leaf) in _NUMBERS else len(_NUMBERS)
        if rank > (3 if dtype.is_complex else 2 if dtype.is_floating_point else 0 if dtype == torch.bool else 1):
            self._refuse_leaf(place, leaf)
        return torch.full((), leaf, dtype=dtype, device=device)

    def _example(self, place: int) -> Tensor:
        shape, dtype, _ = self._kinds[place]
        return torch.empty(shape, dtype=dtype, device="meta")

    def _refuse_leaf(self, place: int, got: Any) -> NoReturn:
        shape, dtype, device = self._kinds[place]
        one = got if isinstance(got, Tensor) else torch.full((), got) if type(got) in _NUMBERS else None
        if one is None:
            hint = self.hint("a tensor", "return a tensor")
        elif one.shape != shape:
            hint = self.hint(f"one of shape {tuple(one.shape)}", "reduce, index or expand it")
        elif one.dtype != dtype:
            hint = self.hint(f"one of {one.dtype}", f"write .to({dtype})")
        else:
            hint = self.hint(f"one on {one.device}", f"write .to({str(device)!r})")
        where = "" if device.type == "cpu" else f" on {device}"
        was = described(self._example(place)).removesuffix(" on meta") + where
        raise TypeError(
            f"{self.needs}. {leaf_name(self._paths[place])} {self.differ.format(was, described(got))}. {hint}"
        )

    # The words of a refusal.
    names: tuple[str, str]
    needs: str
    differ: str

    def hint(self, other: str, write: str) -> str:
        """What to write: the other kind from the start, or this one in the end."""
        raise NotImplementedError


class Carry(Kind):
    """What goes from step to step."""

    differ = "was {} and became {}"

    def __init__(self, init: Any, by: str, f: Callable[..., Any]) -> None:
        """Take the first one, the loop's name, and the function that makes the next."""
        super().__init__(init, f"the first carry of {by}")
        self._name = name_of(f)
        self.names = (f"what {self._name} returned", "the carry that it was given")
        self.needs = f"{by} needs from {self._name} a carry like the one it was given"

    def hint(self, other: str, write: str) -> str:
        """See `Kind`."""
        return f"Start with {other}, or in {self._name} {write}."


class Results(Kind):
    """What a function returned or was given, to hold to it what another, or it itself, returns."""

    differ = "is {} in one and {} in the other"

    def __init__(self, value: Any, what: str, needs: str, against: str, f: Callable[..., Any]) -> None:
        """Take the tree, what it is called, what is needed, against what, and the function whose result is checked."""
        super().__init__(value, what)
        self._name = name_of(f)
        self.names, self.needs = (f"the result of {self._name}", against), needs

    def hint(self, other: str, write: str) -> str:
        """See `Kind`."""
        return f"In {self._name} {write}."


def scanned(xs: Any, length: int | None) -> tuple[list[Tensor], tree.TreeDef, int]:
    """What is scanned over, taken apart, and how many steps that are."""
    leaves, treedef = tree.flatten(xs)
    named = tree.leaves_with_path(xs)
    for path, leaf in named:
        if not isinstance(leaf, Tensor) or leaf.ndim == 0:
            got = described(leaf)
            raise TypeError(
                f"scan takes steps along the first axis of every leaf of xs, not {got}{at(path)}, which "
                f"has none. Let the function close over what is the same in all steps."
            )
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 0):
        raise TypeError(f"scan takes its length as an int of at least 0, and got {length!r}.")
    lengths = {path: leaf.shape[0] for path, leaf in named}
    if not lengths:
        if length is None:
            raise TypeError(
                "scan needs xs with tensors, whose first axis it steps along, or length=, the number of steps."
            )
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
    raise TypeError(
        f"{by} needs {what} that is a bool or a boolean tensor of shape (), and got {described(value)}. {hint}."
    )
