"""Taking dicts apart by name, to freeze, decay or load a part, and putting them together again."""

import re
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from fnmatch import translate
from typing import Any, TypeAlias

from .. import _compat
from .structure import PyTree

__all__ = ["Pattern", "UnknownNameError", "merge", "split"]

Pattern: TypeAlias = str | tuple[str, ...] | Callable[[str, Any], bool]
"""A glob, several globs, or a predicate of name and leaf."""


class UnknownNameError(KeyError):
    """A pattern that names nothing in the tree."""

    __module__ = "funcnet.tree"

    def __str__(self) -> str:
        """The message as it was written: KeyError alone would print its repr."""
        return str(self.args[0])


def split(tree: PyTree, *patterns: Pattern) -> tuple[dict[str, Any], ...]:
    """Take a dict apart by the names of its leaves: `(matching_1, ..., matching_n, rest)`.

    A pattern is a glob (`*` crosses dots: `"layer1.*"` takes all below), a tuple of globs, or a predicate
    `(name, leaf) -> bool`. A leaf goes to the first pattern that it matches. Nested dicts are matched by dotted path
    and come back nested, without the branches that lost all leaves. `merge` is the inverse.

    Freezing is this call before differentiation: what is split off enters no norm, no moment, no decay.

    Raises `UnknownNameError` (a `KeyError`) where a glob matches nothing, and `TypeError` where the tree is not
    made of dicts.

    >>> params = {"body.weight": 1, "body.bias": 2, "fc.weight": 3}
    >>> split(params, "fc.*")
    ({'fc.weight': 3}, {'body.weight': 1, 'body.bias': 2})
    >>> split(params, "fc.*", lambda name, leaf: name.endswith("bias"))
    ({'fc.weight': 3}, {'body.bias': 2}, {'body.weight': 1})
    """
    parts: tuple[dict[str, Any], ...] = tuple({} for _ in range(len(patterns) + 1))
    globs = [tuple((glob, translate(glob)) for glob in _globs(pattern)) for pattern in patterns]
    unused = dict(pair for pairs in globs for pair in pairs)
    names: list[str] = []
    for keys, leaf in _items(tree, ()):
        name = ".".join(str(key) for key in keys)
        place = len(patterns)
        if leaf is not None and not isinstance(leaf, dict):
            names.append(name)
            unused = {glob: regex for glob, regex in unused.items() if not re.match(regex, name)}
            for i, (pattern, pairs) in enumerate(zip(patterns, globs, strict=True)):
                if pattern(name, leaf) if callable(pattern) else any(re.match(regex, name) for _, regex in pairs):
                    place = i
                    break
        _insert(parts[place], keys, leaf)
    if unused:
        glob = next(iter(unused))
        near = get_close_matches(glob, names, 3, 0.4) or names[:3]
        listed = ", ".join(repr(name) for name in near) or "nothing, the tree is empty"
        raise UnknownNameError(
            f"split found no name that matches {glob!r} among {len(names)}; near it: {listed}. "
            "A glob must match the whole name: write 'fc.*' for all below fc, and see tree.paths(params) for the names."
        )
    return parts


def _globs(pattern: Pattern) -> tuple[str, ...]:
    if isinstance(pattern, str):
        return (pattern,)
    if isinstance(pattern, tuple):
        return pattern
    if callable(pattern):
        return ()
    raise TypeError(
        f"split takes a glob, a tuple of globs or a predicate (name, leaf) -> bool, not {pattern!r}: "
        "write split(params, ('fc.*', 'norm.*'))."
    )


def _items(tree: PyTree, keys: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(tree, dict):
        if not tree and keys:
            yield keys, {}  # an empty branch is kept, so that merge can give it back
        for key, child in tree.items():
            yield from _items(child, (*keys, key))
    elif not keys or _compat.tree_node(tree) is not None:
        where = f"{'.'.join(str(key) for key in keys)!r} is" if keys else "the tree itself is"
        raise TypeError(
            f"split takes a tree of dicts, whose parts keep their names: {where} a {type(tree).__name__}. "
            "Split the dicts inside it one by one."
        )
    else:
        yield keys, tree


def _insert(part: dict[str, Any], keys: tuple[Any, ...], leaf: Any) -> None:
    for key in keys[:-1]:
        part = part.setdefault(key, {})
    part[keys[-1]] = leaf


def merge(*trees: PyTree, like: PyTree = None) -> dict[str, Any]:
    """Put dicts together that have no leaf in common: `merge(*split(tree, ...))` has what `tree` had.

    Names come in the order of the arguments: split and merged again they are equal as dicts, but ordered by part.
    With `like=tree` they come in the order of `tree`, whose leaves are not looked at; names it lacks come last.

    Raises `ValueError` naming a leaf that lies in two trees.

    >>> head, body = {"fc.weight": 3}, {"body.weight": 1}
    >>> merge(head, body)
    {'fc.weight': 3, 'body.weight': 1}
    >>> merge(head, body, like={"body.weight": 0, "fc.weight": 0})
    {'body.weight': 1, 'fc.weight': 3}
    """
    merged: dict[str, Any] = {}
    for tree in trees:
        if not isinstance(tree, dict):
            raise TypeError(f"merge takes dicts, as split returns them, not a {type(tree).__name__}.")
        _merge(merged, tree, "")
    return merged if like is None else _ordered(merged, like)


def _merge(into: dict[str, Any], tree: dict[str, Any], path: str) -> None:
    for key, value in tree.items():
        name = f"{path}.{key}" if path else str(key)
        if key not in into:
            # A fresh dict for each branch: a later tree may add to it, and the arguments must stay as they are.
            into[key] = _copied(value)
        elif isinstance(into[key], dict) and isinstance(value, dict):
            _merge(into[key], value, name)
        else:
            raise ValueError(
                f"merge found {name!r} in two trees, and cannot know which to keep: drop it from one, as in "
                f"`_, rest = tree.split(params, {name!r})`, or write {{**old, **new}} where the second should win."
            )


def _copied(value: Any) -> Any:
    return {key: _copied(child) for key, child in value.items()} if isinstance(value, dict) else value


def _ordered(tree: Any, like: Any) -> Any:
    if not isinstance(tree, dict) or not isinstance(like, dict):
        return tree
    keys = [key for key in like if key in tree] + [key for key in tree if key not in like]
    return {key: _ordered(tree[key], like.get(key)) for key in keys}
