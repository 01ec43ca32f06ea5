"""Checks of what transforms make of a function: `check_vmap`, `check_jit`, `check_remat`, `check_threads`."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from funcnet import jit, tree, vmap
from funcnet.control import remat
from funcnet.testing.agreement import agree
from funcnet.testing.failures import CheckError, NotApplicableError
from funcnet.testing.scalars import gradient, precise, with_gradient
from funcnet.testing.subjects import Call, Subject, cases, distinct, examine, variants

__all__ = ["check_jit", "check_remat", "check_threads", "check_vmap"]

Args = tuple[Any, ...]


def check_vmap(subject: Subject, *example: Any, key: Tensor | None = None, size: int = 3) -> str:
    """Hold that `vmap` over a new axis of all arguments gives what a loop gives: values, and gradients.

    The arguments are stacked with others of the same kind; a model is mapped over its parameters, state and key too,
    as an ensemble is.

    Args:
        subject: a function, a `Model`, a built module or a module's class.
        *example: what it is called with, unbatched (the new axis is another one).
        key: what parameters and draws are made from. Default `random.key(0)`.
        size: how many elements.

    Returns:
        What was compared, in a phrase.

    Raises:
        CheckError: naming the leaf, the index (the element first), both values, and the submodule.

    >>> check_vmap(torch.nn.functional.softmax, torch.ones(3), 0)
    '3 elements'
    """

    def check(call: Call, key: Tensor) -> None:
        rows = variants(call, size)
        stacked, in_dims = _stacked(call, rows)
        agree(
            call,
            lambda f: vmap(f, in_dims=in_dims)(*stacked),
            lambda f: tree.stack([f(*row) for row in rows]),
            ("under vmap", "in a loop"),
            of=lambda f: with_gradient(f, call, key),
        )

    return _each("vmap", subject, example, key, check, f"{size} elements")


def check_jit(subject: Subject, *example: Any, key: Tensor | None = None, backend: str = "aot_eager") -> str:
    """Hold that the compiled function gives what the function gives, also for other numbers, and compiles only once.

    Values and gradients are compared. The other numbers tell whether a decision, a count or a draw was frozen into the
    graph.

    Args:
        subject: a function, a `Model`, a built module or a module's class.
        *example: what it is called with.
        key: what parameters and draws are made from. Default `random.key(0)`.
        backend: see `jit`. The default traces as every backend does, and runs the graph as it is, which needs no C++
            compiler and a fraction of the time; what it finds is the function's fault. With `"inductor"` the compiler's
            faults are found as well.

    Returns:
        What was compared, in a phrase.

    Raises:
        CheckError: naming the leaf, the index, both values and the submodule, or what cannot be traced.

    >>> check_jit(torch.sin, torch.ones(3))
    '2 calls, aot_eager'
    """

    def check(call: Call, key: Tensor) -> None:
        rows = variants(call, 2)
        recompiled: list[str] = []

        def compiled(f: Callable[..., Any]) -> list[Any]:
            program = jit(f, backend=backend)
            results = [program(*row) for row in rows]
            if program.compiles > 1:
                recompiled.append(f"{program.compiles} graphs for {len(rows)} calls with the same shapes")
            return results

        agree(
            call,
            compiled,
            lambda f: [f(*row) for row in rows],
            ("jitted", "in eager mode"),
            of=lambda f: with_gradient(f, call, key),
        )
        if recompiled:
            raise CheckError(f"{call.title} compiles again for other numbers: {recompiled[0]}.")

    return _each("jit", subject, example, key, check, f"2 calls, {backend}")


def check_remat(subject: Subject, *example: Any, key: Tensor | None = None) -> str:
    """Hold that `remat` of a function has the function's value and gradients, although it runs twice.

    Args:
        subject: a function, a `Model`, a built module or a module's class.
        *example: what it is called with.
        key: what parameters and draws are made from. Default `random.key(0)`.

    Returns:
        What was compared, in a phrase.

    Raises:
        CheckError: naming the leaf, the index and both values.
        NotApplicableError: there is nothing to differentiate.

    >>> check_remat(torch.sin, torch.ones(3))
    'value and gradients'
    """

    def check(call: Call, key: Tensor) -> None:
        agree(
            call,
            lambda f: gradient(remat(f), call, key)(*call.args),
            lambda f: gradient(f, call, key)(*call.args),
            ("under remat", "without it"),
        )

    return _each("remat", subject, example, key, check, "value and gradients")


def check_threads(subject: Subject, *example: Any, key: Tensor | None = None, threads: int = 8, rounds: int = 3) -> str:
    """Hold that calls in several threads at once, each with its own arguments, give what they give one by one.

    Every thread gives way to the others at every torch function.

    Args:
        subject: a function, a `Model`, a built module or a module's class.
        *example: what it is called with; each thread gets others of the same kind, and a model other parameters.
        key: what parameters and draws are made from. Default `random.key(0)`.
        threads: how many.
        rounds: how often each thread calls.

    Returns:
        What was compared, in a phrase.

    Raises:
        CheckError: naming the leaf, the index, both values, and the submodule.

    >>> check_threads(torch.sin, torch.ones(3))
    '8 threads, 3 rounds'
    """

    def check(call: Call, key: Tensor) -> None:
        rows = variants(call, threads)
        agree(
            call,
            lambda f: [_at_once(f, rows) for _ in range(rounds)],
            lambda f: [[f(*row) for row in rows]] * rounds,
            (f"in {threads} threads at once", "one by one"),
        )

    return _each("threads", subject, example, key, check, f"{threads} threads, {rounds} rounds")


def _each(
    name: str,
    subject: Subject,
    example: Args,
    key: Tensor | None,
    check: Callable[[Call, Tensor], None],
    detail: str,
) -> str:
    def body(subject: Subject, example: Args, key: Tensor) -> str:
        for call in distinct(cases(subject, example, key)):
            check(precise(call), key)
        return detail

    return examine(name, body, subject, example, key)


def _stacked(call: Call, rows: list[Args]) -> tuple[Args, Args]:
    """The rows as one tuple of arguments with a leading axis, and where `vmap` finds it."""
    columns, in_dims = [], []
    for column in zip(*rows, strict=True):
        tensors = any(isinstance(leaf, Tensor) for leaf in tree.leaves(column[0]))
        columns.append(tree.map(_stack, *column) if tensors else column[0])
        in_dims.append(tree.map(lambda leaf: 0 if isinstance(leaf, Tensor) else None, column[0]) if tensors else None)
    if not any(dims is not None for dims in in_dims):
        raise NotApplicableError(f"{call.title} takes no tensor to map over.")
    return tuple(columns), tuple(in_dims)


def _stack(*leaves: Any) -> Any:
    return torch.stack(leaves) if isinstance(leaves[0], Tensor) else leaves[0]


class _GivesWay(TorchFunctionMode):
    """Lets other threads run before every torch function."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        time.sleep(1e-6)
        return func(*args, **(kwargs or {}))


def _at_once(f: Callable[..., Any], rows: list[Args]) -> list[Any]:
    barrier = threading.Barrier(len(rows))

    def run(row: Args) -> Any:
        barrier.wait()
        with _GivesWay():
            return f(*row)

    with ThreadPoolExecutor(len(rows)) as pool:
        return [future.result() for future in [pool.submit(run, row) for row in rows]]
