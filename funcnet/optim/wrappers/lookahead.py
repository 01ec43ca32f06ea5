"""Lookahead: slow parameters that follow fast ones."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...tree import PyTree
from ..arguments import stateful, whole
from ..base import GradientTransformation, with_extra_args_support
from ..leafwise import each
from ..values import Scalar, scalar, zero_count
from .choice import choose

__all__ = ["LookaheadParams", "LookaheadState", "lookahead"]


class LookaheadState(NamedTuple):
    """The state of the fast optimizer, and how many steps it has made since the parameters met."""

    fast_state: Any
    steps_since_sync: Tensor
    """int32, 0-dim"""


class LookaheadParams(NamedTuple):
    """The parameters to take gradients at, and those to evaluate."""

    fast: PyTree
    slow: PyTree

    @classmethod
    def init_synced(cls, params: PyTree) -> "LookaheadParams":
        """Both from one tree."""
        return cls(fast=params, slow=params)


def lookahead(
    fast_optimizer: GradientTransformation, sync_period: int, slow_step_size: Scalar, reset_state: bool = False
) -> GradientTransformation:
    r"""Every `sync_period` steps move slow parameters towards the fast ones, and restart these from there.

    $\phi \leftarrow \phi + \alpha (\theta - \phi), \; \theta \leftarrow \phi$ (Zhang et al., arXiv:1907.08610).

    Gradients are those at `params.fast`; parameters and updates are `LookaheadParams`, and updates must be applied as
    they are.

    Args:
        fast_optimizer: makes every step.
        sync_period: steps between two meetings, at least 1.
        slow_step_size: $\alpha$, how far the slow ones go.
        reset_state: whether the fast optimizer starts anew after each meeting.

    Raises:
        ValueError: `sync_period` is less than 1.
        TypeError: the parameters are no `LookaheadParams`.

    >>> from funcnet.optim import apply_updates, sgd
    >>> rule = lookahead(sgd(1.0), sync_period=2, slow_step_size=0.5)
    >>> params = LookaheadParams.init_synced({"w": torch.zeros(1)})
    >>> state = rule.init(params)
    >>> for _ in range(2):
    ...     updates, state = rule.update({"w": torch.ones(1)}, state, params)
    ...     params = apply_updates(params, updates)
    ...     print(params.fast["w"].item(), params.slow["w"].item())
    -1.0 0.0
    -1.0 -1.0
    """
    whole(sync_period, "sync_period")
    scalar(slow_step_size, "slow_step_size")
    link = with_extra_args_support(fast_optimizer)

    def pair(params: Any) -> LookaheadParams:
        if not isinstance(params, LookaheadParams):
            raise TypeError(
                f"lookahead takes its parameters as LookaheadParams(fast, slow), and got a {type(params).__name__}: "
                "write LookaheadParams.init_synced(params), and take gradients at .fast."
            )
        return params

    def init(params: LookaheadParams) -> LookaheadState:
        fast = pair(params).fast
        return LookaheadState(fast_state=link.init(fast), steps_since_sync=zero_count(fast))

    def update(
        updates: PyTree, state: LookaheadState, params: LookaheadParams | None = None, **extra: Any
    ) -> tuple[LookaheadParams, LookaheadState]:
        fast, slow = pair(params)
        moved, fast_state = link.update(updates, state.fast_state, fast, **extra)
        meets = state.steps_since_sync == sync_period - 1

        def leaf(u: Tensor, f: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            way = torch.where(meets, f + u - s, torch.zeros_like(u))
            return u - (1 - slow_step_size) * way, f, slow_step_size * way

        fast_moved, _, slow_moved = each(leaf, moved, fast=fast, slow=slow)
        if reset_state:
            fast_state = choose(meets, lambda: link.init(fast), lambda: fast_state)
        since = ((state.steps_since_sync + 1) % sync_period).to(state.steps_since_sync.dtype)
        return LookaheadParams(fast=fast_moved, slow=slow_moved), LookaheadState(fast_state, since)

    return stateful(LookaheadState, init, update)
