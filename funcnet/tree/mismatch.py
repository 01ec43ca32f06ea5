"""The one error for two trees that should match and do not."""

from collections.abc import Iterator
from difflib import get_close_matches
from operator import attrgetter
from typing import Any

import torch

from .. import _compat
from .causes import CAUSES, Difference, dtype_name, shape_of
from .structure import PyTree, leaves_with_path

__all__ = ["TreeMismatchError", "align", "check_like", "match"]

_shape = attrgetter("shape")
_SHOWN = 5  # more lines hide the first, and the cause is nearly always one for all


class TreeMismatchError(ValueError):
    """Two trees that should have had the same names, shapes or dtypes did not."""

    __module__ = "funcnet.tree"  # its public home, which is what a traceback should print


def check_like(
    got: PyTree,
    want: PyTree,
    what: str = "params",
    against: str = "model",
    *,
    shape: bool = True,
    dtype: bool = False,
) -> None:
    """Raise `TreeMismatchError` unless `got` has the structure of `want`, and its leaves the same shapes.

    The order of dict keys does not count, nor which kind of dict it is. `what` and `against` name the two in the
    message; `dtype=True` compares dtypes as well, `shape=False` the structure alone. Nothing is read from the leaves
    but shape and dtype, so `want` may live on the meta device.

    >>> check_like({"w": torch.ones(2, 3)}, {"w": torch.zeros(2, 3)})
    >>> check_like({"w": torch.ones(3, 2)}, {"w": torch.zeros(2, 3)})
    Traceback (most recent call last):
    ...
    funcnet.tree.TreeMismatchError: params does not match model: 1 wrong shape. params['w'] looks transposed: \
torch keeps (out, in), jax and flax (in, out); write leaf.mT.
      'w' has shape (3, 2), model wants (2, 3)
    """
    match(got, want, what, against, shape=shape, dtype=dtype)


def match(got: PyTree, want: PyTree, what: str, against: str, *, shape: bool = True, dtype: bool = False) -> list[Any]:
    """The leaves of `got` in the order of `want`, checked as `check_like` does.

    >>> match({"b": 1, "a": 2}, {"a": 0, "b": 0}, "updates", "params")
    [2, 1]
    """
    # No paths until it fails: a training step comes through here and nearly always succeeds.
    given: list[Any] = []
    wanted: list[Any] = []
    if not _align(got, want, given, wanted) or not _same_leaves(given, wanted, shape, dtype):
        raise TreeMismatchError(_message(got, want, what, against, shape, dtype))
    return given


def _same_leaves(got: list[Any], want: list[Any], shape: bool, dtype: bool) -> bool:
    if not shape and not dtype:
        return True
    if shape and not dtype and set(map(type, got)) == set(map(type, want)) == {torch.Tensor}:
        return list(map(_shape, got)) == list(map(_shape, want))
    for g, w in zip(got, want, strict=True):
        if isinstance(w, torch.Tensor):
            if not isinstance(g, torch.Tensor) or (shape and g.shape != w.shape) or (dtype and g.dtype != w.dtype):
                return False
        elif (shape and shape_of(g) != shape_of(w)) or (dtype and dtype_name(g) != dtype_name(w)):
            return False
    return True


def align(got: PyTree, want: PyTree) -> list[Any] | None:
    """The leaves of `got` in the order of `want`, or None where the structures differ.

    >>> align({"b": 1, "a": 2}, {"a": 0, "b": 0})
    [2, 1]
    """
    given: list[Any] = []
    return given if _align(got, want, given, []) else None


def _align(got: PyTree, want: PyTree, given: list[Any], wanted: list[Any]) -> bool:
    if isinstance(got, torch.Tensor) and isinstance(want, torch.Tensor):
        given.append(got)
        wanted.append(want)
        return True
    if got is None or want is None:
        return got is want
    got_node, want_node = _compat.tree_node(got), _compat.tree_node(want)
    if got_node is None or want_node is None:
        given.append(got)
        wanted.append(want)
        return got_node is want_node
    if isinstance(got, dict) and isinstance(want, dict):
        # state_dict() is an OrderedDict, gradients come in the order of their own dict: names decide.
        if len(got) != len(want) or got.keys() != want.keys():
            return False
        for key, w in want.items():
            g = got[key]
            if isinstance(g, torch.Tensor) and isinstance(w, torch.Tensor):
                given.append(g)
                wanted.append(w)
            elif not _align(g, w, given, wanted):
                return False
        return True
    if type(got) is not type(want):
        return False
    got_children, got_context = got_node.flatten_fn(got)
    want_children, want_context = want_node.flatten_fn(want)
    if got_context != want_context or len(got_children) != len(want_children):
        return False
    return all(_align(g, w, given, wanted) for g, w in zip(got_children, want_children, strict=True))


def _message(got: PyTree, want: PyTree, what: str, against: str, shape: bool, dtype: bool) -> str:
    given, wanted = dict(leaves_with_path(got)), dict(leaves_with_path(want))
    common = [path for path in wanted if path in given]
    tensors = [p for p in common if isinstance(wanted[p], torch.Tensor)] if shape or dtype else []
    kinds = [p for p in tensors if not isinstance(given[p], torch.Tensor)]
    difference = Difference(
        what,
        against,
        given,
        wanted,
        missing=[p for p in wanted if p not in given],
        unexpected=[p for p in given if p not in wanted],
        kinds=kinds,
        shapes=[p for p in common if shape and p not in kinds and shape_of(given[p]) != shape_of(wanted[p])],
        dtypes=[p for p in common if dtype and p not in kinds and dtype_name(given[p]) != dtype_name(wanted[p])],
    )
    counts = [
        (len(difference.missing), "missing"),
        (len(difference.unexpected), "unexpected"),
        (len(difference.kinds), "not a tensor"),
        (len(difference.shapes), "wrong shape"),
        (len(difference.dtypes), "wrong dtype"),
    ]
    lines = list(_lines(difference))
    if not lines:
        return (
            f"{what} does not match {against}: the names agree, the containers do not "
            f"({_containers(got, want, 'the tree itself')}); build it from the same dicts, tuples and classes, "
            "as in tree.map(f, like)."
        )
    summary = ", ".join(f"{count} {word}" for count, word in counts if count)
    cause = next((hint for rule in CAUSES if (hint := rule(difference))), "")
    shown = lines[:_SHOWN] + ([f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else [])
    return "\n".join([f"{what} does not match {against}: {summary}.{' ' + cause if cause else ''}", *shown])


def _containers(got: PyTree, want: PyTree, path: str) -> str:
    """The first place where two trees of the same paths are made of different containers."""
    got_node, want_node = _compat.tree_node(got), _compat.tree_node(want)
    if got_node is None or want_node is None or (type(got) is not type(want) and not isinstance(got, dict)):
        return f"{path} is {_indefinite(got)}, not {_indefinite(want)}"
    theirs = dict(_compat.tree_children(want_node, want))
    for name, child in _compat.tree_children(got_node, got):
        if name in theirs and align(child, theirs[name]) is None:
            return _containers(child, theirs[name], name if path == "the tree itself" else f"{path}.{name}")
    return f"{path} is {_indefinite(got)}, not {_indefinite(want)}"


def _indefinite(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _lines(d: Difference) -> Iterator[str]:
    for path in d.missing:
        wanted = d.want[path]
        yield f"  {path!r} is missing, a {dtype_name(wanted)} of shape {shape_of(wanted)}{_near(path, d.unexpected)}"
    for path in d.unexpected:
        yield f"  {path!r} is unexpected{_near(path, d.missing)}"
    for path in d.kinds:
        yield f"  {path!r} is a {type(d.got[path]).__name__}, {d.against} wants a tensor"
    for path in d.shapes:
        yield f"  {path!r} has shape {shape_of(d.got[path])}, {d.against} wants {shape_of(d.want[path])}"
    for path in d.dtypes:
        yield f"  {path!r} is {dtype_name(d.got[path])}, {d.against} wants {dtype_name(d.want[path])}"


def _near(path: str, others: list[str]) -> str:
    near = get_close_matches(path, others[:200], 1, 0.8)  # the 200 bounds a quadratic search in a huge tree
    return f" (near {near[0]!r})" if near else ""
