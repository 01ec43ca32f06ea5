"""Sophia: clipped steps, scaled by an estimate of the Hessian's diagonal."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import random
from ...control import cond
from ...transforms import hvp
from ...tree import PyTree, flatten, map, unflatten
from ..arguments import function, nonnegative, stateful, whole
from ..base import GradientTransformation, chain, extra_argument, needed, with_extra_args_support
from ..leafwise import each, moment_zeros, total
from ..reporting import report
from ..scaling import scale_by_learning_rate
from ..values import Scalar, ScalarOrSchedule, correction, decay_rate, increment, precise, scalar, zero_count
from ..weights import add_decayed_weights

__all__ = ["HutchinsonState", "SophiaState", "hutchinson_estimator_diag_hessian", "scale_by_sophia", "sophia"]


class HutchinsonState(NamedTuple):
    """The key that the next signs are drawn from."""

    key: Tensor


def hutchinson_estimator_diag_hessian(random_seed: Tensor | int | None = None) -> GradientTransformation:
    r"""An estimate of the Hessian's diagonal in the place of the updates, $s \odot \nabla^2 f(\theta) s$.

    The signs $s$ are drawn from `random_seed`, a key or an integer, by default `random.key(0)`. Unbiased, of high
    variance, and exact where the Hessian is diagonal (Hutchinson 1990, doi:10.1080/03610919008812866). `update` needs
    the parameters and `obj_fn=`, the loss as a function of them.

    >>> rule = hutchinson_estimator_diag_hessian()
    >>> params = {"w": torch.tensor([1.0, 2.0])}
    >>> rule.update(params, rule.init(params), params, obj_fn=lambda p: (p["w"] ** 3).sum())[0]
    {'w': tensor([ 6., 12.])}
    """

    def init(params: PyTree) -> HutchinsonState:
        given = 0 if random_seed is None else random_seed
        return HutchinsonState(key=given.clone() if isinstance(given, Tensor) else random.key(given))

    def update(
        updates: PyTree, state: HutchinsonState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, HutchinsonState]:
        weights = needed(params, "hutchinson_estimator_diag_hessian")
        loss = extra_argument(extra, "obj_fn", "hutchinson_estimator_diag_hessian", "lambda params: loss")
        function(loss, "obj_fn", "lambda params: loss")
        key, draw = random.split(state.key)
        values, treedef = flatten(weights)
        keys = random.split(draw, len(values))
        signs = [
            random.rademacher(k, value.shape, torch.float32).to(value.dtype)
            for k, value in zip(keys, values, strict=True)
        ]
        products = hvp(loss, (weights,), (unflatten(treedef, signs),))
        return map(torch.mul, products, unflatten(treedef, signs)), HutchinsonState(key=key)

    return stateful(HutchinsonState, init, update)


class SophiaState(NamedTuple):
    """The step count, the means of the gradients and of the Hessian's diagonal, and the state of the estimator."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""
    mu: PyTree
    nu: PyTree
    hessian_fn_state: Any


_HUTCHINSON = hutchinson_estimator_diag_hessian()


def scale_by_sophia(
    b1: Scalar = 0.965,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    gamma: Scalar = 0.01,
    clip_threshold: Scalar | None = 1.0,
    update_interval: int | Tensor = 10,
    hessian_diagonal_fn: GradientTransformation = _HUTCHINSON,
    mu_dtype: torch.dtype | None = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: int = 0,
) -> GradientTransformation:
    r"""Divide the mean gradient by the mean curvature, and clip (Liu et al., arXiv:2305.14342).

    $$\mu_t = \beta_1 \mu_{t-1} + (1 - \beta_1) g_t, \quad
    u_t = \mathrm{clip}\left( \frac{\mu_t / (1 - \beta_1^t)}{\max(\gamma h_{t-1}, \varepsilon)}, -c, c \right)$$

    and every `update_interval` updates, from the first, $h_t = \beta_2 h_{t-1} + (1 - \beta_2) \hat h_t$ of an estimate
    of the Hessian's diagonal. `hessian_diagonal_fn` makes it, and gets all keywords of `update`: Hutchinson's needs
    `obj_fn=`. As in optax the signs are fair coins, where the paper draws normals.

    Args:
        b1: the decay of the mean gradient.
        b2: that of the mean curvature.
        eps: the least denominator.
        gamma: the larger, the fewer elements are clipped.
        clip_threshold: $c$; None for no clipping.
        update_interval: how often curvature is estimated.
        hessian_diagonal_fn: a transformation whose updates are the estimate.
        mu_dtype: stores the mean gradient in another dtype.
        verbose: print the share of elements not clipped, in eager steps; the authors advise 0.1 to 0.5.
        print_win_rate_every_n_steps: how often.

    >>> rule = scale_by_sophia(gamma=1.0, b2=0.0)
    >>> params = {"w": torch.tensor([3.0, 0.1])}
    >>> loss = lambda p: (p["w"] ** 2).sum()
    >>> state = rule.init(params)
    >>> for _ in range(2):
    ...     updates, state = rule.update(params, state, params, obj_fn=loss)
    >>> updates
    {'w': tensor([1.0000, 0.0500])}
    """
    decay_rate(b1, "b1"), decay_rate(b2, "b2"), scalar(eps, "eps"), scalar(gamma, "gamma")
    whole(update_interval, "update_interval")
    if clip_threshold is not None:
        nonnegative(clip_threshold, "clip_threshold")
    if verbose and print_win_rate_every_n_steps < 1:
        raise ValueError("verbose=True needs print_win_rate_every_n_steps: how often to print, at least 1.")
    estimator = with_extra_args_support(hessian_diagonal_fn)

    def init(params: PyTree) -> SophiaState:
        return SophiaState(
            count=zero_count(params),
            mu=moment_zeros(params, mu_dtype),
            nu=moment_zeros(params),
            hessian_fn_state=estimator.init(params),
        )

    def update(updates: PyTree, state: SophiaState, params: PyTree = None, **extra: Any) -> tuple[PyTree, SophiaState]:
        weights = needed(params, "scale_by_sophia")
        count = increment(state.count)
        first = correction(b1, count, precise(state.nu))

        def leaf(g: Tensor, m: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            m = b1 * m + (1 - b1) * g
            return m / first / torch.clamp(gamma * h, eps), m, h

        moved, mu, _ = each(leaf, updates, mu=state.mu, nu=state.nu)
        if clip_threshold is not None:
            bound: Any = clip_threshold
            if verbose:
                wins = total(lambda u: (torch.abs(u) < bound) * 1.0, moved) / total(torch.ones_like, moved)
                report(
                    count % print_win_rate_every_n_steps == 0, "sophia: {wins} of all elements not clipped", wins=wins
                )
            (moved,) = each(lambda u: torch.clamp(u, -bound, bound), moved)

        def estimated(nu: PyTree, own: Any) -> tuple[PyTree, Any]:
            diagonal, own = estimator.update(updates, own, weights, **extra)
            _, nu = each(lambda h, old: (h, b2 * old + (1 - b2) * h), diagonal, nu=nu)
            return nu, own

        due = state.count % update_interval == 0
        nu, own = cond(due, estimated, lambda nu, own: (nu, own), state.nu, state.hessian_fn_state)
        return moved, SophiaState(count=count, mu=mu, nu=nu, hessian_fn_state=own)

    return stateful(SophiaState, init, update)


def sophia(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.965,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 1e-4,
    weight_decay_mask: PyTree | Callable[[PyTree], PyTree] | None = None,
    gamma: Scalar = 0.01,
    clip_threshold: Scalar | None = 1.0,
    update_interval: int | Tensor = 10,
    hessian_diagonal_fn: GradientTransformation = _HUTCHINSON,
    mu_dtype: torch.dtype | None = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: int = 0,
) -> GradientTransformation:
    r"""Sophia, $u = -\eta (\mathrm{sophia}(g) + \lambda \theta)$ (Liu et al., arXiv:2305.14342).

    `scale_by_sophia` tells the arguments; `update` needs the parameters and `obj_fn=`, the loss as a function of them.

    >>> optimizer = sophia(0.1, weight_decay=0.0)
    >>> params = {"w": torch.tensor([3.0, 0.1])}
    >>> loss = lambda p: (p["w"] ** 2).sum()
    >>> optimizer.update(params, optimizer.init(params), params, obj_fn=loss)[0]
    {'w': tensor([-0.1000, -0.1000])}
    """
    rule = scale_by_sophia(
        b1,
        b2,
        eps,
        gamma,
        clip_threshold,
        update_interval,
        hessian_diagonal_fn,
        mu_dtype,
        verbose,
        print_win_rate_every_n_steps,
    )
    return chain(rule, add_decayed_weights(weight_decay, weight_decay_mask), scale_by_learning_rate(learning_rate))
