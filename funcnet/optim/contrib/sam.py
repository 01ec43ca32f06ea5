"""SAM: descend by the gradient of the worst place nearby."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...tree import PyTree, global_norm, map
from ..arguments import stateful, whole
from ..base import (
    EmptyState,
    GradientTransformation,
    apply_updates,
    extra_argument,
    needed,
    stateless,
    with_extra_args_support,
)
from ..leafwise import copied, each
from ..values import zero_count
from ..wrappers.choice import choose

__all__ = ["NormalizeState", "SAMState", "normalize", "sam"]

NormalizeState = EmptyState


def normalize() -> GradientTransformation:
    r"""Give the updates, taken as one vector, the length 1: $u \leftarrow u / \lVert u \rVert$.

    Where all are zero they stay so (in optax they become NaN).

    >>> normalize().update({"w": torch.tensor([3.0, 4.0])}, NormalizeState())[0]
    {'w': tensor([0.6000, 0.8000])}
    """

    def divided(updates: PyTree, params: PyTree) -> PyTree:
        norm = global_norm(updates)
        length = torch.where(norm == 0, 1.0, norm)
        return each(lambda g: g / length, updates)[0]

    return stateless(divided)


class SAMState(NamedTuple):
    """How far the climb is, the states of both optimizers, and the parameters where it began."""

    steps_since_sync: Tensor
    """int32, 0-dim"""
    opt_state: Any
    adv_state: Any
    cache: PyTree
    """None in opaque mode"""


def sam(
    optimizer: GradientTransformation,
    adv_optimizer: GradientTransformation,
    sync_period: int = 2,
    reset_state: bool = True,
    opaque_mode: bool = False,
    batch_axis_name: str | None = None,
) -> GradientTransformation:
    r"""Sharpness-aware minimization (Foret et al., arXiv:2010.01412).

    Of `sync_period` updates all but the last go uphill, by minus those of `adv_optimizer`; the last comes back and
    descends, by `optimizer`, with the gradient of where the climb ended:

    $$\theta' = \theta + \rho \frac{\nabla f(\theta)}{\lVert \nabla f(\theta) \rVert}, \quad
    \theta \leftarrow \theta - \eta \nabla f(\theta')$$

    for `sam(sgd(eta), chain(normalize(), sgd(rho)))`. With `opaque_mode=True` each update does all of this: it takes
    `grad_fn(params, i)=`, which gives the gradients for climb `i` of `sync_period - 1`. Needs the parameters.

    Args:
        optimizer: the one that descends.
        adv_optimizer: the one whose updates, negated, climb.
        sync_period: after how many updates it descends.
        reset_state: whether `adv_optimizer` starts afresh at each descent.
        opaque_mode: whether the climb stays within one update.
        batch_axis_name: for optax's sake. torch's `vmap` has no named axes: average in `grad_fn`.

    Raises:
        ValueError: a `sync_period` below 1, or a `batch_axis_name`.

    >>> from funcnet.optim import chain, sgd
    >>> optimizer = sam(sgd(0.1), chain(normalize(), sgd(0.5)), opaque_mode=True)
    >>> params = {"w": torch.tensor([3.0, 4.0])}
    >>> gradient = lambda params, i: {"w": 2 * params["w"]}
    >>> updates, _ = optimizer.update(gradient(params, 0), optimizer.init(params), params, grad_fn=gradient)
    >>> updates["w"]
    tensor([-0.6600, -0.8800])
    """
    whole(sync_period, "sync_period", "updates")
    if batch_axis_name is not None:
        raise ValueError(f"batch_axis_name is {batch_axis_name!r}, but vmap has no named axes: average in grad_fn.")
    down, up = with_extra_args_support(optimizer), with_extra_args_support(adv_optimizer)

    def init(params: PyTree) -> SAMState:
        return SAMState(
            steps_since_sync=zero_count(params),
            opt_state=down.init(params),
            adv_state=up.init(params),
            cache=None if opaque_mode else copied(params),
        )

    def climbed(updates: PyTree, state: Any, params: PyTree, extra: dict[str, Any]) -> tuple[PyTree, Any]:
        climb, state = up.update(updates, state, params, **extra)
        return map(torch.neg, climb), state

    def transparent(updates: PyTree, state: SAMState, params: PyTree = None, **extra: Any) -> tuple[PyTree, SAMState]:
        weights = needed(params, "sam")
        first, last = state.steps_since_sync == 0, state.steps_since_sync == sync_period - 1
        _, cache = each(lambda p, c: (p, torch.where(first, p, c)), weights, cache=state.cache)

        def climbing() -> tuple[PyTree, Any, Any]:
            climb, adv_state = climbed(updates, state.adv_state, weights, extra)
            return climb, state.opt_state, adv_state

        def descending() -> tuple[PyTree, Any, Any]:
            step, opt_state = down.update(updates, state.opt_state, state.cache, **extra)
            back, _ = each(lambda u, c, p: (c - p + u, c), step, weights, cache=state.cache)
            return back, opt_state, up.init(weights) if reset_state else state.adv_state

        moved, opt_state, adv_state = choose(last, descending, climbing)
        return moved, SAMState((state.steps_since_sync + 1) % sync_period, opt_state, adv_state, cache)

    def opaque(updates: PyTree, state: SAMState, params: PyTree = None, **extra: Any) -> tuple[PyTree, SAMState]:
        weights = needed(params, "sam")
        grad_fn = extra_argument(extra, "grad_fn", "sam with opaque_mode=True", "lambda params, i: grads")
        place, adv_state = weights, state.adv_state
        for i in range(sync_period - 1):
            climb, adv_state = climbed(updates, adv_state, place, extra)
            place = apply_updates(place, climb)
            updates = grad_fn(place, i)
        step, opt_state = down.update(updates, state.opt_state, weights, **extra)
        return step, SAMState(
            steps_since_sync=torch.zeros_like(state.steps_since_sync),
            opt_state=opt_state,
            adv_state=up.init(weights) if reset_state else adv_state,
            cache=None,
        )

    return stateful(SAMState, init, opaque if opaque_mode else transparent)
