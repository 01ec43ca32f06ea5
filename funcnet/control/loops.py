"""`while_loop` and `fori_loop`: a body, until a condition says no, or for each of a range of numbers."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from funcnet import _compat, random
from funcnet.control.branch_rules import select
from funcnet.control.closure import ambient, rekeyed, visible
from funcnet.control.contract import Carry, described, name_of, predicate
from funcnet.control.loop_rules import While
from funcnet.control.primitive import apply, parts
from funcnet.control.scan import scan
from funcnet.control.staged import Staged, next_key

__all__ = ["fori_loop", "while_loop"]

C = TypeVar("C")
_Lists: TypeAlias = Callable[[Sequence[Tensor]], list[Tensor]]


def while_loop(cond_fun: Callable[[C], Any], body_fun: Callable[[C], C], init_val: C) -> C:
    """Run a body as long as a condition holds: `jax.lax.while_loop`, of trees.

    It is `while cond_fun(val): val = body_fun(val)`, and in eager mode nothing else, with every derivative. Under
    `jit` it is one loop in the graph, with forward-mode derivatives alone. Under `vmap` the loop goes on until the last
    element is done, and what is done stays as it is; the body still runs on it, so a derivative there must be finite.

    Tensors that the functions close over are followed. Inside a module each turn draws from a key of its own.

    Args:
        cond_fun: a pure function of the carry, whose result is a bool or a boolean tensor of shape ().
        body_fun: a pure function of the carry, which keeps its structure, shapes and dtypes.
        init_val: the first carry, a tree of tensors. A number in it is made a tensor of torch's default dtype for it.

    Returns:
        The first carry of which the condition does not hold.

    Raises:
        TypeError: the carry changes its structure, a shape or a dtype, or the predicate is none. Under `jit`, when a
            reverse-mode derivative of the loop is asked for.

    >>> while_loop(lambda x: x < 100, lambda x: 2 * x, torch.tensor(3))
    tensor(192)
    """
    carry = Carry(visible(init_val), "while_loop", body_fun)

    def going(leaves: Sequence[Tensor]) -> list[Tensor]:
        return [predicate(cond_fun(carry.filled(leaves)), "while_loop", f"a result of {name_of(cond_fun)}")]

    def body(leaves: Sequence[Tensor]) -> list[Tensor]:
        return carry.matched(body_fun(carry.filled(leaves)))

    final = (_in_graph if _compat.graphing() else _eagerly)(going, body, carry.leaves)
    return carry.filled(final)  # type: ignore[no-any-return]  # it has the structure of init_val


def _eagerly(going: _Lists, body: _Lists, carry: list[Tensor]) -> list[Tensor]:
    mode, key, turn = ambient(), next_key(), 0
    writes = mode is not None  # as far as is known

    def own_key() -> Tensor | None:
        nonlocal turn
        turn += 1
        return None if key is None else random.fold_in(key, turn)

    def drawing(f: _Lists) -> list[Tensor]:
        own = own_key()
        with nullcontext() if mode is None or own is None else rekeyed(mode, own):
            return f(carry)

    while True:
        (holds,) = drawing(going)
        if not _compat.bare(holds).any():
            return carry
        if not _compat.mapped(holds):
            carry = drawing(body)
            continue
        # What the module around writes stays as it is, too, for an element that is done.
        step = Staged(body, carry) if writes else None
        if step is None or not step.written:
            writes = False
            carry = select(holds, drawing(body), carry)
        else:
            after, written = step(step.reads, step.written, own_key(), carry)
            carry = select(holds, after, carry)
            step.commit(select(holds, written, step.written))


def _in_graph(going: _Lists, body: _Lists, carry: list[Tensor]) -> list[Tensor]:
    key = next_key()
    check, step = Staged(going, carry), Staged(body, carry)
    if check.written:
        raise TypeError("while_loop's cond_fun writes to its surroundings, or updates statistics. Do it in body_fun.")
    # The number of keys that were drawn so far is a part of the carry.
    keys = [key] if key is not None and (check.draws or step.draws) else []
    counts = (len(carry), len(step.written), len(keys), len(check.reads), len(step.reads), len(keys))

    def split(args: Sequence[Tensor], turn: int) -> Any:
        *lists, turns, check_reads, step_reads, key = parts(args, *counts)
        return *lists, turns, check_reads, step_reads, random.fold_in(key[0], turns[0] + turn) if key else None

    def cond(*args: Tensor) -> list[Tensor]:
        carry, _, _, reads, _, key = split(args, 1)
        return check(reads, [], key, carry)[0]

    def turn(*args: Tensor) -> list[Tensor]:
        carry, writes, turns, _, reads, key = split(args, 2)
        after, written = step(reads, writes, key, carry)
        return [*after, *written, *(n + 2 for n in turns)]

    start = [*carry, *step.written, *(torch.zeros((), dtype=torch.int64) for _ in keys)]
    results = apply(While(cond, turn, len(start)), [*start, *check.reads, *step.reads, *keys])
    final, writes, _ = parts(results, *counts[:3])
    step.commit(writes)
    return final


def fori_loop(
    lower: int | Tensor,
    upper: int | Tensor,
    body_fun: Callable[[Tensor, C], C],
    init_val: C,
    *,
    unroll: int | bool | None = None,
) -> C:
    """Run a body for each number from `lower` to `upper - 1`: `jax.lax.fori_loop`, of trees.

    It is `for i in range(lower, upper): val = body_fun(i, val)`. With Python ints for bounds it is a `scan`, which has
    every derivative everywhere; with tensors a `while_loop`, which under `jit` has forward mode alone.

    Args:
        lower: the first number.
        upper: the number after the last.
        body_fun: a pure function of the number, an integer tensor of shape (), and of the carry; the carry keeps its
            structure, shapes and dtypes. Under `jit` torch cannot follow `x[i]`: write `x[i[None]][0]`.
        init_val: the first carry, a tree of tensors. A number in it is made a tensor of torch's default dtype for it.
        unroll: as in `scan`, where the bounds are Python ints.

    Raises:
        TypeError: the carry changes its structure, a shape or a dtype; a bound is no integer.
        ValueError: `unroll` is given, and a bound is a tensor.

    >>> fori_loop(0, 5, lambda i, total: total + i**2, torch.tensor(0))
    tensor(30)
    """
    bounds = {"lower": lower, "upper": upper}
    for name, bound in bounds.items():
        if not _is_integer(bound):
            raise TypeError(
                f"fori_loop takes ints or integer tensors of shape () for bounds, and {name} is {described(bound)}."
            )
    carry = Carry(visible(init_val), "fori_loop", body_fun)
    if isinstance(lower, int) and isinstance(upper, int):
        numbers = torch.arange(lower, max(lower, upper))

        def step(leaves: list[Tensor], i: Tensor) -> tuple[list[Tensor], None]:
            return carry.matched(body_fun(i, carry.filled(leaves))), None

        final, _ = scan(step, carry.leaves, numbers, unroll=1 if unroll is None else unroll)
        return carry.filled(final)  # type: ignore[no-any-return]  # it has the structure of init_val
    if unroll is not None:
        raise ValueError("fori_loop unrolls a loop between Python ints; a bound is a tensor here, so leave unroll out.")
    start, end = _like(lower, upper), _like(upper, lower)
    start = start.to(torch.promote_types(start.dtype, end.dtype))

    def turn(state: tuple[Tensor, list[Tensor]]) -> tuple[Tensor, list[Tensor]]:
        i, leaves = state
        return i + 1, carry.matched(body_fun(i, carry.filled(leaves)))

    _, final = while_loop(lambda state: state[0] < end, turn, (start, carry.leaves))
    return carry.filled(final)  # type: ignore[no-any-return]  # it has the structure of init_val


def _is_integer(bound: Any) -> bool:
    if isinstance(bound, Tensor):
        return not (bound.ndim or bound.is_floating_point() or bound.is_complex() or bound.dtype == torch.bool)
    return isinstance(bound, int) and not isinstance(bound, bool)


def _like(bound: int | Tensor, other: int | Tensor) -> Tensor:
    """A bound as a tensor; at least one of the two is one."""
    if isinstance(bound, Tensor):
        return bound
    assert isinstance(other, Tensor)
    return torch.full((), bound, dtype=other.dtype, device=other.device)
