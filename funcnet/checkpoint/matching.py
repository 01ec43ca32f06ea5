"""What of a file goes where in a tree: names chosen and changed by glob, and the report of what matched."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import translate
from typing import Any, TypeAlias

from torch import Tensor

from ..tree import UnknownNameError
from .manifest import TensorInfo

__all__ = ["Names", "Report", "choose", "compare"]

Names: TypeAlias = str | tuple[str, ...] | Mapping[str, str]
"""A glob, several, or a mapping of globs to new names: `{"body.*": "encoder.*"}`."""

_SHOWN = 5


@dataclass(frozen=True)
class Report:
    """What of a file went into a tree, by the tree's paths; its `str()` is for people.

    >>> print(Report(("w",), ("head.weight",), ("heads.weight",), {"b": "(3,) in the file, (4,) wanted"}))
    1 matched, 1 missing, 1 unexpected, 1 mismatched
      missing: 'head.weight' (near 'heads.weight')
      unexpected: 'heads.weight' (near 'head.weight')
      mismatched: 'b', (3,) in the file, (4,) wanted
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...] = ()
    """In the tree and not in the file: these keep the tree's own values."""
    unexpected: tuple[str, ...] = ()
    """In the file and not in the tree, by the new name where it was renamed."""
    mismatched: Mapping[str, str] = field(default_factory=dict)
    """In both, of another shape, dtype or kind: these too keep the tree's own values. What differs, by path."""
    cast: tuple[str, ...] = ()
    """Matched, and given the dtype of the tree."""
    tied: tuple[str, ...] = ()
    """In the file under a second name, with the values of one that matched."""

    def __str__(self) -> str:
        """Counts, and the first of each."""
        counts = [
            (len(self.matched), "matched"),
            (len(self.missing), "missing"),
            (len(self.unexpected), "unexpected"),
            (len(self.mismatched), "mismatched"),
        ]
        if self.cast:
            counts.append((len(self.cast), "cast"))
        if self.tied:
            counts.append((len(self.tied), "tied"))
        lines = [", ".join(f"{count} {word}" for count, word in counts)]
        lines += _first("missing", (f"{path!r}{near(path, self.unexpected)}" for path in self.missing))
        lines += _first("unexpected", (f"{path!r}{near(path, self.missing)}" for path in self.unexpected))
        lines += _first("mismatched", (f"{path!r}, {what}" for path, what in self.mismatched.items()))
        return "\n".join(lines)


def _first(word: str, items: Iterable[str]) -> list[str]:
    found = list(items)
    more = [f"  and {len(found) - _SHOWN} more {word}"] if len(found) > _SHOWN else []
    return [f"  {word}: {item}" for item in found[:_SHOWN]] + more


def near(path: str, others: Iterable[str]) -> str:
    """The name among the others that is likely meant, in brackets, or nothing."""
    close = get_close_matches(path, list(others)[:200], 1, 0.7)  # the 200 bounds a quadratic search
    return f" (near {close[0]!r})" if close else ""


def choose(saved: Iterable[str], names: Names | None) -> dict[str, str]:
    """The chosen names of a file: `{new: old}`, in the file's order. None takes all as they are.

    A glob must match a whole name, `*` crosses dots; the first one that matches decides. In a new name each `*` is
    what that of the glob stood for, one after the other.

    Raises `UnknownNameError` for a glob that matches nothing, `ValueError` where two names become one.

    >>> choose(["body.0.weight", "fc.weight"], {"body.*": "encoder.*"})
    {'encoder.0.weight': 'body.0.weight'}
    """
    saved = list(saved)
    if names is None:
        return {name: name for name in saved}
    given = (names,) if isinstance(names, str) else names
    rules = dict(given) if isinstance(given, Mapping) else dict.fromkeys(given)
    regexes = {glob: re.compile(_regex(glob), re.DOTALL) for glob in rules}
    for glob, new in rules.items():
        if new is not None and new.count("*") not in (0, regexes[glob].groups):
            raise ValueError(f"names= changes {glob!r} to {new!r}: the new name needs as many * as the old, or none.")
    unused = set(rules)
    chosen: dict[str, str] = {}
    for old in saved:
        hits = [(glob, hit) for glob, regex in regexes.items() if (hit := regex.fullmatch(old))]
        unused -= {glob for glob, _ in hits}
        if not hits:
            continue
        glob, hit = hits[0]
        template = rules[glob]
        new = old if template is None else _filled(template, hit.groups())
        if new in chosen:
            raise ValueError(f"names= gives {chosen[new]!r} and {old!r} the same name, {new!r}.")
        chosen[new] = old
    if unused:
        glob = min(unused)
        close = get_close_matches(glob, saved, 3, 0.4) or saved[:3]
        listed = ", ".join(map(repr, close)) or "nothing, the file is empty"
        raise UnknownNameError(
            f"no name in the file matches {glob!r} of {len(saved)}; near it: {listed}. A glob must match the whole "
            "name: write 'params.fc.*' for all below params.fc."
        )
    return chosen


def _regex(glob: str) -> str:
    # fnmatch's own reading of each token, `(?s:token)` and an end, with a group for each star.
    tokens = re.findall(r"\*|\[!?\]?[^\]]*\]|.", glob, re.DOTALL)
    return "".join("(.*)" if token == "*" else translate(token)[4:-3] for token in tokens)


def _filled(template: str, groups: tuple[str, ...]) -> str:
    first, *rest = template.split("*")
    return first + "".join(group + part for group, part in zip(groups, rest, strict=False))


def compare(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Report:
    """The report of leaves by path, `TensorInfo` or values, for a tree with leaves of these paths.

    >>> compare({"a": 3, "b": 1.0}, {"a": 0, "b": 0, "c": torch.ones(2)}).mismatched
    {'b': 'float in the file, int wanted'}
    """
    mismatched = {}
    for path, leaf in wanted.items():
        if path in found:
            have, want = _words(found[path]), _words(leaf)
            if have != want:
                mismatched[path] = f"{have} in the file, {want} wanted"
    return Report(
        matched=tuple(path for path in wanted if path in found and path not in mismatched),
        missing=tuple(path for path in wanted if path not in found),
        unexpected=tuple(path for path in found if path not in wanted),
        mismatched=mismatched,
    )


def _words(leaf: Any) -> str:
    if isinstance(leaf, TensorInfo | Tensor):
        return f"{str(leaf.dtype).removeprefix('torch.')} {tuple(leaf.shape)}"
    return type(leaf).__name__
