"""Gradient descent, plain and with momentum."""

from typing import Any, NamedTuple

import torch

from ..tree import PyTree, structure, unflatten
from ..tree import leaves as leaves_of
from ..tree.mismatch import match
from .base import (
    GradientTransformation,
    Scalar,
    ScalarOrSchedule,
    chain,
    identity,
    moment_zeros,
    scalar,
)
from .transforms import scale_by_learning_rate

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

    def update(updates: PyTree, state: TraceState, params: PyTree, **extra: Any) -> tuple[PyTree, TraceState]:
        grads = match(updates, state.trace, "updates", "state.trace")
        old, treedef = leaves_of(state.trace), structure(state.trace)
        sums = [g + decay * t for g, t in zip(grads, old, strict=True)]
        moved = [g + decay * t for g, t in zip(grads, sums, strict=True)] if nesterov else sums
        return (
            unflatten(treedef, [u.to(g.dtype) for u, g in zip(moved, grads, strict=True)]),
            TraceState(trace=unflatten(treedef, [s.to(t.dtype) for s, t in zip(sums, old, strict=True)])),
        )

    return GradientTransformation(init, update)


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
    first = identity() if momentum is None else trace(momentum, nesterov, accumulator_dtype)
    return chain(first, scale_by_learning_rate(learning_rate))
