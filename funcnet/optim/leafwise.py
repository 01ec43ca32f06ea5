"""A rule for one leaf, applied to every leaf of a tree."""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from .. import _compat
from ..tree import PyTree, flatten, leaves, map, unflatten
from ..tree.mismatch import match
from . import fast
from .arguments import check_floating
from .blocks import Blocks
from .placing import placed
from .values import Scalar, correction, increment


def each(
    rule: Callable[..., Any],
    updates: PyTree,
    params: PyTree = None,
    *,
    alone: bool = False,
    own: Mapping[str, PyTree] | None = None,
    **state: PyTree,
) -> tuple[PyTree, ...]:
    """Apply a rule to every leaf, with the leaves of the state that belong to it.

    Values come to the rule in at least float32, and what it returns goes back to the dtypes of `updates` and of the
    state, so that a rule is written without a cast.

    Args:
        rule: `rule(g, *states, p) -> (u, *new_states)`, in the order of `state` and then `own`; `p` is given only where
            `params` are, and `u` alone may be returned where there is no state. It works element by element, since
            `g` may be many leaves as one vector, or a part of one.
        updates: the tree that `g` comes from.
        params: the parameters, if the rule wants them.
        alone: give the rule one leaf at a time: for rules that look at shapes, or sum.
        own: further trees of the state, whose leaves have shapes of their own; the rule then works `alone`.
        state: trees like the parameters, under the names that they have in the state; the names are for errors.

    Returns:
        The new updates, then the new trees of the state.

    Raises:
        TreeMismatchError: a tree has other names or shapes than the first of the state (than `updates`, without one).

    >>> each(lambda g, m: (torch.sign(m), 0.5 * m + g), {"w": torch.ones(2)}, mu={"w": torch.full((2,), -4.0)})
    ({'w': tensor([-1., -1.])}, {'w': tensor([-1., -1.])})
    """
    names = [f"state.{name}" for name in state]
    wanted, against = (next(iter(state.values())), names[0]) if state else (updates, "updates")
    values, treedef = flatten(wanted)
    columns = [match(updates, wanted, "updates", against) if state else values]
    columns += [match(tree, wanted, name, against) for name, tree in zip(names, state.values(), strict=True)]
    if own:
        columns += [match(tree, wanted, f"state.{name}", against, shape=False) for name, tree in own.items()]
    kinds = [[leaf.dtype for leaf in column] for column in columns]
    if params is not None:
        columns.append(match(params, wanted, "params", against))
    if not alone and not own and fast.usable(*columns):
        found = Blocks(columns[0]).run(_rounded(rule, [kind[0] for kind in kinds]), columns)
    else:
        check_floating(columns[0], updates, "updates")
        columns[0] = placed(columns[0], columns[-1] if params is not None else values)
        rows = zip(zip(*columns, strict=True), *kinds, strict=True)
        results = [_rounded(rule, dtypes)(row) for row, *dtypes in rows]
        found = [placed([result[n] for result in results], columns[n]) for n in range(len(kinds))]
    return tuple(unflatten(treedef, column) for column in found)


def _rounded(rule: Callable[..., Any], dtypes: Sequence[torch.dtype]) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """The rule over one row, which it meets in at least float32, with results in these dtypes."""

    def rounded(row: Sequence[Tensor]) -> list[Tensor]:
        values = rule(*[leaf.to(wide(leaf.dtype)) for leaf in row])
        values = values if isinstance(values, tuple) else (values,)
        return [value.to(dtype) for value, dtype in zip(values, dtypes, strict=True)]

    return rounded


def total(rule: Callable[..., Any], tree: PyTree, *rest: PyTree) -> Tensor:
    """The sum over all elements of what a rule makes of the leaves that lie at one place, in at least float32.

    The rule is written as one for `each`. Raises `TreeMismatchError` where the trees differ. An empty tree gives 0.

    >>> total(torch.abs, {"w": torch.tensor([1.0, -2.0]), "b": torch.tensor(-3.0)})
    tensor(6.)
    """
    values, _ = flatten(tree)
    columns = [values, *[match(other, tree, f"tree {i} of total", "tree 1") for i, other in enumerate(rest, start=2)]]
    if not values:
        return torch.zeros(())
    rows = Blocks(values).rows(columns) if fast.usable(*columns) else zip(*columns, strict=True)
    return reduce(torch.add, [torch.sum(rule(*[leaf.to(wide(leaf.dtype)) for leaf in row])) for row in rows])


def inner(left: PyTree, right: PyTree) -> Tensor:
    """The inner product of two trees taken as real vectors.

    >>> inner({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 4.0])})
    tensor(11.)
    """
    return total(dot, left, right)


def quotient(numerator: Tensor | Scalar, denominator: Tensor) -> Tensor:
    """The quotient, and 0 where the denominator is; the inner `where` keeps the derivative there finite."""
    nothing = denominator == 0
    return torch.where(nothing, 0.0, numerator / torch.where(nothing, 1.0, denominator))


def dot(a: Any, b: Any) -> Any:
    """The products of two leaves' elements, taken as real vectors."""
    return a * b if _real(a, b) else torch.real(torch.conj(a) * b)


def scaled(updates: PyTree, factor: Scalar) -> PyTree:
    """Every leaf times one number, in the leaf's dtype."""
    values, treedef = flatten(updates)
    if fast.usable(values) and fast.is_constant(factor):
        return unflatten(treedef, fast.scale(values, factor))
    check_floating(values, updates, "updates")
    return unflatten(treedef, [(value * factor).to(value.dtype) for value in values])


def stepped(params: PyTree, updates: PyTree, factor: Scalar, donate: bool = False) -> PyTree:
    """`apply_updates(params, scaled(updates, factor))`, in eager steps without the updates between.

    With `donate` in the memory of the parameters.
    """
    added = match(updates, params, "updates", "params")
    values, treedef = flatten(params)
    if fast.usable(values, added) and fast.is_constant(factor) and values[0].dtype == added[0].dtype:
        number = fast.number(factor)
        if not isinstance(number, Tensor):
            return unflatten(treedef, (fast.add_onto if donate else fast.add)(values, added, number))
    check_floating(values, params, "params")
    check_floating(added, updates, "updates")
    pairs = zip(values, placed(added, values), strict=True)
    return unflatten(treedef, [(p + (u * factor).to(u.dtype)).to(p.dtype) for p, u in pairs])


def abs_sq(x: Any) -> Any:
    """The square of every element's absolute value, which is real."""
    return x * x if _real(x) else torch.real(x * torch.conj(x))


def _real(*values: Any) -> bool:
    return not any(isinstance(value, Tensor) and value.is_complex() for value in values)


def root(x: Any, degree: int = 2) -> Any:
    """The square root, or one of another degree, whose slope at 0 is 0 and not infinite.

    What it divides is 0 as well where a running mean of squares is, so that the derivative of the quotient is right.
    """
    if isinstance(x, Tensor) and not _differentiated(x):  # passes over memory are spared, and operations to compile
        return _root(x, degree)
    zero = x == 0
    return torch.where(zero, 0.0, _root(torch.where(zero, 1.0, x), degree))


def _differentiated(x: Tensor) -> bool:
    """Whether a derivative with respect to `x` may be asked. Under `torch.compile` no one can tell."""
    asked = _compat.asked_of(x)
    return torch.compiler.is_compiling() or asked.forward or bool(asked.levels)


def _root(x: Any, degree: int) -> Any:
    return torch.sqrt(x) if degree == 2 else x ** (1 / degree)


def sign(x: Any) -> Any:
    """-1, 0 or 1, or a complex number's direction; a NaN stays one, as in jax, where torch makes it 0."""
    return torch.where(torch.isnan(x), x, torch.sgn(x))


def unbiased(decay: Scalar, count: Tensor, dtype: torch.dtype, nesterov: bool = False) -> Callable[[Any, Any], Any]:
    """How to correct a running mean `m` that began at zero, as `f(m, g)`; with `nesterov`, one step ahead.

    `count` counts this update, whose gradient is `g`.
    """
    first = correction(decay, count, dtype)
    if not nesterov:
        return lambda m, g: m / first
    ahead = correction(decay, increment(count), dtype)
    return lambda m, g: decay * (m / ahead) + (1 - decay) * (g / first)


def moment_zeros(params: PyTree, dtype: torch.dtype | None = None) -> PyTree:
    """Zeros to accumulate in: of the given dtype, else the parameter's, or float32 where that is of half precision."""

    check_floating(leaves(params), params, "params")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and (dtype.is_floating_point or dtype.is_complex)):
        raise TypeError(f"a running mean cannot be kept in {dtype!r}: give a floating dtype, such as torch.float32.")

    def zeros(leaf: Tensor) -> Tensor:
        own = wide(leaf.dtype) if dtype is None else dtype.to_complex() if leaf.is_complex() else dtype
        return torch.zeros_like(leaf, dtype=own)

    return map(zeros, params)


def square_zeros(params: PyTree, dtype: torch.dtype | None = None) -> PyTree:
    """Zeros to accumulate squares in: like `moment_zeros`, but real for complex parameters."""
    check_floating(leaves(params), params, "params")
    return map(lambda leaf: torch.zeros_like(leaf, dtype=dtype or wide(leaf.dtype).to_real()), params)


def filled(zeros: PyTree, value: Scalar) -> PyTree:
    """One value in every element, in the dtypes of `zeros`."""
    return map(lambda zero: (zero + value).to(zero.dtype), zeros)


def copied(params: PyTree, dtype: torch.dtype | None = None) -> PyTree:
    """Parameters for a state to keep: copies, of the given dtype or of at least float32."""
    check_floating(leaves(params), params, "params")
    return map(lambda leaf: leaf.to(dtype or wide(leaf.dtype), copy=True), params)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which values of `dtype` may be accumulated: at least float32."""
    if dtype.is_complex:
        return torch.promote_types(dtype, torch.complex64)
    return torch.promote_types(dtype, torch.float32)
