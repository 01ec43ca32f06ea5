"""Small leaves as one vector, so that a rule written for one leaf runs on a tree of them in few operations.

In eager steps a small leaf costs what launching its operations costs. Joining and splitting are two of them, and a
rule has ten. A vector is short enough to stay in cache, where a whole tree makes every operation a pass over memory.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Packs"]

# Elements. Beyond the first a leaf's arithmetic costs more than launching it, and beyond the second (1 MB for each of a
# rule's operands) a CPU's cache is full; a GPU has no such limit, and launches are dearer there.
_SMALL = {"cpu": 1 << 14, "cuda": 1 << 18}
_PACK = {"cpu": 1 << 16, "cuda": 1 << 24}


class Packs:
    """Which leaves of a list go together."""

    def __init__(self, leaves: Sequence[Tensor]) -> None:
        """Group the leaves, which have one dtype and device, by their sizes."""
        kind = "cpu" if leaves[0].device.type == "cpu" else "cuda"
        small, most = _SMALL[kind], _PACK[kind]
        self._shapes = [leaf.shape for leaf in leaves]
        self._sizes = [leaf.numel() for leaf in leaves]
        self._groups: list[list[int]] = []
        together: list[int] = []
        room = -1
        for index, size in enumerate(self._sizes):
            if size > small:
                self._groups.append([index])
                continue
            if size > room:
                room, together = most, []
                self._groups.append(together)
            together.append(index)
            room -= size

    def rows(self, columns: Sequence[Sequence[Tensor]]) -> Iterator[list[Tensor]]:
        """The operands of the rule: a large leaf, or a vector of small ones, of every column."""
        for group in self._groups:
            if len(group) == 1:
                yield [column[group[0]] for column in columns]
            else:
                yield [torch.cat([column[index].reshape(-1) for index in group]) for column in columns]

    def leaves(self, results: Sequence[Tensor]) -> list[Tensor]:
        """What the rule returned for every row, as leaves again, each with memory of its own."""
        found: list[Any] = [None] * len(self._sizes)
        for group, result in zip(self._groups, results, strict=True):
            if len(group) == 1:
                found[group[0]] = result
                continue
            parts = torch.split(result, [self._sizes[index] for index in group])
            for index, part in zip(group, parts, strict=True):
                found[index] = part.clone().view(self._shapes[index])
        return found
