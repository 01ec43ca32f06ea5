"""A tree apart from its tensors: for torch functions that take and return nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .structure import TreeDef, flatten, unflatten

__all__ = ["Form"]


@dataclass
class Form:
    """A tree without its tensors."""

    treedef: TreeDef
    rest: list[Any]  # its leaves, with None for a tensor

    @classmethod
    def opened(cls, value: Any) -> tuple[list[Tensor], "Form"]:
        """The tensors of a tree, and its form."""
        leaves, treedef = flatten(value)
        rest = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)], cls(treedef, rest)

    def filled(self, tensors: Sequence[Any]) -> Any:
        """The tree with these for its tensors."""
        given = iter(tensors)
        return unflatten(self.treedef, [next(given) if leaf is None else leaf for leaf in self.rest])

    def derivative(self, derivatives: Sequence[Tensor | None]) -> Any:
        """A tree of derivatives: None for what has none."""
        given = iter(derivatives)
        return unflatten(self.treedef, [next(given) if leaf is None else None for leaf in self.rest])
