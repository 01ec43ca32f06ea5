"""Gradient descent, plain and with momentum."""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from ..tree import PyTree, flatten, unflatten
from ..tree.mismatch import match
from . import fast
from .arguments import stateful
from .base import Advancing, GradientTransformation, advance, chain, identity
from .leafwise import each, moment_zeros
from .scaling import ScaleByScheduleState, scale_by_learning_rate
from .values import Scalar, ScalarOrSchedule, increment, scalar, value_at

__all__ = ["TraceState", "sgd", "trace"]


class TraceState(NamedTuple):
    """The decaying sum of past updates, like the parameters."""

    trace: PyTree


def trace(
    decay: Scalar, nesterov: bool = False, accumulator_dtype: torch.dtype | None = None
) -> GradientTransformation:
    r"""Sum the updates with decay: momentum, $t \leftarrow g + \gamma t$ and $u = t$.

    With `nesterov=True`, $u = g + \gamma t$ (Sutskever et al. 2013, proceedings.mlr.press/v28/sutskever13). The sum has
    `accumulator_dtype`, by default the parameter's, and float32 for half-precision parameters.

    >>> rule = trace(0.9)
    >>> params = {"w": torch.ones(1)}
    >>> state = rule.init(params)
    >>> for _ in range(2):
    ...     updates, state = rule.update({"w": torch.ones(1)}, state, params)
    >>> updates["w"]
    tensor([1.9000])
    """
    scalar(decay, "decay")

    def init(params: PyTree) -> TraceState:
        return TraceState(trace=moment_zeros(params, accumulator_dtype))

    def update(updates: PyTree, state: TraceState, params: PyTree = None, **extra: Any) -> tuple[PyTree, TraceState]:
        def leaf(g: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            t = g + decay * t
            return (g + decay * t if nesterov else t), t

        moved, sums = each(leaf, updates, trace=state.trace)
        return moved, TraceState(trace=sums)

    return stateful(TraceState, init, update)


def sgd(
    learning_rate: ScalarOrSchedule,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    accumulator_dtype: torch.dtype | None = None,
) -> GradientTransformation:
    r"""Gradient descent, $u = -\eta g$, with momentum where `momentum` is given (see `trace`).

    `learning_rate` is a number, a 0-dim tensor or a schedule. Equals `torch.optim.SGD` (without dampening) as long as
    the learning rate is constant. Raises `TypeError` and `ValueError` for hyperparameters that are no single values.

    >>> optimizer = sgd(0.1)
    >>> params = {"w": torch.tensor([1.0])}
    >>> optimizer.update({"w": torch.tensor([2.0])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.2000])}
    """
    if momentum is None:
        return chain(identity(), scale_by_learning_rate(learning_rate))
    reference = chain(trace(momentum, nesterov, accumulator_dtype), scale_by_learning_rate(learning_rate))

    def advancing(
        updates: PyTree, state: tuple[Any, ...], params: PyTree, donate: bool, **extra: Any
    ) -> tuple[PyTree, Any]:
        known = isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], TraceState)
        if learning_rate is not None and known:
            (sums,), last = state
            rate, after = learning_rate, last
            if isinstance(last, ScaleByScheduleState):
                rate = value_at(learning_rate, last.count, "learning_rate")
                after = ScaleByScheduleState(count=increment(last.count))
            grads = match(updates, sums, "updates", "state.trace")
            weights = match(params, sums, "params", "state.trace")
            old, treedef = flatten(sums)
            new = fast.momentum(grads, old, weights, cast(Scalar, rate), momentum, nesterov, donate)
            if new is not None:
                return unflatten(treedef, new[0]), (TraceState(trace=unflatten(treedef, new[1])), after)
        return advance(reference, updates, state, params, donate=donate, **extra)

    return Advancing.of(reference, advancing)
