"""L-BFGS with torch's stopping rules, and its line search."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...control import cond, scan, while_loop
from ...transforms import value_and_grad
from ...tree import PyTree, leaves, map, ravel
from ...tree.mismatch import match
from ..arguments import check_floating, stateful
from ..base import GradientTransformation, extra_argument, needed
from ..leafwise import wide
from ..values import Scalar, ScalarOrSchedule, increment, is_schedule, scalar, value_at, zero_count
from .common import as_given, as_real, nonnegative
from .wolfe import Point, strong_wolfe


class Memory(NamedTuple):
    """What one iteration leaves to the next, of the parameters as one vector."""

    n_iter: Tensor
    """iterations so far, int32"""
    d: Tensor
    """the last direction"""
    t: Tensor
    """the last step size"""
    old_dirs: Tensor
    """differences of gradients, the newest last; rows of zeros are not used yet"""
    old_stps: Tensor
    """the steps that made them"""
    ro: Tensor
    """one over their products"""
    H_diag: Tensor
    """the scale of the inverse Hessian to start from"""
    prev_flat_grad: Tensor


class LBFGSState(NamedTuple):
    """How many updates were made, how many evaluations, and what the iterations remember."""

    step: Tensor
    func_evals: Tensor
    memory: Memory


class _Now(NamedTuple):
    """The carry of the iterations within one update."""

    x: Tensor
    value: Tensor
    grad: Tensor
    memory: Memory
    turn: Tensor
    evals: Tensor
    going: Tensor


def lbfgs(
    lr: ScalarOrSchedule,
    max_iter: int,
    max_eval: int | None,
    tolerance_grad: Scalar,
    tolerance_change: Scalar,
    history_size: int,
    line_search_fn: str | None,
    maximize: bool = False,
) -> GradientTransformation:
    r"""Up to `max_iter` quasi-Newton steps in one update, which needs `value_fn=`, the loss of the parameters.

    Liu and Nocedal 1989, doi.org/10.1007/BF01589116. The updates given to it are the gradient at the parameters;
    `value=`, the loss there, spares its evaluation. Steps have length `lr`, or what the search for the strong Wolfe
    conditions finds (`line_search_fn="strong_wolfe"`). Where an update ends depends on the values, so that derivatives
    through it are those of the iterations that were made; under `jit` in forward mode alone.

    >>> def loss(params):
    ...     return (params["w"] - 3).square().sum()
    >>> optimizer = lbfgs(1.0, 20, None, 1e-7, 1e-9, 5, "strong_wolfe")
    >>> params = {"w": torch.zeros(2)}
    >>> updates, state = optimizer.update(torch.func.grad(loss)(params), optimizer.init(params), params, value_fn=loss)
    >>> updates["w"], state.func_evals
    (tensor([3., 3.]), tensor(3, dtype=torch.int32))
    """
    if not is_schedule(lr, "lr"):
        nonnegative(lr=lr)
    scalar(tolerance_grad, "tolerance_grad"), scalar(tolerance_change, "tolerance_change")
    most = max_iter * 5 // 4 if max_eval is None else max_eval
    for name, number in {"max_iter": max_iter, "max_eval": most, "history_size": history_size}.items():
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} is {number}, where LBFGS needs an int of at least 1.")
    if line_search_fn not in (None, "strong_wolfe"):
        raise ValueError(f"line_search_fn is {line_search_fn!r}: torch.optim has 'strong_wolfe' and None.")
    sign = -1 if maximize else 1

    def init(params: PyTree) -> LBFGSState:
        check_floating(leaves(params), params, "params")
        x, _ = _flat(params)
        zero, rows = zero_count(params), x.new_zeros(history_size, len(x))
        memory = Memory(
            n_iter=zero.clone(),
            d=torch.zeros_like(x),
            t=x.new_zeros(()),
            old_dirs=rows,
            old_stps=rows.clone(),
            ro=x.new_zeros(history_size),
            H_diag=x.new_ones(()),
            prev_flat_grad=torch.zeros_like(x),
        )
        return LBFGSState(step=zero, func_evals=zero.clone(), memory=memory)

    def update(updates: PyTree, state: LBFGSState, params: PyTree = None, **extra: Any) -> tuple[PyTree, LBFGSState]:
        x, restored = _flat(needed(params, 'from_torch("LBFGS")'))
        value_fn = extra_argument(extra, "value_fn", 'from_torch("LBFGS")', "loss")
        grad = sign * _flat(match(updates, params, "updates", "params"))[0].to(x.dtype)
        value = sign * torch.as_tensor(value_fn(params) if extra.get("value") is None else extra["value"]).to(x.dtype)
        rate = (x.new_ones(()) * value_at(lr, state.step, "lr")).to(x.dtype)
        zero = torch.zeros_like(state.step)

        def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
            value, grad = value_and_grad(lambda flat: value_fn(restored(flat)))(x)
            return sign * value.to(x.dtype), sign * grad

        def step(now: _Now) -> _Now:
            return _iterated(now, evaluate, rate)

        going = ~(_largest(grad) <= tolerance_grad)
        start = _Now(x, value, grad, state.memory, zero, zero + 1, going)
        end = while_loop(lambda now: now.going, step, start)
        return restored(end.x - x), LBFGSState(increment(state.step), state.func_evals + end.evals, end.memory)

    def _iterated(now: _Now, evaluate: Callable[[Tensor], tuple[Tensor, Tensor]], rate: Tensor) -> _Now:
        turn, memory = now.turn + 1, _remembered(now.memory, now.grad)
        total = now.grad.abs().sum()
        careful = 1 / torch.clamp(total, min=1.0)  # a gradient alone does not say how far
        t = torch.where(memory.n_iter == 1, careful * rate, rate)
        d = _direction(memory, now.grad)
        slope = torch.dot(now.grad, d)
        moving = ~(slope > -tolerance_change)

        def search() -> tuple[Point, Tensor]:
            def along(t: Tensor) -> Point:
                value, grad = evaluate(now.x + t * d)
                return Point(t, value, grad, torch.dot(grad, d))

            if line_search_fn is None:
                return along(t), torch.ones_like(turn)
            start = Point(torch.zeros_like(t), now.value, now.grad, slope)
            return strong_wolfe(along, start, t, d, most - now.evals)

        def stay() -> tuple[Point, Tensor]:
            return Point(t, now.value, now.grad, slope), torch.zeros_like(turn)

        # Without a search, the last iteration moves and does not look where to.
        asked = moving if line_search_fn is not None else moving & (turn < max_iter)
        found, used = cond(asked, search, stay)
        evals, shift = now.evals + used, d * found.t
        done = ~moving | (turn == max_iter) | (evals >= most) | (_largest(found.grad) <= tolerance_grad)
        done = done | (_largest(shift) <= tolerance_change) | ((found.value - now.value).abs() < tolerance_change)
        x = torch.where(moving, now.x + found.t * d, now.x)
        return _Now(x, found.value, found.grad, memory._replace(d=d, t=found.t), turn, evals, ~done)

    return stateful(LBFGSState, init, update)


def _remembered(memory: Memory, grad: Tensor) -> Memory:
    """The memory with the last step in it, where that had positive curvature."""
    y, s = grad - memory.prev_flat_grad, memory.d * memory.t
    ys = torch.dot(y, s)
    keep = ys > 1e-10

    def shifted(rows: Tensor, new: Tensor) -> Tensor:
        return torch.where(keep, torch.cat([rows[1:], new[None]]), rows)

    safe = torch.where(keep, ys, 1.0)
    return memory._replace(
        n_iter=increment(memory.n_iter),
        old_dirs=shifted(memory.old_dirs, y),
        old_stps=shifted(memory.old_stps, s),
        ro=shifted(memory.ro, 1 / safe),
        H_diag=torch.where(keep, safe / torch.where(keep, torch.dot(y, y), 1.0), memory.H_diag),
        prev_flat_grad=grad,
    )


def _direction(memory: Memory, grad: Tensor) -> Tensor:
    """Minus the inverse Hessian times the gradient, by the two loops."""

    def newest_first(q: Tensor, row: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        y, s, ro = row
        share = torch.dot(s, q) * ro
        return q - share * y, share

    def oldest_first(r: Tensor, row: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, None]:
        y, s, ro, share = row
        return r + (share - torch.dot(y, r) * ro) * s, None

    rows = memory.old_dirs, memory.old_stps, memory.ro
    q, shares = scan(newest_first, -grad, rows, reverse=True)
    return scan(oldest_first, q * memory.H_diag, (*rows, shares))[0]


def _flat(params: PyTree) -> tuple[Tensor, Callable[[Tensor], PyTree]]:
    """The parameters as one vector of real numbers, of float32 at least, and the way back to them."""
    real = as_real(params)
    vector, unravel = ravel(map(lambda leaf: leaf.to(wide(leaf.dtype)), real))

    def restored(vector: Tensor) -> PyTree:
        cast = map(lambda leaf, like: leaf.to(like.dtype), unravel(vector), real)
        return as_given(cast, params)

    return vector, restored


def _largest(x: Tensor) -> Tensor:
    return x.abs().max()
