"""What the rules have in common: counting, the learning rate, maximizing, weight decay, complex numbers, checks."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...tree import PyTree, flatten, leaves, leaves_with_path, map, unflatten
from ...tree.mismatch import match
from ..arguments import check_floating, pair, stateful
from ..base import GradientTransformation, needed
from ..leafwise import each
from ..values import Scalar, ScalarOrSchedule, decay_rate, increment, is_schedule, precise, scalar, value_at, zero_count

Starts = Mapping[str, Callable[[PyTree], PyTree]]


def transformation(
    kind: type,
    at: Callable[..., Any],
    *,
    lr: ScalarOrSchedule,
    trees: Starts,
    scalars: Starts | None = None,
    weight_decay: Scalar = 0,
    decoupled: bool = False,
    maximize: bool = False,
    shaped: bool = False,
) -> GradientTransformation:
    """The transformation of a rule of torch.optim.

    Args:
        kind: the NamedTuple of the state, whose first field is `step`.
        at: `at(step, lr, *scalars)` gives `leaf`, or `(leaf, *new_scalars)`. `step` counts from 1, in floating point;
            `leaf(g, p, *trees)` gives the update and the leaf's new state, as one tuple.
        lr: the learning rate; a schedule is asked for the count of the updates before.
        trees: how the trees of the state begin.
        scalars: how its 0-dim tensors begin.
        weight_decay: times the parameters, added to the gradient.
        decoupled: subtract it from the parameters instead, times the learning rate.
        maximize: climb.
        shaped: the rule looks at the shape of a leaf, and its state has shapes of its own. Such rules take no complex
            parameters; for the others these are pairs of real ones, as in torch.
    """
    if not is_schedule(lr, "lr"):
        nonnegative(lr=lr)
    nonnegative(weight_decay=weight_decay)
    decays = isinstance(weight_decay, Tensor) or weight_decay != 0
    scalars = scalars or {}

    def init(params: PyTree) -> Any:
        check_floating(leaves(params), params, "params")
        if shaped:
            refuse_complex(params)
        params = as_real(params)
        fields = {name: start(params) for name, start in {**scalars, **trees}.items()}
        return kind(step=zero_count(params), **fields)

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]:
        params = needed(params, "from_torch")
        step, rate, dtype = increment(state.step), value_at(lr, state.step, "lr"), precise(params)
        found = at(step.to(dtype), rate, *(getattr(state, name) for name in scalars))
        leaf, *after = found if isinstance(found, tuple) else (found,)

        def whole(g: Tensor, *rest: Tensor) -> Any:
            *own, p = rest
            g = -g if maximize else g
            if decays and not decoupled:
                g = g + weight_decay * p
            u, *new = leaf(g, p, *own)
            return (u - rate * weight_decay * p if decays and decoupled else u), *new

        state_trees = {name: getattr(state, name) for name in trees}
        kept: dict[str, Any] = {"own": state_trees} if shaped else state_trees
        moved, *new_trees = each(whole, as_real(updates), as_real(params), alone=shaped, **kept)
        fields = dict(zip([*scalars, *trees], [*after, *new_trees], strict=True))
        return as_given(moved, params), kind(step=step, **fields)

    return stateful(kind, init, update)


def as_real(tree: PyTree) -> PyTree:
    """Complex leaves as pairs of real numbers, on a last axis."""
    return map(lambda leaf: torch.view_as_real(leaf.resolve_conj()) if leaf.is_complex() else leaf, tree)


def as_given(moved: PyTree, like: PyTree) -> PyTree:
    """The way back from `as_real`."""
    if not any(leaf.is_complex() for leaf in leaves(like)):
        return moved
    values, treedef = flatten(moved)
    kinds = match(like, moved, "params", "updates", shape=False)
    return unflatten(
        treedef,
        [torch.view_as_complex(u.contiguous()) if p.is_complex() else u for u, p in zip(values, kinds, strict=True)],
    )


def refuse_complex(params: PyTree) -> None:
    """Raise `ValueError` for a complex leaf."""
    for path, leaf in leaves_with_path(params):
        if leaf.is_complex():
            raise ValueError(f"{path!r} is complex, which this rule of torch.optim does not take: optim.adam does.")


def nonnegative(**values: Scalar) -> None:
    """Check hyperparameters by their names: numbers or 0-dim tensors; `ValueError` for a number below 0."""
    for name, value in values.items():
        if not isinstance(scalar(value, name), Tensor) and not value >= 0:
            raise ValueError(f"{name} is {value}, and torch.optim takes none below 0.")


def decays_of(betas: Any) -> tuple[Scalar, Scalar]:
    """Check the decay rates of two running means."""
    b1, b2 = pair(betas, "betas", "(0.9, 0.999)")
    return decay_rate(b1, "betas[0]"), decay_rate(b2, "betas[1]")


def scalar_start(value: float) -> Callable[[PyTree], Tensor]:
    """How a number in the state begins: in the dtype that torch.optim keeps its own in, by torch's default dtype."""
    double = torch.float64

    def start(params: PyTree) -> Tensor:
        dtype = double if torch.get_default_dtype() == double else torch.float32
        return torch.full_like(zero_count(params), value, dtype=dtype)

    return start
