"""Transformations that are applied at some steps only."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...tree import PyTree, leaves, map
from ..arguments import function, stateful, whole
from ..base import GradientTransformation, with_extra_args_support
from ..values import increment, zero_count
from .choice import choose

__all__ = [
    "ApplyIfFiniteState",
    "ConditionFn",
    "ConditionallyMaskState",
    "ConditionallyTransformState",
    "apply_if_finite",
    "conditionally_mask",
    "conditionally_transform",
]

ConditionFn = Callable[..., Tensor | bool]


class ConditionallyTransformState(NamedTuple):
    """The state of the transformation, and how many steps there have been."""

    inner_state: Any
    step: Tensor
    """int32, 0-dim"""


class ConditionallyMaskState(NamedTuple):
    """How many steps there have been, and the state of the transformation."""

    step: Tensor
    """int32, 0-dim"""
    inner_state: Any


class ApplyIfFiniteState(NamedTuple):
    """What became of the updates so far, and the state of the transformation."""

    notfinite_count: Tensor
    """how many updates in a row, up to the last, were not finite; int32, 0-dim"""
    last_finite: Tensor
    """whether the last was finite; bool, 0-dim"""
    total_notfinite: Tensor
    """how many were not finite; int32, 0-dim"""
    inner_state: Any


def conditionally_transform(
    inner: GradientTransformation, should_transform_fn: ConditionFn, forward_extra_args: bool = False
) -> GradientTransformation:
    """Apply a transformation at the steps where `should_transform_fn(step)` is true, and else leave the updates.

    At other steps the inner state stays, too. `step` is an int32 0-dim tensor that counts calls from 0; with
    `forward_extra_args` the function gets the further keywords of `update`, too.

    >>> from funcnet.optim import scale
    >>> rule = conditionally_transform(scale(0.0), lambda step: step >= 1)
    >>> state = rule.init({"w": torch.ones(1)})
    >>> for _ in range(2):
    ...     updates, state = rule.update({"w": torch.ones(1)}, state)
    ...     print(updates["w"])
    tensor([1.])
    tensor([0.])
    """
    link = with_extra_args_support(inner)
    function(should_transform_fn, "should_transform_fn", "lambda step: step >= 100")

    def init(params: PyTree) -> ConditionallyTransformState:
        return ConditionallyTransformState(inner_state=link.init(params), step=zero_count(params))

    def update(
        updates: PyTree, state: ConditionallyTransformState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ConditionallyTransformState]:
        wanted = _decided(should_transform_fn, state.step, extra if forward_extra_args else {})
        new, inner_state = choose(
            wanted,
            lambda: link.update(updates, state.inner_state, params, **extra),
            lambda: (updates, state.inner_state),
        )
        return new, ConditionallyTransformState(inner_state=inner_state, step=increment(state.step))

    return stateful(ConditionallyTransformState, init, update)


def conditionally_mask(
    inner: GradientTransformation, should_transform_fn: ConditionFn, forward_extra_args: bool = False
) -> GradientTransformation:
    """As `conditionally_transform`, but with zeros for the updates of the other steps.

    >>> from funcnet.optim import scale
    >>> rule = conditionally_mask(scale(2.0), lambda step: step % 2 == 0)
    >>> state = rule.init({"w": torch.ones(1)})
    >>> for _ in range(2):
    ...     updates, state = rule.update({"w": torch.ones(1)}, state)
    ...     print(updates["w"])
    tensor([2.])
    tensor([0.])
    """
    link = with_extra_args_support(inner)
    function(should_transform_fn, "should_transform_fn", "lambda step: step >= 100")

    def init(params: PyTree) -> ConditionallyMaskState:
        return ConditionallyMaskState(step=zero_count(params), inner_state=link.init(params))

    def update(
        updates: PyTree, state: ConditionallyMaskState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ConditionallyMaskState]:
        wanted = _decided(should_transform_fn, state.step, extra if forward_extra_args else {})
        new, inner_state = choose(
            wanted,
            lambda: link.update(updates, state.inner_state, params, **extra),
            lambda: (map(torch.zeros_like, updates), state.inner_state),
        )
        return new, ConditionallyMaskState(step=increment(state.step), inner_state=inner_state)

    return stateful(ConditionallyMaskState, init, update)


def _decided(should_transform_fn: ConditionFn, step: Tensor, extra: dict[str, Any]) -> Tensor | bool:
    wanted = should_transform_fn(step, **extra)
    if isinstance(wanted, bool) or (isinstance(wanted, Tensor) and wanted.dtype == torch.bool and not wanted.ndim):
        return wanted
    what = f"{wanted.dtype} of shape {tuple(wanted.shape)}" if isinstance(wanted, Tensor) else type(wanted).__name__
    raise TypeError(
        f"should_transform_fn returned a {what}, and must return a bool or a bool 0-dim tensor, such as step >= 100."
    )


def apply_if_finite(inner: GradientTransformation, max_consecutive_errors: int) -> GradientTransformation:
    """Skip updates that hold a NaN or an infinity, unless there were more than so many in a row.

    After a skipped step the parameters, the moments and the counts of `inner` are what they were, to the bit. Raises
    `ValueError` where `max_consecutive_errors` is negative.

    >>> from funcnet.optim import adam
    >>> rule = apply_if_finite(adam(0.1), max_consecutive_errors=5)
    >>> params = {"w": torch.ones(1)}
    >>> updates, state = rule.update({"w": torch.tensor([float("nan")])}, rule.init(params), params)
    >>> updates["w"], state.notfinite_count, state.inner_state[0].count
    (tensor([0.]), tensor(1, dtype=torch.int32), tensor(0, dtype=torch.int32))
    """
    whole(max_consecutive_errors, "max_consecutive_errors", least=0)
    link = with_extra_args_support(inner)

    def init(params: PyTree) -> ApplyIfFiniteState:
        count = zero_count(params)
        return ApplyIfFiniteState(
            notfinite_count=count,
            last_finite=torch.ones_like(count, dtype=torch.bool),
            total_notfinite=count.clone(),
            inner_state=link.init(params),
        )

    def update(
        updates: PyTree, state: ApplyIfFiniteState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ApplyIfFiniteState]:
        finite = all_finite(updates, like=state.last_finite)
        zero = torch.zeros_like(state.notfinite_count)
        in_a_row = torch.where(finite, zero, increment(state.notfinite_count))
        new, inner_state = choose(
            finite | (in_a_row > max_consecutive_errors),
            lambda: link.update(updates, state.inner_state, params, **extra),
            lambda: (map(torch.zeros_like, updates), state.inner_state),
        )
        total = torch.where(finite, state.total_notfinite, increment(state.total_notfinite))
        return new, ApplyIfFiniteState(
            notfinite_count=in_a_row, last_finite=finite, total_notfinite=total, inner_state=inner_state
        )

    return stateful(ApplyIfFiniteState, init, update)


def all_finite(updates: PyTree, like: Tensor) -> Tensor:
    """Whether every number of a tree is finite: bool, 0-dim."""
    found = [torch.isfinite(leaf).all() for leaf in leaves(updates)]
    return torch.stack(found).all() if found else torch.ones_like(like)
