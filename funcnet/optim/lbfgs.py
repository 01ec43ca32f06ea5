"""L-BFGS."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..tree import PyTree, map, ravel, structure, unflatten
from ..tree.mismatch import match
from .arguments import stateful, whole
from .base import GradientTransformation, chain, identity, needed
from .leafwise import copied, dot, moment_zeros, quotient, wide
from .linesearch import scale_by_zoom_linesearch
from .scaling import scale, scale_by_learning_rate
from .values import Scalar, ScalarOrSchedule, device_of, increment, precise, zero_count

__all__ = ["ScaleByLBFGSState", "lbfgs", "scale_by_lbfgs"]


class ScaleByLBFGSState(NamedTuple):
    """The last parameters and updates, and a ring of the last differences of both; leaves have it as first axis."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""
    params: PyTree
    updates: PyTree
    diff_params_memory: PyTree
    diff_updates_memory: PyTree
    weights_memory: Tensor
    """one over the inner products of the differences, (memory_size,)"""


def scale_by_lbfgs(memory_size: int = 10, scale_init_precond: bool = True) -> GradientTransformation:
    r"""Multiply the updates by an estimate of the inverse Hessian (Liu and Nocedal 1989, doi:10.1007/BF01589116).

    With the differences $s_k = \theta_{k+1} - \theta_k$ and $y_k = g_{k+1} - g_k$ of the last `memory_size` steps and
    $\rho_k = 1 / \langle s_k, y_k \rangle$, the estimate is what the recursion

    $$P \leftarrow (I - \rho_k s_k y_k^\top) P (I - \rho_k y_k s_k^\top) + \rho_k s_k s_k^\top$$

    makes of $\gamma I$, where $\gamma = \langle s, y \rangle / \lVert y \rVert^2$ of the last step, at first
    $\min(1, 1 / \lVert g \rVert)$, and with `scale_init_precond=False` always 1. Meant for full-batch gradients, with a
    line search after it. Needs the parameters.

    Raises `ValueError` for a `memory_size` below 1.

    >>> rule = scale_by_lbfgs()
    >>> params = {"w": torch.tensor([3.0, 4.0])}
    >>> updates, state = rule.update(params, rule.init(params), params)
    >>> updates["w"]
    tensor([0.6000, 0.8000])
    >>> params = {"w": params["w"] - updates["w"]}
    >>> rule.update(params, state, params)[0]["w"]  # the Newton step
    tensor([2.4000, 3.2000])
    """
    whole(memory_size, "memory_size", "the steps that are remembered")

    def init(params: PyTree) -> ScaleByLBFGSState:
        def ring() -> PyTree:
            return map(lambda p: p.new_zeros(memory_size, *p.shape, dtype=wide(p.dtype)), params)

        return ScaleByLBFGSState(
            count=zero_count(params),
            params=moment_zeros(params),
            updates=moment_zeros(params),
            diff_params_memory=ring(),
            diff_updates_memory=ring(),
            weights_memory=torch.zeros(memory_size, dtype=precise(params), device=device_of(params)),
        )

    def update(
        updates: PyTree, state: ScaleByLBFGSState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleByLBFGSState]:
        old = state.params
        given = match(updates, old, "updates", "state.params")
        weights = match(needed(params, "scale_by_lbfgs"), old, "params", "state.params")
        gradient, unravel = ravel([leaf.to(wide(leaf.dtype)) for leaf in given])
        started = state.count > 0

        def difference(new: list[Tensor], last: PyTree) -> Tensor:
            moved = ravel([leaf.to(wide(leaf.dtype)) for leaf in new])[0] - ravel(last)[0]
            return torch.where(started, moved, torch.zeros_like(moved))

        s, y = difference(weights, old), difference(given, state.updates)
        agreement, length = dot(s, y).sum(), dot(y, y).sum()
        weight = quotient(1.0, agreement)

        places = torch.arange(memory_size, device=state.count.device)
        newest = places == (state.count - 1) % memory_size

        def remembered(memory: Tensor, new: Tensor) -> Tensor:
            return torch.where(newest.view(-1, *[1] * new.ndim), new, memory).to(memory.dtype)

        def ring(memory: PyTree, new: Tensor) -> tuple[PyTree, Tensor]:
            leaves = match(memory, old, "the memory", "state.params", shape=False)
            kept = [remembered(m, n) for m, n in zip(leaves, unravel(new), strict=True)]
            flat = torch.cat([leaf.reshape(memory_size, -1).to(new.dtype) for leaf in kept], 1)
            return unflatten(structure(old), kept), flat

        all_s, flat_s = ring(state.diff_params_memory, s)
        all_y, flat_y = ring(state.diff_updates_memory, y)
        rho = remembered(state.weights_memory, weight)

        first: Scalar = 1.0
        if scale_init_precond:
            norm = dot(gradient, gradient).sum()
            capped = 1 / torch.sqrt(torch.clamp(norm, min=1.0))
            flat = length == 0
            first = torch.where(started, torch.where(flat, 1.0, agreement / torch.where(flat, 1.0, length)), capped)
        order = (state.count + places) % memory_size  # the oldest first
        direction = _times(gradient, flat_s[order], flat_y[order], rho[order].to(flat_s.dtype.to_real()), first)
        found = [new.to(leaf.dtype) for new, leaf in zip(unravel(direction), given, strict=True)]
        return unflatten(structure(old), found), ScaleByLBFGSState(
            count=increment(state.count),
            params=unflatten(structure(old), copied(weights)),
            updates=unflatten(structure(old), copied(given)),
            diff_params_memory=all_s,
            diff_updates_memory=all_y,
            weights_memory=rho,
        )

    return stateful(ScaleByLBFGSState, init, update)


def _times(vector: Tensor, s: Tensor, y: Tensor, rho: Tensor, first: Scalar) -> Tensor:
    """The estimate times a vector, by the two loops of Nocedal and Wright, algorithm 7.4; the oldest rows first."""
    shares = []
    for row_s, row_y, weight in zip(reversed(s.unbind()), reversed(y.unbind()), reversed(rho.unbind()), strict=True):
        shares.append(weight * dot(row_s, vector).sum())
        vector = vector - shares[-1] * row_y
    vector = first * vector
    for row_s, row_y, weight, share in zip(s.unbind(), y.unbind(), rho.unbind(), reversed(shares), strict=True):
        vector = vector + (share - weight * dot(row_y, vector).sum()) * row_s
    return vector


_ZOOM = scale_by_zoom_linesearch(max_linesearch_steps=20, initial_guess_strategy="one")


def lbfgs(
    learning_rate: ScalarOrSchedule | None = None,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: GradientTransformation | None = _ZOOM,
) -> GradientTransformation:
    r"""L-BFGS with a line search (Nocedal and Wright, Numerical Optimization, algorithms 7.4 and 7.5).

    $\theta_{k+1} = \theta_k - \eta_k P_k \nabla f(\theta_k)$, where `scale_by_lbfgs` tells $P_k$ and the line search
    finds $\eta_k$; a `learning_rate` scales the direction before it. `update` needs the parameters, and what the line
    search wants: `value=`, `grad=` and `value_fn=`. With `linesearch=None` give a learning rate.

    >>> from funcnet.optim import apply_updates, value_and_grad_from_state
    >>> def valley(p):
    ...     return (1 - p["x"]) ** 2 + 100 * (p["y"] - p["x"] ** 2) ** 2
    >>> optimizer, value_and_grad = lbfgs(), value_and_grad_from_state(valley)
    >>> params = {"x": torch.tensor(-1.2, dtype=torch.float64), "y": torch.tensor(1.0, dtype=torch.float64)}
    >>> state = optimizer.init(params)
    >>> for _ in range(40):
    ...     value, grad = value_and_grad(params, state=state)
    ...     updates, state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=valley)
    ...     params = apply_updates(params, updates)
    >>> bool(valley(params) < 1e-12)
    True
    """
    rate = scale(-1.0) if learning_rate is None else scale_by_learning_rate(learning_rate)
    search = identity() if linesearch is None else linesearch
    return chain(scale_by_lbfgs(memory_size, scale_init_precond), rate, search)
