"""Step sizes from the distance travelled."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..tree import PyTree, global_norm, leaves, map
from .arguments import check_floating, stateful
from .base import GradientTransformation, needed
from .leafwise import abs_sq, each, root, wide
from .values import Scalar, scalar

__all__ = ["ScaleByDistanceOverGradientsState", "scale_by_distance_over_gradients"]


class ScaleByDistanceOverGradientsState(NamedTuple):
    """How far each leaf has been from its start, the sum of its gradients' squared lengths, and the start."""

    max_dist: PyTree
    """a 0-dim tensor for each parameter"""
    grad_sum_of_squares: PyTree
    """a tensor of shape (1,) for each parameter"""
    init_params: PyTree
    """like the parameters"""


def scale_by_distance_over_gradients(
    reps_rel: Scalar = 1e-6,
    eps: Scalar = 1e-8,
    param_dtype: torch.dtype = torch.float32,
    global_scale: Scalar = 1.0,
) -> GradientTransformation:
    r"""DoG leaf by leaf, which needs no learning rate (Ivgi et al., arXiv:2302.12022).

    $$d_t = \max(d_{t-1}, \lVert \theta_t - \theta_0 \rVert), \quad
    G_t = G_{t-1} + \lVert g_t \rVert^2, \quad u_t = s\, d_t\, g_t / \sqrt{G_t + \varepsilon}$$

    with $d_0 = r (1 + \lVert \theta_0 \rVert)$, $r$ = `reps_rel`, and $\theta_0$ kept in `param_dtype`. Where no step
    is to be longer than that, `global_scale=-1.0` makes it a whole optimizer. Unlike Optax's, updates of 0-dim leaves
    keep their shape.

    >>> rule = scale_by_distance_over_gradients(reps_rel=0.1)
    >>> params = {"w": torch.tensor([6.0, 8.0])}
    >>> rule.update({"w": torch.tensor([3.0, 4.0])}, rule.init(params), params)[0]
    {'w': tensor([0.6600, 0.8800])}
    """
    scalar(reps_rel, "reps_rel"), scalar(eps, "eps"), scalar(global_scale, "global_scale")

    def init(params: PyTree) -> ScaleByDistanceOverGradientsState:
        check_floating(leaves(params), params, "params")
        return ScaleByDistanceOverGradientsState(
            max_dist=map(lambda p: reps_rel * (1 + global_norm(p)), params),
            grad_sum_of_squares=map(lambda p: p.new_zeros(1, dtype=wide(p.dtype).to_real()), params),
            init_params=map(
                lambda p: p.to(param_dtype.to_complex() if p.is_complex() else param_dtype, copy=True), params
            ),
        )

    def update(
        updates: PyTree, state: ScaleByDistanceOverGradientsState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleByDistanceOverGradientsState]:
        def leaf(g: Tensor, start: Tensor, dist: Tensor, total: Tensor, p: Tensor) -> tuple[Tensor, ...]:
            dist = torch.maximum(dist, global_norm(p - start).to(dist.dtype))
            total = total + torch.sum(abs_sq(g))
            return g * (global_scale * dist / root(total.squeeze(0) + eps)), start, dist, total

        weights = needed(params, "scale_by_distance_over_gradients")
        own = {"max_dist": state.max_dist, "grad_sum_of_squares": state.grad_sum_of_squares}
        moved, start, dist, total = each(leaf, updates, weights, init_params=state.init_params, own=own)
        return moved, ScaleByDistanceOverGradientsState(max_dist=dist, grad_sum_of_squares=total, init_params=start)

    return stateful(ScaleByDistanceOverGradientsState, init, update)
