"""A scan in a traced graph: one node, whatever its length."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from funcnet import _compat
from funcnet._compat import interpreters
from funcnet.control.primitive import (
    Flat,
    Some,
    apply,
    filled,
    inexact,
    parts,
    pull,
    push,
    reached,
    spread_through,
    zeros_for,
)
from funcnet.control.residuals import Cut, cut_apart

__all__ = ["Scan", "run"]


def run(scan: "Scan", tensors: Sequence[Tensor]) -> list[Tensor]:
    """The final carry and the stacked ys, and if the scan keeps them the carries that the steps started from."""
    asked = _compat.asked_of(*tensors)
    levels = asked.levels - {scan.over}
    wanted = replace(scan, dense=scan.dense or asked.forward)
    if levels and not scan.keeps and (level := _first(levels, tensors)) is not None:
        once = len(levels) == 1 and level >= 0 and not asked.forward and not _compat.sketching()
        cut = wanted.taken_apart(tensors) if once else None
        wanted = replace(wanted, keeps=cut is None, cut=cut, level=level)
    results = apply(wanted, tensors)
    return results if wanted.keeps == scan.keeps and wanted.cut is None else results[: len(results) - wanted.kept]


def _first(levels: frozenset[int], tensors: Sequence[Tensor]) -> int | None:
    """The level of reverse mode that the rules meet first; None where `vmap` comes before, whose rule runs a scan."""
    for level in interpreters.levels():
        if level.number in levels:
            return level.number
        if level.kind == "Vmap" and any(interpreters.mapped_axis(t, level.number)[1] is not None for t in tensors):
            return None
    return min(levels)  # one that is yet to come


@dataclass(frozen=True)
class Scan:
    """A scan over flat tensors: the carry, then what is scanned along its first axis, then what all steps share."""

    body: Flat  # (*carry, *x, *consts) -> (*carry, *y)
    carry: int
    xs: int
    reverse: bool = False
    keeps: bool = False  # whether the carries that the steps start from are results as well, after the ys
    cut: Cut | None = None  # the step in two parts, if what the way back reads is a result in the place of the carries
    level: int | None = None  # of reverse mode, whose derivative the cut is made for
    over: int | None = None  # a level of reverse mode that asks no derivative of this, its own way back
    dense: bool = False  # whether results are to be contiguous behind a mapped axis, as torch's tangents must be

    @property
    def kept(self) -> int:
        """See `Node`."""
        return self.cut.kept if self.cut is not None else self.carry if self.keeps else 0

    def idle(self, tensors: Sequence[Tensor], needed: Sequence[bool], count: int) -> set[int]:
        """See `Node`."""
        if self.cut is not None:
            return set(range(self.carry)).difference(self.cut.moving) | set(range(count - self.kept, count))
        idle = set(range(self.carry)).difference(self.reached(tensors, needed))
        return idle | {count - self.carry + n for n in idle} if self.keeps else idle

    def reached(self, tensors: Sequence[Tensor], sources: Sequence[bool]) -> list[int]:
        """The places in the carry that a derivative goes through."""
        carry, xs, consts = self.split(tensors)
        return reached(self.body, carry, [*(x[0] for x in xs), *consts], sources)

    def split(self, flat: Sequence[Any]) -> list[list[Any]]:
        """Take something for each input apart: carry, xs, consts."""
        return parts(flat, self.carry, self.xs, len(flat) - self.carry - self.xs)

    def taken_apart(self, tensors: Sequence[Tensor]) -> Cut | None:
        """The cut of a step, for the derivative that is asked of these tensors."""
        init, xs, consts = self.split(tensors)
        asked = [bool(_compat.asked_of(t).levels) for t in tensors]
        example = [*init, *(x[0] for x in xs), *consts]
        moving = self.reached(tensors, asked)
        return cut_apart(self.body, example, (self.carry, self.xs), moving, self.others(tensors, asked))

    def others(self, tensors: Sequence[Tensor], needed: Sequence[bool]) -> list[int]:
        """The places of the consts and the xs that have a cotangent, in this order."""
        at = [n for n in inexact(tensors) if needed[n] and n >= self.carry]
        xs = self.carry + self.xs
        return [n for n in at if n >= xs] + [n for n in at if n < xs]

    @property
    def step(self) -> Flat:
        """The body, with what the way back reads."""
        return self.body if self.cut is None else self.cut.forth

    def run(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """See `Node`."""

        def body(*args: Tensor) -> Sequence[Tensor]:
            results = self.step(*args)
            return [*results, *args[: self.carry]] if self.keeps else results

        carry, xs, consts = self.split(tensors)
        if not self.reverse:
            return _compat.scan_node(body, carry, xs, consts)
        results = _compat.scan_node(body, carry, [x.flip(0) for x in xs], consts)
        return [*results[: self.carry], *(y.flip(0) for y in results[self.carry :])]

    def pulled(self, tensors: Sequence[Tensor], kept: Sequence[Tensor], needed: Sequence[bool], given: Some) -> Some:
        """A scan the other way, that carries the cotangents of the carry and the sums of those of the consts."""
        if self.cut is not None:
            return self.pulled_apart(self.cut, tensors, kept, needed, given)
        init, xs, consts = self.split(tensors)
        final_ct, ys_ct, kept_ct = parts(given, self.carry, len(given) - 2 * self.carry, self.carry)
        _, x_needed, const_needed = self.split(needed)
        moving = self.reached(tensors, needed)
        x_at = [n for n in inexact(xs) if x_needed[n]]
        const_at = [n for n in inexact(consts) if const_needed[n]]
        y_at = [n for n, ct in enumerate(ys_ct) if ct is not None]
        kept_at = [n for n, ct in enumerate(kept_ct) if ct is not None and n in moving]
        # Where the differentiated ones are among all inputs of a step, and among its results.
        places = [*moving, *(self.carry + self.xs + n for n in const_at), *(self.carry + n for n in x_at)]
        outs = [*moving, *(self.carry + n for n in y_at)]
        counts = (len(moving), len(const_at), len(init), len(xs), len(y_at), len(kept_at), len(consts))

        def body(*args: Tensor) -> list[Tensor]:
            carry_ct, sums, carry, x, y_ct, extra, shared = parts(args, *counts)
            grads = pull(self.body, [*carry, *x, *shared], places, outs, [*carry_ct, *y_ct])
            new_ct, const_ct, x_ct = parts(grads, len(moving), len(const_at), len(x_at))
            for n, ct in zip(kept_at, extra, strict=True):
                new_ct[moving.index(n)] = new_ct[moving.index(n)] + ct
            return [*new_ct, *(total + ct for total, ct in zip(sums, const_ct, strict=True)), *x_ct]

        start = zeros_for([final_ct[n] for n in moving], [init[n] for n in moving])
        start += [torch.zeros_like(consts[n]) for n in const_at]
        scanned = [*kept, *xs, *(ys_ct[n] for n in y_at), *(kept_ct[n] for n in kept_at)]
        back = Scan(body, len(start), len(scanned), not self.reverse, over=None if self.again else self.level)
        grads = run(back, [*start, *scanned, *consts])
        return filled([None] * len(tensors), places, grads)

    @property
    def again(self) -> bool:
        """On the way back: whether that is differentiated too, of which torch's own autograd says nothing before."""
        return self.level == 0 and torch.is_grad_enabled()

    def pulled_apart(
        self, cut: Cut, tensors: Sequence[Tensor], kept: Sequence[Tensor], needed: Sequence[bool], given: Some
    ) -> Some:
        """The same from what the way forth has kept."""
        given = given[: len(given) - cut.kept]
        if self.again or not {n for n in inexact(tensors) if needed[n] and n >= self.carry} <= set(cut.places):
            whole = replace(self, cut=None, keeps=True)
            kept = apply(whole, tensors)[len(given) :]
            return whole.pulled(tensors, kept, needed, [*given, *([None] * self.carry)])
        init, xs, consts = self.split(tensors)
        final_ct, ys_ct = parts(given, self.carry, len(given) - self.carry)
        at = self.carry + self.xs
        const_at = [n - at for n in cut.places[len(cut.moving) :] if n >= at]
        y_at = [n for n in cut.ys if ys_ct[n] is not None]
        # By what is scanned over torch counts the steps, so there must be something.
        reads = cut.read if kept or y_at or any(cut.read) else [True, *cut.read[1:]]
        read = [x for x, needed in zip(xs, reads, strict=True) if needed]
        counts = (len(cut.moving), len(const_at), len(kept), len(read), len(y_at), len(consts))

        def body(*args: Tensor) -> list[Tensor]:
            carry_ct, sums, stored, rows, y_ct, shared = parts(args, *counts)
            row, ct = iter(rows), dict(zip(y_at, y_ct, strict=True))
            x = [next(row) if needed else None for needed in reads]
            zero = (torch.zeros(t.shape, dtype=t.dtype, device=t.device) for t in cut.ys.values())
            y = [ct.get(n, nothing) for n, nothing in zip(cut.ys, zero, strict=True)]
            grads = cut.back(*stored, *x, *shared, *carry_ct, *y)
            new_ct, const_ct, x_ct = parts(grads, len(cut.moving), len(const_at), len(grads) - sum(counts[:2]))
            return [*new_ct, *(total + ct for total, ct in zip(sums, const_ct, strict=True)), *x_ct]

        start = zeros_for([final_ct[n] for n in cut.moving], [init[n] for n in cut.moving])
        start += [torch.zeros_like(consts[n]) for n in const_at]
        scanned = [*kept, *read, *(ys_ct[n] for n in y_at)]
        back = Scan(body, len(start), len(scanned), not self.reverse, over=self.level)
        return filled([None] * len(tensors), cut.places, run(back, [*start, *scanned, *consts]))

    def pushed(self, tensors: Sequence[Tensor], tangents: Some) -> list[Tensor]:
        """A scan that carries the tangents of the carry as well."""
        init, xs, consts = self.split(tensors)
        init_t, xs_t, consts_t = self.split(tangents)
        moving = self.reached(tensors, [t is not None for t in tangents])
        x_at = [n for n in inexact(xs) if xs_t[n] is not None]
        const_at = [n for n in inexact(consts) if consts_t[n] is not None]
        places = [*moving, *(self.carry + n for n in x_at), *(self.carry + self.xs + n for n in const_at)]
        counts = (len(init), len(moving), len(xs), len(x_at), len(consts), len(const_at))
        kept = len(moving) if self.keeps else 0

        def body(*args: Tensor) -> list[Tensor]:
            carry, carry_t, x, x_t, shared, shared_t = parts(args, *counts)
            results, moved = push(self.body, [*carry, *x, *shared], places, [*carry_t, *x_t, *shared_t])
            by_place = dict(zip(inexact(results), moved, strict=True))
            ys_t = (t for n, t in by_place.items() if n >= self.carry)
            return [*results[: self.carry], *(by_place[n] for n in moving), *ys_t, *(carry_t if self.keeps else ())]

        start = [*init, *zeros_for([init_t[n] for n in moving], [init[n] for n in moving])]
        scanned = [*xs, *(xs_t[n] for n in x_at)]
        shared = [*consts, *(consts_t[n] for n in const_at)]
        both = Scan(body, len(start), len(scanned), self.reverse)
        results = run(both, [*start, *scanned, *shared])[len(init) :]
        final_t, ys_t, kept_t = parts(results, len(moving), len(results) - len(moving) - kept, kept)

        def spread(moved: Sequence[Tensor], *front: int) -> list[Tensor]:
            given = dict(zip(moving, moved, strict=True))
            zeros = ((n, torch.zeros_like(init[n]).expand((*front, *init[n].shape))) for n in inexact(init))
            return [given.get(n, zero) for n, zero in zeros]

        return [*spread(final_t), *ys_t, *(spread(kept_t, *xs[0].shape[:1]) if self.keeps else ())]

    def mapped(self, info: Any, dims: Sequence[int | None], tensors: Sequence[Tensor]) -> Any:
        """A scan with the mapped axis second in what is scanned over, behind that of the steps."""
        init, xs, consts = self.split(tensors)
        init_d, xs_d, consts_d = self.split(dims)
        xs = [x if d is None else x.movedim(d, 1) for x, d in zip(xs, xs_d, strict=True)]
        rest_d = [*(None if d is None else 0 for d in xs_d), *consts_d]
        spread = spread_through(info, self.step, init, init_d, [*(x[0] for x in xs), *consts], rest_d)
        # What the way back reads is by now a result like any other.
        results = run(replace(self, body=spread.body, cut=None), [*spread.carry, *xs, *consts])
        stacked = [1 if b else None for b in [*spread.others, *(spread.batched if self.keeps else ())]]
        if self.dense:
            for n, dim in enumerate(stacked):
                if dim is not None:
                    stacked[n] = 0
                    results[self.carry + n] = results[self.carry + n].movedim(1, 0).contiguous()
        return results, [*(0 if b else None for b in spread.batched), *stacked]
