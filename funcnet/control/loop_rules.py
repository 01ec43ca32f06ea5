"""A while loop in a traced graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from funcnet import _compat
from funcnet.control.branch_rules import select
from funcnet.control.primitive import (
    Flat,
    Some,
    apply,
    inexact,
    mapped_in_front,
    parts,
    push,
    spread_through,
    zeros_for,
)

__all__ = ["While"]


@dataclass(frozen=True)
class While:
    """A loop over flat tensors: the carry, then what all turns share."""

    cond: Flat  # (*carry, *consts) -> (predicate,)
    body: Flat  # (*carry, *consts) -> (*carry,)
    carry: int
    kept: int = 0

    def run(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """See `Node`."""
        return _compat.while_node(self.cond, self.body, tensors[: self.carry], tensors[self.carry :])

    def idle(self, tensors: Sequence[Tensor], needed: Sequence[bool], count: int) -> set[int]:
        """See `Node`."""
        return set()

    def pulled(self, tensors: Sequence[Tensor], kept: Sequence[Tensor], needed: Sequence[bool], given: Some) -> Some:
        """An error: how much there is to keep for the way back is not known when the graph is made."""
        raise TypeError(
            "while_loop has no reverse-mode derivative under jit: how many turns it makes is not known when it is "
            "compiled, nor so what to keep for the way back. Write fori_loop with Python ints for its bounds, or scan "
            "with length= for the most turns there may be and torch.where on what is finished. Forward mode (jvp, "
            "jacfwd) works, and so does reverse mode without jit."
        )

    def pushed(self, tensors: Sequence[Tensor], tangents: Some) -> list[Tensor]:
        """A loop that carries the tangents of the carry as well."""
        moving = inexact(tensors[: self.carry])
        const_at = [n for n in range(self.carry, len(tensors)) if tangents[n] is not None]
        counts = (self.carry, len(moving), len(tensors) - self.carry, len(const_at))

        def cond(*args: Tensor) -> Sequence[Tensor]:
            carry, _, shared, _ = parts(args, *counts)
            return self.cond(*carry, *shared)

        def body(*args: Tensor) -> list[Tensor]:
            carry, carry_t, shared, shared_t = parts(args, *counts)
            results, moved = push(self.body, [*carry, *shared], [*moving, *const_at], [*carry_t, *shared_t])
            return [*results, *moved]

        carry, shared = parts(tensors, self.carry, len(tensors) - self.carry)
        start = [*carry, *zeros_for([tangents[n] for n in moving], [carry[n] for n in moving])]
        consts = [*shared, *(t for t in tangents[self.carry :] if t is not None)]
        return apply(While(cond, body, len(start)), [*start, *consts])[self.carry :]

    def mapped(self, info: Any, dims: Sequence[int | None], tensors: Sequence[Tensor]) -> Any:
        """A loop until the last element is done, if they differ in that; what is done then stays as it is."""
        carry, consts = parts(tensors, self.carry, len(tensors) - self.carry)
        carry_d, consts_d = parts(dims, self.carry, len(tensors) - self.carry)
        spread = spread_through(info, self.body, carry, carry_d, consts, consts_d)
        going = self._going(info, spread.carry, spread.batched, consts, consts_d)
        body, cond = spread.body, going.f
        if any(going.batched):
            spread = spread_through(info, self.body, carry, carry_d, consts, consts_d, every=True)
            going = self._going(info, spread.carry, spread.batched, consts, consts_d)

            def cond(*args: Tensor) -> list[Tensor]:
                return [going.f(*args)[0].any()]

            def body(*args: Tensor) -> list[Tensor]:
                return select(going.f(*args)[0], spread.body(*args), args[: self.carry])

        results = apply(While(cond, body, self.carry), [*spread.carry, *consts])
        return results, [0 if b else None for b in spread.batched]

    def _going(
        self, info: Any, carry: Any, batched: Sequence[bool], consts: Any, consts_d: Sequence[int | None]
    ) -> Any:
        dims = [*(0 if b else None for b in batched), *consts_d]
        return mapped_in_front(info, self.cond, dims, [*carry, *consts])
