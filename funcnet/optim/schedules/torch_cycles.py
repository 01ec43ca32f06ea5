"""The schedulers of `torch.optim.lr_scheduler` that rise and fall; see `torch_like`."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..arguments import function
from ..values import Scalar, Schedule, scalar
from .lengths import length, nonzero, part_of
from .piecewise import BETWEEN, through

__all__ = ["cosine_annealing_lr", "cosine_annealing_warm_restarts", "cyclic_lr", "one_cycle_lr"]


def cosine_annealing_lr(init_value: Scalar, T_max: int, eta_min: Scalar = 0.0) -> Schedule:
    r"""A cosine between `init_value` and `eta_min`: `CosineAnnealingLR` (Loshchilov and Hutter, arXiv:1608.03983).

    $\eta + \tfrac12 (v - \eta) (1 + \cos(\pi t / T))$. After `T_max` steps it rises again, as torch's does;
    `cosine_decay_schedule` stays down. Raises `ValueError` where `T_max` is not positive.

    >>> [round(cosine_annealing_lr(1.0, 2)(t).item(), 3) for t in range(5)]
    [1.0, 0.5, 0.0, 0.5, 1.0]
    """
    scalar(init_value, "init_value"), scalar(eta_min, "eta_min")
    length(T_max, "T_max", "cosine_annealing_lr")
    return lambda count: BETWEEN["cosine"](init_value, eta_min, (torch.as_tensor(count) % (2 * T_max)) / T_max)


def cosine_annealing_warm_restarts(init_value: Scalar, T_0: int, T_mult: int = 1, eta_min: Scalar = 0.0) -> Schedule:
    r"""Half a cosine from `init_value` to `eta_min`, again and again: `CosineAnnealingWarmRestarts` (arXiv:1608.03983).

    The first takes `T_0` steps, and each next `T_mult` times as many. Raises `ValueError` where one is not positive.

    >>> [round(cosine_annealing_warm_restarts(1.0, 2, 2)(t).item(), 3) for t in range(7)]
    [1.0, 0.5, 1.0, 0.854, 0.5, 0.146, 1.0]
    """
    scalar(init_value, "init_value"), scalar(eta_min, "eta_min")
    rule = "cosine_annealing_warm_restarts"
    length(T_0, "T_0", rule), length(T_mult, "T_mult", rule)
    starts = [T_0]  # of all cycles but the first, until the largest count there is
    while T_mult > 1 and starts[-1] < torch.iinfo(torch.int32).max:
        starts.append(starts[-1] * T_mult + T_0)

    def schedule(count: Tensor) -> Tensor:
        step = torch.as_tensor(count)
        if T_mult == 1:
            return BETWEEN["cosine"](init_value, eta_min, (step % T_0) / T_0)
        begin, cycle = torch.zeros_like(step), torch.full_like(step, T_0, dtype=torch.get_default_dtype())
        for n, start in enumerate(starts[:-1]):
            begin = torch.where(step < start, begin, start)
            cycle = torch.where(step < start, cycle, float(T_0 * T_mult ** (n + 1)))
        return BETWEEN["cosine"](init_value, eta_min, (step - begin) / cycle)

    return schedule


def cyclic_lr(
    base_lr: Scalar,
    max_lr: Scalar,
    step_size_up: int = 2000,
    step_size_down: int | None = None,
    mode: str = "triangular",
    gamma: Scalar = 1.0,
    scale_fn: Callable[[Tensor], Scalar] | None = None,
    scale_mode: str = "cycle",
) -> Schedule:
    r"""Up and down in straight lines, again and again: `CyclicLR` (Smith, arXiv:1506.01186).

    $b + (m - b)\, h(t)\, s$, with $h$ the height from 0 to 1, and $s = 1$ for "triangular", $2^{-(\text{cycle} - 1)}$
    for "triangular2", $\gamma^t$ for "exp_range". A `scale_fn` of your own comes instead of `mode`: of the cycle, the
    first being 1, or with `scale_mode="iterations"` of the count.

    Torch cycles the momentum too: that is `cyclic_lr(max_momentum, base_momentum, ...)`, a schedule of its own. Raises
    `ValueError` for lengths that are not positive, and for other modes.

    >>> [cyclic_lr(0.0, 1.0, 2, mode="triangular2")(t).item() for t in range(8)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.25, 0.5, 0.25]
    """
    scalar(base_lr, "base_lr"), scalar(max_lr, "max_lr"), scalar(gamma, "gamma")
    up = length(step_size_up, "step_size_up", "cyclic_lr")
    down = up if step_size_down is None else length(step_size_down, "step_size_down", "cyclic_lr")
    scales: dict[str, Callable[[Tensor, Tensor], Scalar]] = {
        "triangular": lambda step, cycle: 1.0,
        "triangular2": lambda step, cycle: 0.5 ** (cycle - 1),
        "exp_range": lambda step, cycle: gamma**step,
    }
    if scale_fn is None and mode not in scales:
        raise ValueError(f'cyclic_lr got mode={mode!r}: write "triangular", "triangular2", "exp_range", or a scale_fn.')
    if scale_fn is not None:
        function(scale_fn, "scale_fn", "lambda cycle: 0.5**cycle")
    if scale_mode not in ("cycle", "iterations"):
        raise ValueError(f'cyclic_lr got scale_mode={scale_mode!r}: write "cycle" or "iterations".')

    def schedule(count: Tensor) -> Tensor:
        step = torch.as_tensor(count)
        cycle, place = step // (up + down) + 1, step % (up + down)
        height = torch.where(place <= up, place / up, (up + down - place) / down)
        own = scales[mode](step, cycle) if scale_fn is None else scale_fn(cycle if scale_mode == "cycle" else step)
        return base_lr + (max_lr - base_lr) * height * own

    return schedule


def one_cycle_lr(
    max_lr: Scalar,
    total_steps: int | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    div_factor: Scalar = 25.0,
    final_div_factor: Scalar = 1e4,
    three_phase: bool = False,
) -> Schedule:
    r"""Up to `max_lr` and down to nearly nothing: `OneCycleLR` (Smith and Topin, arXiv:1708.07120).

    It starts at $v_0 = m / d$, is at `max_lr` at step `pct_start * total_steps - 1` and at $v_0 / f$ at step
    `total_steps - 1`, where it stays (torch raises an error after one more). With `three_phase=True` it comes down to
    $v_0$ as fast as it rose, and goes on to $v_0 / f$. Between, it follows half cosines ("cos") or straight lines
    ("linear").

    Torch cycles the momentum too: `one_cycle_lr(base_momentum, ..., div_factor=base_momentum / max_momentum,
    final_div_factor=1.0)`. Raises `ValueError` where neither `total_steps` nor both `epochs` and `steps_per_epoch` are
    given, for lengths that are not positive, a `pct_start` outside [0, 1] and another `anneal_strategy`.

    >>> [round(one_cycle_lr(1.0, 5, pct_start=0.6, div_factor=2.0)(t).item(), 3) for t in range(6)]
    [0.5, 0.75, 1.0, 0.5, 0.0, 0.0]
    """
    rule = "one_cycle_lr"
    scalar(max_lr, "max_lr"), scalar(div_factor, "div_factor"), scalar(final_div_factor, "final_div_factor")
    if total_steps is None:
        if epochs is None or steps_per_epoch is None:
            raise ValueError("one_cycle_lr needs total_steps, or epochs and steps_per_epoch.")
        total_steps = length(epochs, "epochs", rule) * length(steps_per_epoch, "steps_per_epoch", rule)
    length(total_steps, "total_steps", rule)
    part_of(pct_start, "pct_start", rule), nonzero(div_factor, "div_factor", rule)
    nonzero(final_div_factor, "final_div_factor", rule)
    strategies = {"cos": "cosine", "linear": "linear"}
    if anneal_strategy not in strategies:
        raise ValueError(f'one_cycle_lr got anneal_strategy={anneal_strategy!r}: write "cos" or "linear".')
    first = max_lr / div_factor
    points = [(0.0, first), (pct_start * total_steps - 1, max_lr)]
    if three_phase:
        points.append((2 * pct_start * total_steps - 2, first))
    points.append((total_steps - 1, first / final_div_factor))
    return through(points, strategies[anneal_strategy])
