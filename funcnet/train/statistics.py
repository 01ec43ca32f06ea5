"""What a step can tell of its gradients and updates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from funcnet import tree

__all__ = ["STATISTICS", "Change", "check", "measured"]


@dataclass(frozen=True)
class Change:
    """What one step did to the parameters."""

    grads: Any
    """The gradients as the loss gave them: before clipping, with non-finite values in them."""
    before: Any
    after: Any = None
    """None while there is no update yet."""

    @cached_property
    def moved(self) -> Any:
        """By how much."""
        return tree.map(torch.sub, self.after, self.before)


def _norm(leaf: Tensor) -> Tensor:
    return tree.global_norm([leaf])


def _by_path(name: str, values: Any) -> dict[str, Tensor]:
    return {f"{name}/{path}": value for path, value in tree.leaves_with_path(values)}


def _ratio(moved: Tensor, before: Tensor) -> Tensor:
    return _norm(moved) / _norm(before)


def _nonfinite(leaf: Tensor) -> Tensor:
    return (~torch.isfinite(leaf)).sum()


def _total(values: Any) -> Tensor:
    return torch.stack(tree.leaves(values)).sum()


STATISTICS: Mapping[str, Callable[[Change], dict[str, Tensor]]] = {
    "grad_norm": lambda c: {"grad_norm": tree.global_norm(c.grads)},
    "grad_norms": lambda c: _by_path("grad_norm", tree.map(_norm, c.grads)),
    "param_norm": lambda c: {"param_norm": tree.global_norm(c.before)},
    "update_norm": lambda c: {"update_norm": tree.global_norm(c.moved)},
    "update_ratio": lambda c: {"update_ratio": tree.global_norm(c.moved) / tree.global_norm(c.before)},
    "update_ratios": lambda c: _by_path("update_ratio", tree.map(_ratio, c.moved, c.before)),
    "nonfinite": lambda c: {"nonfinite": _total(tree.map(_nonfinite, c.grads))},
    "nonfinites": lambda c: _by_path("nonfinite", tree.map(_nonfinite, c.grads)),
}
"""By name: lengths and counts over all leaves, and, in the plural, of each leaf under `name/path`."""

_OF_UPDATES = {"update_norm", "update_ratio", "update_ratios"}


def check(names: Sequence[str]) -> bool:
    """Whether one of these statistics looks at parameters before and after; `ValueError` for an unknown one."""
    if isinstance(names, str):
        raise TypeError(f"metrics takes a sequence of names: write metrics=[{names!r}].")
    for name in names:
        if name not in STATISTICS:
            near = get_close_matches(name, STATISTICS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"there is no statistic {name!r}.{hint} There are {', '.join(STATISTICS)}.")
    return not _OF_UPDATES.isdisjoint(names)


def measured(names: Sequence[str], change: Change) -> dict[str, Tensor]:
    """Those of these statistics that are of an update, where there is one; and the others, where there is none yet.

    A step that donates has consumed its parameters by the time that there is one.
    """
    found: dict[str, Tensor] = {}
    for name in names:
        if (name in _OF_UPDATES) == (change.after is not None):
            found |= STATISTICS[name](change)
    return found
