"""Schedule-free learning: averaging in the place of a schedule."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...tree import PyTree
from ..arguments import stateful
from ..base import GradientTransformation, chain, needed, with_extra_args_support
from ..leafwise import copied, each, quotient
from ..rmsprop import scale_by_rms
from ..scaling import scale_by_learning_rate
from ..schedules import linear_schedule
from ..sgd import sgd
from ..values import Scalar, ScalarOrSchedule, increment, is_schedule, scalar, stored, value_at, zero_count
from ..weights import add_decayed_weights

__all__ = [
    "ScheduleFreeState",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_eval_params",
    "schedule_free_sgd",
]


class ScheduleFreeState(NamedTuple):
    """What the average is made of: the iterates `z` of the optimizer, and the weights of the steps."""

    b1: Tensor
    weight_sum: Tensor
    step_count: Tensor
    """int32, 0-dim; the first step is 1"""
    max_lr: Tensor
    base_optimizer_state: Any
    z: PyTree


def schedule_free_eval_params(state: Any, params: PyTree) -> PyTree:
    r"""The parameters to evaluate with, $x = (y - (1 - \beta_1) z) / \beta_1$, from those that are trained.

    `state` is that of `schedule_free` itself; where it stands in a chain, take it out. Raises `ValueError` for another.

    >>> optimizer = schedule_free_sgd(0.5)
    >>> params = {"w": torch.ones(1)}
    >>> state = optimizer.init(params)
    >>> for _ in range(2):
    ...     updates, state = optimizer.update(params, state, params)
    ...     params = {"w": params["w"] + updates["w"]}
    >>> schedule_free_eval_params(state, params)
    {'w': tensor([0.3750])}
    """
    if not isinstance(state, ScheduleFreeState):
        raise ValueError(
            f"schedule_free_eval_params got a {type(state).__name__}, and needs the ScheduleFreeState: of a chain's "
            "state take the element of schedule_free."
        )
    return each(lambda y, z: (_average(y, z, state.b1), z), params, z=state.z)[0]


def _average(y: Tensor, z: Tensor, b1: Scalar) -> Tensor:
    return (y - (1 - b1) * z) / b1


def schedule_free(
    base_optimizer: GradientTransformation,
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    weight_lr_power: Scalar = 2.0,
    state_dtype: torch.dtype | None = None,
) -> GradientTransformation:
    r"""Average the iterates of an optimizer instead of decaying its learning rate (Defazio et al., arXiv:2405.15682).

    $$z_{t+1} = z_t + u_\mathrm{base}(\nabla f(y_t)), \quad x_{t+1} = (1 - c_t) x_t + c_t z_{t+1}, \quad
    y_{t+1} = \beta_1 x_{t+1} + (1 - \beta_1) z_{t+1}$$

    with $c_t = \gamma_t^p / \sum_{s \le t} \gamma_s^p$ of the largest learning rates $\gamma_t$ so far. The trained
    parameters are $y$; evaluate with $x$, which `schedule_free_eval_params` gives. Needs the parameters.

    Args:
        base_optimizer: one without momentum, which `b1` replaces.
        learning_rate: that of `base_optimizer`, with warm-up but no decay; a schedule is asked from step 1 on.
        b1: the share of the average in $y$, above 0.
        weight_lr_power: $p$.
        state_dtype: stores $z$ in another dtype.

    Raises:
        ValueError: `b1` is not above 0 and at most 1.

    >>> from funcnet.optim import adam
    >>> optimizer = schedule_free(adam(0.1, b1=0.0), 0.1)
    >>> params = {"w": torch.ones(1)}
    >>> optimizer.update(params, optimizer.init(params), params)[0]
    {'w': tensor([-0.1000])}
    """
    is_schedule(learning_rate, "learning_rate"), scalar(weight_lr_power, "weight_lr_power")
    if not isinstance(scalar(b1, "b1"), Tensor) and not 0 < b1 <= 1:
        raise ValueError(f"b1 is {b1}, and must be above 0 and at most 1: the average is found by dividing by it.")
    base = with_extra_args_support(base_optimizer)

    def init(params: PyTree) -> ScheduleFreeState:
        return ScheduleFreeState(
            b1=stored(b1, params),
            weight_sum=stored(0.0, params),
            step_count=zero_count(params) + 1,
            max_lr=stored(0.0, params),
            base_optimizer_state=base.init(params),
            z=copied(params, state_dtype),
        )

    def update(
        updates: PyTree, state: ScheduleFreeState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScheduleFreeState]:
        weights = needed(params, "schedule_free")
        rate = value_at(learning_rate, state.step_count, "learning_rate")
        max_lr = torch.maximum(state.max_lr, torch.as_tensor(rate).to(state.max_lr))
        weight = max_lr**weight_lr_power
        weight_sum = state.weight_sum + weight
        share = quotient(weight, weight_sum)
        step, base_state = base.update(updates, state.base_optimizer_state, weights, **extra)

        def leaf(u: Tensor, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            moved = z + u
            x = (1 - share) * _average(y, z, b1) + share * moved
            return b1 * x + (1 - b1) * moved - y, moved

        moved, z = each(leaf, step, weights, z=state.z)
        return moved, ScheduleFreeState(
            b1=state.b1,
            weight_sum=weight_sum.to(state.weight_sum.dtype),
            step_count=increment(state.step_count),
            max_lr=max_lr,
            base_optimizer_state=base_state,
            z=z,
        )

    return stateful(ScheduleFreeState, init, update)


def schedule_free_sgd(
    learning_rate: Scalar = 1.0,
    warmup_steps: int | None = None,
    b1: Scalar = 0.9,
    weight_decay: Scalar | None = None,
    weight_lr_power: Scalar = 2.0,
    state_dtype: torch.dtype | None = None,
) -> GradientTransformation:
    r"""Gradient descent, schedule-free: `schedule_free` of `sgd` (Defazio et al., arXiv:2405.15682).

    `warmup_steps` raises the learning rate from zero in a straight line; `weight_decay` adds $\lambda y$ to gradients.

    >>> optimizer = schedule_free_sgd(0.5)
    >>> params = {"w": torch.ones(1)}
    >>> optimizer.update(params, optimizer.init(params), params)[0]
    {'w': tensor([-0.5000])}
    """
    rate = _warmed(learning_rate, warmup_steps)
    base = sgd(rate) if weight_decay is None else chain(add_decayed_weights(weight_decay), sgd(rate))
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype)


def schedule_free_adamw(
    learning_rate: Scalar = 0.0025,
    warmup_steps: int | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    weight_lr_power: Scalar = 2.0,
    state_dtype: torch.dtype | None = None,
) -> GradientTransformation:
    r"""AdamW, schedule-free: `schedule_free` of AdamW without its first mean (Defazio et al., arXiv:2405.15682).

    `warmup_steps` raises the learning rate from zero in a straight line.

    >>> optimizer = schedule_free_adamw(0.1)
    >>> params = {"w": torch.ones(1)}
    >>> optimizer.update(params, optimizer.init(params), params)[0]
    {'w': tensor([-0.1000])}
    """
    rate = _warmed(learning_rate, warmup_steps)
    base = chain(
        scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True),
        add_decayed_weights(weight_decay),
        scale_by_learning_rate(rate),
    )
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype)


def _warmed(learning_rate: Scalar, warmup_steps: int | None) -> ScalarOrSchedule:
    return learning_rate if warmup_steps is None else linear_schedule(0.0, learning_rate, warmup_steps)
