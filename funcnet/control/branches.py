"""`cond`: one of two functions, by a truth value."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from torch import Tensor

from funcnet import _compat, tree
from funcnet.control.branch_rules import Cond, select
from funcnet.control.closure import ambient, rekeyed, visible
from funcnet.control.contract import Results, flat_tensors, name_of, predicate
from funcnet.control.primitive import Flat, apply, parts
from funcnet.control.staged import Staged, next_key

__all__ = ["cond"]


def cond(pred: Any, true_fun: Callable[..., Any], false_fun: Callable[..., Any], *operands: Any) -> Any:
    """One of two functions of the same operands, by a truth value: `jax.lax.cond`, of trees.

    It is `true_fun(*operands) if pred else false_fun(*operands)`, and in eager mode nothing else. Under `jit` both are
    compiled and one runs; its derivative runs it again. Where `vmap` maps the predicate both run, and each element gets
    its own of the two results; an infinite derivative of the other is then no zero (see `torch.where`).

    Tensors that the functions close over are followed. Inside a module both draw from the same key.

    Args:
        pred: a bool, or a boolean tensor of shape ().
        true_fun: a pure function of the operands.
        false_fun: another, whose results have the same structure, shapes and dtypes.
        *operands: trees of tensors. A number is made a tensor of torch's default dtype for it.

    Raises:
        TypeError: the predicate is no truth value, or, where both functions are run, their results differ in kind.

    >>> import torch
    >>> cond(torch.tensor(False), torch.sin, torch.exp, torch.tensor(0.0))
    tensor(1.)
    """
    pred = visible(predicate(pred, "cond", "a predicate"))
    leaves, treedef = flat_tensors(visible(operands), "the operands of cond")
    branches = _Branches(true_fun, false_fun, treedef)
    key = next_key()
    if _compat.graphing() or _compat.mapped(pred):
        chosen = _both(branches, pred, leaves, key)
        return branches.results.filled(chosen)
    mode = ambient()
    with nullcontext() if mode is None or key is None else rekeyed(mode, key):
        out = (true_fun if _compat.bare(pred) else false_fun)(*tree.unflatten(treedef, leaves))
    tensors, outdef = flat_tensors(out, "a result of cond")
    return tree.unflatten(outdef, tensors)


class _Branches:
    """The two functions, of flat tensors."""

    results: Results  # those of the first, to hold the second to

    def __init__(self, true_fun: Callable[..., Any], false_fun: Callable[..., Any], treedef: tree.TreeDef) -> None:
        self._true, self._false, self._treedef = true_fun, false_fun, treedef

    def true(self, leaves: Sequence[Tensor]) -> list[Tensor]:
        true, false = name_of(self._true), name_of(self._false)
        needs = f"cond needs results of one kind from {true} and {false}"
        out = self._true(*tree.unflatten(self._treedef, leaves))
        self.results = Results(out, f"the result of {true} under cond", needs, f"that of {true}", self._false)
        return self.results.leaves

    def false(self, leaves: Sequence[Tensor]) -> list[Tensor]:
        return self.results.matched(self._false(*tree.unflatten(self._treedef, leaves)))


def _both(branches: _Branches, pred: Tensor, leaves: list[Tensor], key: Tensor | None) -> list[Tensor]:
    """The results where both functions have to be looked at: in a graph, or where `vmap` maps the predicate."""
    true, false = Staged(branches.true, leaves), Staged(branches.false, leaves)
    keys = [key] if key is not None and (true.draws or false.draws) else []
    groups = (leaves, true.reads, true.written, false.reads, false.written, keys)
    targets = list(dict.fromkeys([*true.targets, *false.targets]))

    def branch(staged: Staged) -> Flat:
        def run(*args: Tensor) -> list[Tensor]:
            operands, *sides, keys = parts(args, *map(len, groups))
            reads, writes = sides[:2] if staged is true else sides[2:]
            results, written = staged(reads, writes, keys[0] if keys else None, operands)
            # What only the other function writes stays as it is.
            values = dict(zip([*true.targets, *false.targets], [*sides[1], *sides[3]], strict=True))
            values.update(zip(staged.targets, written, strict=True))
            return [*results, *(values[target] for target in targets)]

        return run

    flat = [tensor for group in groups for tensor in group]
    if _compat.graphing():
        results = apply(Cond(branch(true), branch(false)), [pred, *flat])
    else:
        results = select(pred, branch(true)(*flat), branch(false)(*flat))
    results, writes = parts(results, len(results) - len(targets), len(targets))
    values = dict(zip(targets, writes, strict=True))
    for staged in (true, false):
        staged.commit([values[target] for target in staged.targets])
    return results
