"""`scan`: one step, many times, with what it carries and what it collects."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

from funcnet import _compat, random, tree
from funcnet.control.closure import Body, ambient, rekeyed, visible
from funcnet.control.contract import Carry, Results, name_of, pair, scanned
from funcnet.control.primitive import Flat, parts
from funcnet.control.scan_rules import Scan, run
from funcnet.control.staged import Staged, next_key

__all__ = ["scan"]

C = TypeVar("C")


def scan(
    f: Callable[[C, Any], tuple[C, Any]],
    init: C,
    xs: Any = None,
    *,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
) -> tuple[C, Any]:
    """Step along the first axis of `xs`, handing a carry from step to step: `jax.lax.scan`, of trees.

    It is `for x in xs: carry, y = f(carry, x); ys.append(y)`, and in eager mode nothing else. Under `jit` the step is
    compiled once, whatever the length. Its gradient there keeps of each step what the way back reads, as a loop does;
    with `remat(f)`, and where higher derivatives are asked, it keeps the carries alone and computes each step again.

    Tensors that `f` closes over are followed. Inside a module each step draws from a key of its own, and BatchNorm
    statistics go from step to step.

    Args:
        f: a pure function `(carry, x) -> (carry, y)`; the carry keeps its structure, shapes and dtypes.
        init: the first carry, a tree of tensors. A number in it is made a tensor of torch's default dtype for it.
        xs: a tree of tensors with one length on their first axis; `f` gets a slice of each. None for none.
        length: the number of steps, needed where `xs` holds no tensor.
        reverse: whether to start at the end; the ys are in the order of xs either way.
        unroll: how many steps a compiled loop makes in one turn. At least the length, or True: no loop at all.

    Returns:
        The last carry, and the ys stacked on a first axis of the length (None where `f` gives None).

    Raises:
        TypeError: the carry changes its structure, a shape or a dtype; `f` returns no pair; a leaf is no tensor.
        ValueError: the lengths differ.

    >>> scan(lambda total, x: (total + x, total * x), torch.tensor(0), torch.tensor([1, 2, 3]))
    (tensor(6), tensor([0, 2, 9]))
    """
    leaves, treedef, count = scanned(visible(xs), length)
    if not isinstance(unroll, int) or unroll < 0 or (unroll == 0 and unroll is not False):
        raise TypeError(f"scan takes unroll as a bool or an int of at least 1, and got {unroll!r}.")
    step = _Step(f, Carry(visible(init), "scan", f), treedef)
    key = next_key()
    keys = None if key is None else random.split(key, count)
    at_once = count if unroll is True else max(unroll, 1)
    if count == 0:
        flat = _without_steps(step, leaves)
    elif count > at_once and _compat.graphing():
        flat = _in_graph(step, leaves, keys, count, reverse, at_once)
    else:
        flat = _eagerly(step, leaves, keys, count, reverse)
    final, ys = parts(flat, len(step.carry.leaves), len(flat) - len(step.carry.leaves))
    return step.carry.filled(final), tree.unflatten(step.ydef, ys)


class _Step:
    """The user's step on flat tensors, checked."""

    ydef: tree.TreeDef
    _first: Results | None = None  # the y to hold the others to, which are stacked leaf by leaf

    def __init__(self, f: Callable[..., Any], carry: Carry, xdef: tree.TreeDef) -> None:
        self.f, self.carry, self.xdef = f, carry, xdef

    def lists(self, carry: Sequence[Tensor], x: Sequence[Tensor]) -> list[Tensor]:
        out = self.f(self.carry.filled(carry), tree.unflatten(self.xdef, x))
        new, y = pair(out, "scan", self.f, "(carry, y)")
        carried = self.carry.matched(new)
        if self._first is not None:
            return [*carried, *self._first.matched(y)]
        name = name_of(self.f)
        needs = f"scan needs from {name} a y of one kind in every step"
        first = self._first = Results(y, f"the y of {name} under scan", needs, "that of another step", self.f)
        self.ydef = first.treedef
        return [*carried, *first.leaves]


def _loop(step: Flat, carry: Sequence[Tensor], xs: Sequence[Tensor], count: int, reverse: bool) -> list[Tensor]:
    """The final carry and the ys, flat, by a Python loop."""
    size = len(carry)
    rows = [x.unbind(0) for x in xs]
    steps = []
    for i in reversed(range(count)) if reverse else range(count):
        results = step(*carry, *(row[i] for row in rows))
        carry = results[:size]
        steps.append(results[size:])
    if reverse:
        steps.reverse()
    return [*carry, *(torch.stack(y) for y in zip(*steps, strict=True))]


def _eagerly(step: _Step, xs: list[Tensor], keys: Tensor | None, count: int, reverse: bool) -> list[Tensor]:
    mode, size = ambient(), len(step.carry.leaves)

    def one(*args: Tensor) -> list[Tensor]:
        carry, x, key = parts(args, size, len(xs), len(args) - size - len(xs))
        with rekeyed(mode, key[0]) if mode is not None and key else nullcontext():
            return step.lists(carry, x)

    return _loop(one, step.carry.leaves, xs if keys is None else [*xs, keys], count, reverse)


def _without_steps(step: _Step, xs: Sequence[Tensor]) -> list[Tensor]:
    """The first carry, and the ys of no steps: one is made with zeros, to see what they would be."""
    mode, init = ambient(), step.carry.leaves
    with _compat.sketch() if _compat.graphing() else nullcontext():
        x = [torch.zeros(x.shape[1:], dtype=x.dtype, device=x.device) for x in xs]
        body = Body(step.lists, [], mode)
        key = None if mode is None else mode.key
        results = body.run([], key, 0, ([t.clone() for t in init], x), {}).result
    return [*init, *(torch.zeros((0, *y.shape), dtype=y.dtype, device=y.device) for y in results[len(init) :])]


def _in_graph(
    step: _Step, xs: list[Tensor], keys: Tensor | None, count: int, reverse: bool, at_once: int
) -> list[Tensor]:
    init = step.carry.leaves
    staged = Staged(step.lists, init, [x[0] for x in xs])
    drawn = [keys] if staged.draws and keys is not None else []
    start, rows = [*init, *staged.written], [*xs, *drawn]
    if not rows:
        rows = [torch.arange(count)]  # it is by what is scanned over that torch counts the steps

    def one(*args: Tensor) -> list[Tensor]:
        carry, writes, x, own, reads = parts(
            args, len(init), len(staged.written), len(xs), len(rows) - len(xs), len(staged.reads)
        )
        results, written = staged(reads, writes, own[0] if drawn else None, carry, x)
        return [*results[: len(init)], *written, *results[len(init) :]]

    def turn(*args: Tensor) -> list[Tensor]:
        carry, x, reads = parts(args, len(start), len(rows), len(staged.reads))
        return _loop(lambda *both: one(*both, *reads), carry, x, at_once, reverse)

    whole = count - count % at_once
    spans = [slice(0, whole), slice(whole, count)] if whole < count else [slice(0, count)]
    carry, collected = start, []
    for span in reversed(spans) if reverse else spans:
        part = [row[span] for row in rows]
        if span.start == whole:
            results = _loop(lambda *both: one(*both, *staged.reads), carry, part, count - whole, reverse)
        elif at_once == 1:
            results = run(Scan(one, len(start), len(rows), reverse), [*carry, *part, *staged.reads])
        else:
            part = [row.reshape(len(row) // at_once, at_once, *row.shape[1:]) for row in part]
            results = run(Scan(turn, len(start), len(rows), reverse), [*carry, *part, *staged.reads])
            results[len(start) :] = [y.flatten(0, 1) for y in results[len(start) :]]
        carry = results[: len(start)]
        collected.append(results[len(start) :])
    if reverse:
        collected.reverse()
    staged.commit(carry[len(init) :])
    return [*carry[: len(init)], *(torch.cat(y) if len(y) > 1 else y[0] for y in zip(*collected, strict=True))]
