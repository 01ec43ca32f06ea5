"""What one compilation was made for: the structure and metadata of every argument, and how a call differs from it."""

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from funcnet import _compat, tree
from funcnet.jit.layout import MismatchError, make_reader
from funcnet.pure.packing import Known
from funcnet.tree import TreeDef

__all__ = ["Arguments", "Signature", "Sizes", "Static", "argument_names", "keyword_names", "names_of"]


class Static:
    """A static argument: one leaf, whatever it is, compared by `==`, and its members by type as well (1 is not 1.0)."""

    def __init__(self, value: Any) -> None:
        """Take the value, and its members as they are now."""
        self.value = value
        leaves, treedef = tree.flatten(value)
        self.members = treedef, [(type(leaf), leaf) for leaf in leaves]

    def __eq__(self, other: object) -> bool:
        """Whether the members are the same, and of the same types."""
        return isinstance(other, Static) and self.members == other.members

    __hash__ = None  # type: ignore[assignment]  # a list may be static

    def __repr__(self) -> str:
        """The value's own."""
        return repr(self.value)


class Sizes(Static):
    """The `batch_sizes` of a packed sequence: shapes that torch keeps in a tensor, and so part of the kind."""

    @property
    def known(self) -> Known:
        """The tensor that the traced function gets."""
        return Known.of(self.value)


def _sizes(definition: TreeDef, start: int = 0) -> Iterator[int]:
    """The positions of `batch_sizes` among the leaves."""
    for i, child in enumerate(definition.children):
        if definition.kind is PackedSequence and i == 1:
            yield start
        yield from _sizes(child, start)
        start += child.num_leaves


class Arguments(NamedTuple):
    """The arguments of one call, opened."""

    leaves: list[Any]
    paths: list[str]
    owners: list[int]
    treedef: TreeDef

    @classmethod
    def of(cls, args: Sequence[Any], names: Sequence[str]) -> "Arguments":
        """Open the positional arguments `args`, whose names are `names`."""
        leaves, paths, owners = [], [], []
        for i, (argument, name) in enumerate(zip(args, names, strict=True)):
            for path, leaf in tree.leaves_with_path(argument):
                leaves.append(leaf)
                paths.append(f"{name}.{path}" if path else name)
                owners.append(i)
        treedef = tree.structure(tuple(args))
        for i in _sizes(treedef):
            leaves[i] = Sizes(leaves[i].tolist())
        return cls(leaves, paths, owners, treedef)


class Signature:
    """The structure, tensors' metadata and static values that a compiled graph is right for."""

    def __init__(self, arguments: Arguments) -> None:
        """Take the signature of a call."""
        self.paths = arguments.paths
        self.treedef = arguments.treedef
        self.facts = [facts_of(_remembered(leaf)) for leaf in arguments.leaves]
        self.tensors = [i for i, leaf in enumerate(arguments.leaves) if isinstance(leaf, Tensor)]
        self.captured: list[Tensor] = []
        self._captured_facts: list[tuple[Any, ...]] = []
        self._rest = [i for i, leaf in enumerate(arguments.leaves) if not isinstance(leaf, Tensor)]
        self._guards: dict[bool, Callable[..., bool] | None] = {}
        self._sizes = list(_sizes(arguments.treedef))
        self._read = make_reader(arguments.treedef)

    def leaves(self, args: tuple[Any, ...]) -> list[Any] | None:
        """The leaves of a call of the same structure, or None."""
        found: list[Any] = []
        try:
            self._read(args, found)
        except MismatchError:
            return None
        for i in self._sizes:
            found[i] = Sizes(found[i].tolist())
        return found

    def matches(self, leaves: list[Any]) -> bool:
        """Whether the leaves are like those compiled for."""
        given = [*(leaves[i] for i in self.tensors), *self.captured]
        rest = all(facts_of(leaves[i]) == self.facts[i] for i in self._rest)
        guard = self._guards.get(torch.is_grad_enabled())
        if guard is not None and guard(*given):  # in a fraction of the time; a no may have other reasons
            return rest
        facts = [facts_of(leaves[i]) for i in self.tensors]
        if not rest or facts != [self.facts[i] for i in self.tensors] or self._changed():
            return False
        self._guards[torch.is_grad_enabled()] = _compat.guards(given)
        return True

    def close_over(self, captured: list[Tensor]) -> None:
        """Take what the function closes over as inputs that are always there."""
        self.captured = captured
        self._captured_facts = [facts_of(tensor) for tensor in captured]

    def _changed(self) -> list[str]:
        """In what the tensors that the function closes over are others by now, though the same objects."""
        pairs = zip(self._captured_facts, map(facts_of, self.captured), strict=True)
        return [f"a tensor that it closes over: {_change(old, new)}" for old, new in pairs if old != new]

    def difference(self, arguments: Arguments) -> str:
        """In what a call differs from this signature, by the names of the arguments."""
        mine, theirs = (
            dict(zip(self.paths, self.facts, strict=True)),
            dict(zip(arguments.paths, [facts_of(leaf) for leaf in arguments.leaves], strict=True)),
        )
        lines = [f"{path}: was absent" for path in theirs if path not in mine]
        lines += [f"{path}: is missing" for path in mine if path not in theirs]
        lines += [
            f"{path}: {_change(mine[path], theirs[path])}"
            for path in mine
            if path in theirs and mine[path] != theirs[path]
        ]
        lines = lines or self._changed()
        if not lines:
            return "the arguments' containers are of other types than before, or their keys in another order"
        return "; ".join(lines[:5]) + (f"; and {len(lines) - 5} more" if len(lines) > 5 else "")


def _remembered(leaf: Any) -> Any:
    """A leaf that stays as it is when the caller goes on to change the object, where its type has an `==`."""
    if isinstance(leaf, Tensor) or type(leaf).__eq__ is object.__eq__:  # type: ignore[comparison-overlap]  # bound or not, they are one object
        return leaf
    try:
        kept = copy.deepcopy(leaf)
        return kept if kept == leaf else leaf
    except Exception:  # what cannot be copied or compared is taken as it is
        return leaf


def facts_of(leaf: Any) -> tuple[Any, ...]:
    """What a graph was made for, of a leaf: of a tensor everything but its numbers."""
    if isinstance(leaf, Tensor):
        # A lazy conjugate and a lazy negative lie in memory as what they are of.
        lazy = (leaf.is_conj(), leaf.is_neg())
        return (leaf.shape, leaf.dtype, leaf.device, leaf.stride(), leaf.requires_grad, type(leaf), lazy)
    if isinstance(leaf, float) and (leaf == 0 or leaf != leaf):
        return (type(leaf), repr(leaf))  # 0.0 equals -0.0, and nan nothing
    return (type(leaf), leaf)


_WORDS = ("shape", "dtype", "device", "strides", "requires_grad", "type", "(conjugate, negative)")


def _change(old: tuple[Any, ...], new: tuple[Any, ...]) -> str:
    if len(old) == len(new) == len(_WORDS):
        for word, before, after in zip(_WORDS, old, new, strict=True):
            if before != after:
                before, after = (tuple(v) if isinstance(v, torch.Size) else v for v in (before, after))
                return f"{word} {before} became {after}"
    if len(old) == len(new) == 2:
        advice = " (pass a 0-dim tensor, which may change freely)" if isinstance(new[1], int | float) else ""
        return f"{old[1]!r} became {new[1]!r}{advice}"
    before, after = ("a tensor" if len(facts) == len(_WORDS) else repr(facts[1]) for facts in (old, new))
    return f"{before} became {after}"


def argument_names(f: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's positional parameters; none where Python knows none (some builtins)."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return ()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(p.name for p in parameters if p.kind in positional)


def keyword_names(f: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's keyword-only parameters."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return ()
    return tuple(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)


def names_of(
    which: Any, names: Sequence[str], word: str, function: str, keywords: Sequence[str] = ()
) -> frozenset[str]:
    """The names of arguments given by position or name, one or several; those in `keywords` by name alone."""
    found = []
    for item in (which,) if isinstance(which, int | str) else tuple(which):
        if isinstance(item, int) and not -len(names) <= item < len(names):
            raise ValueError(
                f"jit({function}, {word}={item}): {function} has {len(names)} positional arguments "
                f"({', '.join(names)})."
            )
        if isinstance(item, str) and item not in (*names, *keywords):
            raise ValueError(
                f"jit({function}, {word}={item!r}): {function} has no argument of that name, but "
                f"{', '.join((*names, *keywords))}."
            )
        found.append(names[item] if isinstance(item, int) else item)
    return frozenset(found)
