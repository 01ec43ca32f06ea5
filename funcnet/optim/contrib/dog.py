"""DoG and DoWG: gradient descent whose step is the distance made so far over the gradients seen so far."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ...tree import PyTree, global_norm, leaves
from ..arguments import check_floating, pair, stateful
from ..base import GradientTransformation, chain, identity, needed
from ..leafwise import abs_sq, copied, root, scaled, total
from ..scaling import scale_by_learning_rate
from ..values import Scalar, ScalarOrSchedule, scalar, stored
from ..weights import add_decayed_weights

__all__ = ["DoGState", "DoWGState", "dog", "dowg", "scale_by_dog", "scale_by_dowg"]


class DoGState(NamedTuple):
    """The first parameters, the longest way from them, and the sum of the gradients' squared lengths."""

    is_init_step: Tensor
    """bool, 0-dim"""
    init_params: PyTree
    max_dist: Tensor
    sum_sq_norm_grads: Tensor


def scale_by_dog(
    init_step: tuple[Literal["distance", "learning_rate", "heuristic"], Scalar], eps: Scalar = 1e-8
) -> GradientTransformation:
    r"""Multiply gradients by the distance over the gradients (Ivgi et al., arXiv:2302.12022).

    $$\bar r_t = \max(\bar r_{t-1}, \lVert \theta_t - \theta_0 \rVert), \quad G_t = G_{t-1} + \lVert g_t \rVert^2, \quad
    u_t = \frac{\bar r_t}{\sqrt{G_t + \varepsilon}} g_t$$

    `init_step` tells the first step: `("distance", r)` sets $\bar r_0 = r$, `("heuristic", a)` sets
    $\bar r_0 = a (1 + \lVert \theta_0 \rVert)$, and `("learning_rate", l)` takes $l g$ for the first update. Needs the
    parameters, in `init` as well. The authors average the iterates. Raises `ValueError` for another word.

    >>> rule = scale_by_dog(("distance", 0.1))
    >>> params = {"w": torch.zeros(2)}
    >>> rule.update({"w": torch.tensor([3.0, -4.0])}, rule.init(params), params)[0]
    {'w': tensor([ 0.0600, -0.0800])}
    """
    kind, value = pair(init_step, "init_step", '("heuristic", 1e-6)')
    scalar(value, "init_step[1]"), scalar(eps, "eps")
    if kind not in ("distance", "learning_rate", "heuristic"):
        raise ValueError(
            f'init_step begins with {kind!r}, and must with "distance", "learning_rate" or "heuristic": '
            'init_step=("heuristic", 1e-6).'
        )

    def init(params: PyTree) -> DoGState:
        check_floating(leaves(params), params, "params")
        first = {"distance": value, "learning_rate": 0.0}.get(kind)
        distance = value * (1 + global_norm(params)) if first is None else first
        return DoGState(
            is_init_step=stored(1.0, params) > 0,
            init_params=copied(params),
            max_dist=stored(distance, params),
            sum_sq_norm_grads=stored(0.0, params),
        )

    def update(updates: PyTree, state: DoGState, params: PyTree = None, **extra: Any) -> tuple[PyTree, DoGState]:
        away = total(lambda p0, p: abs_sq(p0 - p), state.init_params, needed(params, "scale_by_dog"))
        longest = torch.maximum(state.max_dist, root(away))
        squares = state.sum_sq_norm_grads + total(abs_sq, updates)
        rate = longest / torch.sqrt(squares + eps)
        if kind == "learning_rate":
            rate = torch.where(state.is_init_step, value, rate)
        return scaled(updates, rate), DoGState(
            is_init_step=torch.zeros_like(state.is_init_step),
            init_params=state.init_params,
            max_dist=longest.to(state.max_dist.dtype),
            sum_sq_norm_grads=squares.to(state.sum_sq_norm_grads.dtype),
        )

    return stateful(DoGState, init, update)


def dog(
    learning_rate: ScalarOrSchedule = 1.0,
    init_step: tuple[Literal["distance", "learning_rate", "heuristic"], Scalar] = ("heuristic", 1e-6),
    eps: Scalar = 1e-8,
    weight_decay: Scalar | None = None,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> GradientTransformation:
    r"""Distance over gradients: $-\eta$ times `scale_by_dog` of $g + \lambda \theta$ (Ivgi et al., arXiv:2302.12022).

    `scale_by_dog` tells `init_step` and `eps`; its authors advise an `init_step` of `("heuristic", 1e-4)` for models
    with batch normalization.

    >>> optimizer = dog(init_step=("distance", 0.1))
    >>> params = {"w": torch.zeros(2)}
    >>> optimizer.update({"w": torch.tensor([3.0, -4.0])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.0600,  0.0800])}
    """
    decay = identity() if weight_decay is None else add_decayed_weights(weight_decay, mask)
    return chain(decay, scale_by_dog(init_step, eps), scale_by_learning_rate(learning_rate))


class DoWGState(NamedTuple):
    """The first parameters, the weighted sum of the gradients' squared lengths, and the longest squared way."""

    init_params: PyTree
    weighted_sq_norm_grads: Tensor
    estim_sq_dist: Tensor


def scale_by_dowg(init_estim_sq_dist: Scalar | None = None, eps: Scalar = 1e-4) -> GradientTransformation:
    r"""Multiply gradients by the squared distance over the weighted gradients (Khaled et al., arXiv:2305.16284).

    $$\bar r_t^2 = \max(\bar r_{t-1}^2, \lVert \theta_t - \theta_0 \rVert^2), \quad
    G_t = G_{t-1} + \bar r_t^2 \lVert g_t \rVert^2, \quad u_t = \frac{\bar r_t^2}{\sqrt{G_t} + \varepsilon} g_t$$

    `init_estim_sq_dist` is $\bar r_0^2$, by default `eps`. Needs the parameters, in `init` as well.

    >>> rule = scale_by_dowg(0.01)
    >>> params = {"w": torch.zeros(2)}
    >>> rule.update({"w": torch.tensor([3.0, -4.0])}, rule.init(params), params)[0]
    {'w': tensor([ 0.0600, -0.0800])}
    """
    first = eps if init_estim_sq_dist is None else init_estim_sq_dist
    scalar(first, "init_estim_sq_dist"), scalar(eps, "eps")

    def init(params: PyTree) -> DoWGState:
        return DoWGState(
            init_params=copied(params),
            weighted_sq_norm_grads=stored(0.0, params),
            estim_sq_dist=stored(first, params),
        )

    def update(updates: PyTree, state: DoWGState, params: PyTree = None, **extra: Any) -> tuple[PyTree, DoWGState]:
        away = total(lambda p0, p: abs_sq(p0 - p), state.init_params, needed(params, "scale_by_dowg"))
        longest = torch.maximum(state.estim_sq_dist, away)
        squares = state.weighted_sq_norm_grads + longest * total(abs_sq, updates)
        return scaled(updates, longest / (root(squares) + eps)), DoWGState(
            init_params=state.init_params,
            weighted_sq_norm_grads=squares.to(state.weighted_sq_norm_grads.dtype),
            estim_sq_dist=longest.to(state.estim_sq_dist.dtype),
        )

    return stateful(DoWGState, init, update)


def dowg(
    learning_rate: ScalarOrSchedule = 1.0,
    init_estim_sq_dist: Scalar | None = None,
    eps: Scalar = 1e-4,
    weight_decay: Scalar | None = None,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> GradientTransformation:
    r"""Distance over weighted gradients: $-\eta$ times `scale_by_dowg` of $g + \lambda \theta$ (arXiv:2305.16284).

    >>> optimizer = dowg(init_estim_sq_dist=0.01)
    >>> params = {"w": torch.zeros(2)}
    >>> optimizer.update({"w": torch.tensor([3.0, -4.0])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.0600,  0.0800])}
    """
    decay = identity() if weight_decay is None else add_decayed_weights(weight_decay, mask)
    return chain(decay, scale_by_dowg(init_estim_sq_dist, eps), scale_by_learning_rate(learning_rate))
