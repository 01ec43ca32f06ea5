"""Adam and AdamW, and both with Nesterov's momentum."""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from ..tree import PyTree, flatten, unflatten
from ..tree.mismatch import match
from . import fast
from .arguments import stateful
from .base import Advancing, GradientTransformation, advance, chain, needed
from .leafwise import abs_sq, each, moment_zeros, root, square_zeros, unbiased
from .scaling import ScaleByScheduleState, scale_by_learning_rate
from .values import (
    Scalar,
    ScalarOrSchedule,
    Schedule,
    correction,
    decay_rate,
    increment,
    is_schedule,
    precise,
    scalar,
    value_at,
    zero_count,
)
from .weights import MaskOrFn, add_decayed_weights

__all__ = ["ScaleByAdamState", "adam", "adamw", "nadam", "nadamw", "scale_by_adam"]


class ScaleByAdamState(NamedTuple):
    """How many updates were made, and the running means of the gradients and of their squares."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""
    mu: PyTree
    """like the parameters"""
    nu: PyTree
    """like the parameters; real for complex ones"""


def scale_by_adam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    r"""Divide the running mean of the gradients by the root of that of their squares (Kingma and Ba, arXiv:1412.6980).

    $$\mu_t = \beta_1 \mu_{t-1} + (1 - \beta_1) g_t, \quad \nu_t = \beta_2 \nu_{t-1} + (1 - \beta_2) |g_t|^2, \quad
    u_t = \frac{\mu_t / (1 - \beta_1^t)}{\sqrt{\nu_t / (1 - \beta_2^t) + \varepsilon_r} + \varepsilon}$$

    With `nesterov=True` the numerator is $\beta_1 \mu_t / (1 - \beta_1^{t+1}) + (1 - \beta_1) g_t / (1 - \beta_1^t)$
    (Dozat 2016, openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ). `mu_dtype` stores the first mean in another dtype; both
    means of half-precision parameters are float32 otherwise. The root's slope at 0 counts as 0, so that gradients
    through the update are finite. Raises `TreeMismatchError` where the updates do not match the state.

    >>> rule = scale_by_adam()
    >>> params = {"w": torch.zeros(2)}
    >>> updates, state = rule.update({"w": torch.tensor([3.0, -0.1])}, rule.init(params), params)
    >>> updates["w"], state.count
    (tensor([ 1.0000, -1.0000]), tensor(1, dtype=torch.int32))
    """
    decay_rate(b1, "b1"), decay_rate(b2, "b2"), scalar(eps, "eps"), scalar(eps_root, "eps_root")
    fusible = not nesterov and not isinstance(eps_root, Tensor) and eps_root == 0

    def init(params: PyTree) -> ScaleByAdamState:
        return ScaleByAdamState(count=zero_count(params), mu=moment_zeros(params, mu_dtype), nu=square_zeros(params))

    def update(
        updates: PyTree, state: ScaleByAdamState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleByAdamState]:
        count = increment(state.count)
        if fusible:
            grads = match(updates, state.mu, "updates", "state.mu")
            mu, treedef = flatten(state.mu)
            new = fast.adam(grads, mu, match(state.nu, state.mu, "state.nu", "state.mu"), count, b1, b2, eps)
            if new is not None:
                return unflatten(treedef, new[0]), ScaleByAdamState(
                    count=count, mu=unflatten(treedef, new[1]), nu=unflatten(treedef, new[2])
                )
        dtype = precise(state.nu)
        mean, second = unbiased(b1, count, dtype, nesterov), correction(b2, count, dtype)

        def leaf(g: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * abs_sq(g)
            return mean(m, g) / (root(v / second + eps_root) + eps), m, v

        moved, new_mu, new_nu = each(leaf, updates, mu=state.mu, nu=state.nu)
        return moved, ScaleByAdamState(count=count, mu=new_mu, nu=new_nu)

    return stateful(ScaleByAdamState, init, update)


def adam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    r"""Adam: $u = -\eta$ times `scale_by_adam`, which tells the rest of the arguments (Kingma and Ba, arXiv:1412.6980).

    `learning_rate` is a number, a 0-dim tensor or a schedule. Equals `torch.optim.Adam`, and optax's `adam` but for the
    float32 moments of half-precision parameters.

    >>> optimizer = adam(0.1)
    >>> params = {"w": torch.zeros(2)}
    >>> updates, _ = optimizer.update({"w": torch.tensor([3.0, -0.1])}, optimizer.init(params), params)
    >>> updates["w"]
    tensor([-0.1000,  0.1000])
    """
    rule = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    reference = chain(rule, scale_by_learning_rate(learning_rate))
    if nesterov or isinstance(eps_root, Tensor) or eps_root != 0:
        return reference
    return _folded(reference, 2, learning_rate, b1, b2, eps, 0.0)


def adamw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: MaskOrFn = None,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    r"""Adam with decoupled weight decay, $u = -\eta (\mathrm{adam}(g) + \lambda \theta)$ (arXiv:1711.05101).

    `weight_decay` is multiplied by the learning rate, as in torch and optax; its default is optax's 1e-4, where
    `torch.optim.AdamW` has 1e-2. `mask` is a tree of booleans, or a function from the parameters to one, that tells
    which decay: `mask=lambda params: tree.map(lambda p: p.ndim > 1, params)` spares biases and norms.

    >>> optimizer = adamw(0.1, weight_decay=0.5)
    >>> params = {"w": torch.ones(1)}
    >>> optimizer.update({"w": torch.ones(1)}, optimizer.init(params), params)[0]
    {'w': tensor([-0.1500])}
    """
    rule = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    reference = chain(rule, add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate))
    if nesterov or isinstance(eps_root, Tensor) or eps_root != 0:
        return reference
    if mask is not None or is_schedule(weight_decay, "weight_decay"):
        return reference
    return _folded(reference, 3, learning_rate, b1, b2, eps, weight_decay)


def nadam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = True,
) -> GradientTransformation:
    """Adam with Nesterov's momentum: `adam(..., nesterov=True)`.

    Dozat 2016, openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ. `torch.optim.NAdam` differs: its momentum has a
    schedule.

    >>> optimizer = nadam(0.1)
    >>> params = {"w": torch.zeros(1)}
    >>> optimizer.update({"w": torch.ones(1)}, optimizer.init(params), params)[0]
    {'w': tensor([-0.1474])}
    """
    return adam(learning_rate, b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)


def nadamw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: MaskOrFn = None,
    *,
    nesterov: bool = True,
) -> GradientTransformation:
    """Decoupled weight decay and Nesterov's momentum: `adamw(..., nesterov=True)`.

    >>> optimizer = nadamw(0.1, weight_decay=0.5)
    >>> params = {"w": torch.ones(1)}
    >>> optimizer.update({"w": torch.ones(1)}, optimizer.init(params), params)[0]
    {'w': tensor([-0.1974])}
    """
    return adamw(learning_rate, b1, b2, eps, eps_root, mu_dtype, weight_decay, mask, nesterov=nesterov)


def _folded(
    reference: GradientTransformation,
    links: int,
    learning_rate: ScalarOrSchedule,
    b1: Scalar,
    b2: Scalar,
    eps: Scalar,
    weight_decay: Scalar,
) -> GradientTransformation:
    """The same chain, whose `links` are one kernel in ordinary eager steps; its states are the chain's own."""
    scheduled = learning_rate is not None and is_schedule(learning_rate, "learning_rate")
    constant, schedule = cast(Scalar, learning_rate), cast(Schedule, learning_rate)  # one of them, as `scheduled` tells

    def run(
        updates: PyTree, state: tuple[Any, ...], params: PyTree, onto: bool, donate: bool = False
    ) -> tuple[PyTree, Any] | None:
        if learning_rate is None or not isinstance(state, tuple) or len(state) != links:
            return None
        if not isinstance(state[0], ScaleByAdamState):
            return None
        own, last = state[0], state[-1]
        rate = value_at(schedule, last.count, "learning_rate") if scheduled else constant
        grads = match(updates, own.mu, "updates", "state.mu")
        mu, treedef = flatten(own.mu)
        nu = match(own.nu, own.mu, "state.nu", "state.mu")
        # Two links are Adam without decay, which does not look at the parameters.
        unseen = params is None and links == 2
        weights = None if unseen else match(needed(params, "adamw"), own.mu, "params", "state.mu")
        count = increment(own.count)
        new = fast.adam(grads, mu, nu, count, b1, b2, eps, rate, weight_decay, weights, onto, donate)
        if new is None:
            return None
        adam_state = ScaleByAdamState(count=count, mu=unflatten(treedef, new[1]), nu=unflatten(treedef, new[2]))
        rate_state = ScaleByScheduleState(count=increment(last.count)) if scheduled else last
        return unflatten(treedef, new[0]), (adam_state, *state[1:-1], rate_state)

    def update(
        updates: PyTree, state: tuple[Any, ...], params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, tuple[Any, ...]]:
        folded = run(updates, state, params, onto=False)
        return folded if folded is not None else reference.update(updates, state, params, **extra)

    def advancing(
        updates: PyTree, state: tuple[Any, ...], params: PyTree, donate: bool, **extra: Any
    ) -> tuple[PyTree, Any]:
        folded = run(updates, state, params, onto=True, donate=donate)
        return folded if folded is not None else advance(reference, updates, state, params, donate=donate, **extra)

    return Advancing.of(GradientTransformation(reference.init, update), advancing)
