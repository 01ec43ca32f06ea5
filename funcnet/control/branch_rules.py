"""A choice between two functions in a traced graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from funcnet import _compat
from funcnet.control.primitive import Flat, Some, apply, filled, inexact, mapped_in_front, pull, push

__all__ = ["Cond", "select"]


def select(pred: Tensor, true: Sequence[Tensor], false: Sequence[Tensor]) -> list[Tensor]:
    """One of two lists of results, by a predicate with no more dimensions than they have."""
    pairs = zip(true, false, strict=True)
    return [torch.where(pred.reshape((*pred.shape, *[1] * (t.ndim - pred.ndim))), t, f) for t, f in pairs]


@dataclass(frozen=True)
class Cond:
    """A choice: the predicate, then what both functions take."""

    true: Flat
    false: Flat
    kept: int = 0

    def run(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """See `Node`."""
        return _compat.cond_node(tensors[0], self.true, self.false, tensors[1:])

    def idle(self, tensors: Sequence[Tensor], needed: Sequence[bool], count: int) -> set[int]:
        """See `Node`."""
        return set()

    def pulled(self, tensors: Sequence[Tensor], kept: Sequence[Tensor], needed: Sequence[bool], given: Some) -> Some:
        """A choice between the pullbacks of the two, which are run again for it."""
        pred, *operands = tensors
        places = [n for n in inexact(operands) if needed[1 + n]]
        outs = [n for n, ct in enumerate(given) if ct is not None]
        count = len(operands)

        def pulled(f: Flat) -> Flat:
            return lambda *args: pull(f, args[:count], places, outs, args[count:])

        node = Cond(pulled(self.true), pulled(self.false))
        grads = apply(node, [pred, *operands, *(ct for ct in given if ct is not None)])
        return [None, *filled([None] * count, places, grads)]

    def pushed(self, tensors: Sequence[Tensor], tangents: Some) -> list[Tensor]:
        """A choice between the pushforwards of the two."""
        pred, *operands = tensors
        places = [n for n, t in enumerate(tangents[1:]) if t is not None]
        count = len(operands)

        def pushed(f: Flat) -> Flat:
            return lambda *args: push(f, args[:count], places, args[count:])[1]

        return apply(
            Cond(pushed(self.true), pushed(self.false)), [pred, *operands, *(t for t in tangents if t is not None)]
        )

    def mapped(self, info: Any, dims: Sequence[int | None], tensors: Sequence[Tensor]) -> Any:
        """A choice between the two under `vmap`; both, where elements differ in which."""
        pred, *operands = tensors
        true = mapped_in_front(info, self.true, dims[1:], operands)
        false = mapped_in_front(info, self.false, dims[1:], operands, true.batched)
        wanted = [True] * len(false.batched) if dims[0] is not None else false.batched
        true = mapped_in_front(info, self.true, dims[1:], operands, wanted)
        false = mapped_in_front(info, self.false, dims[1:], operands, wanted)
        if dims[0] is None:
            results = apply(Cond(true.f, false.f), tensors)
        else:
            results = select(pred, true.f(*operands), false.f(*operands))
        return results, [0 if b else None for b in wanted]
