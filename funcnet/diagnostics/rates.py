"""Which learning rate: one sweep over all of them, or a few tried side by side."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice, pairwise
from statistics import stdev
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import tree
from funcnet.control import scan
from funcnet.model import Params, State
from funcnet.optim import GradientTransformation
from funcnet.train import TrainState, make_step
from funcnet.train.feed import Batches, Feed
from funcnet.train.step import Loss
from funcnet.transforms import vmap

__all__ = ["RateSweep", "find_rate", "try_rates"]

Optimizer = Callable[..., GradientTransformation]


class RateSweep(NamedTuple):
    """The losses of a run whose learning rate grew from step to step."""

    rates: Tensor
    """float64 `(steps,)`: up to where the sweep ended."""
    losses: Tensor
    """float64 `(steps,)`: the loss that the step of this rate met, before it moved."""
    smoothed: Tensor
    """float64 `(steps,)`: their running mean, corrected for its beginning."""
    suggestion: float | None
    """A rate to start from; None where there is none to be had, for the reason that `note` has."""
    note: str
    """Where the sweep ended and why, and what the suggestion is."""

    def __str__(self) -> str:
        """The suggestion and the note."""
        rate = "no suggestion" if self.suggestion is None else f"learning rate {self.suggestion:.2g}"
        return f"{rate}: {self.note}"


def find_rate(
    loss: Loss,
    optimizer: Optimizer,
    params: Params,
    state: State,
    key: Tensor,
    batches: Batches,
    *,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    smoothing: float = 0.9,
    explosion: float = 3.0,
    compile: Callable[..., Any] | None = None,
    **options: Any,
) -> RateSweep:
    r"""Train once, with a learning rate that grows from `low` to `high`, and see where the loss falls and explodes.

    This is the range test of Smith, Cyclical Learning Rates for Training Neural Networks (arXiv:1506.01186), with
    rates $\eta_i = \eta_0 (\eta_1 / \eta_0)^{i / (n - 1)}$ evenly spaced in their logarithm and a loss smoothed by
    $s_i = \sum_{j \le i} \beta^{i - j} l_j / \sum_{j \le i} \beta^{i - j}$, as in fastai. It suggests the rate at
    which the smoothed loss falls most from one rate to the next, of those before its minimum; the first tenth of the
    steps is left out, where the mean is over few losses. There is no suggestion where the whole fall is no more than
    the noise there: the standard deviation of the differences between neighbours, over the root of two.

    One program serves all rates, as the rate is a schedule of the step count. Nothing given is changed.

    Args:
        loss: as `make_step` takes it: `loss(params, state, batch, key) -> (loss, (state, metrics))`.
        optimizer: a function of a learning rate that gives a transformation: `optim.adamw`, or
            `partial(optim.sgd, momentum=0.9)`. It is called with a schedule.
        params: trainable tensors.
        state: the model's other tensors.
        key: of the run's randomness.
        batches: as for `fit`: a stream, a function of the epoch's number, or the batches of every epoch.
        low: the first rate.
        high: the last rate.
        steps: how many rates.
        smoothing: $\beta$, from 0 (no smoothing) to below 1.
        explosion: the sweep ends where the smoothed loss lies above its minimum by so many times the size of that
            minimum, of the fall to it, or of the noise, if that is greater. Not in the first tenth of the steps, unless
            a loss is not finite, which ends it anywhere.
        compile: what the step is compiled with, such as `jit`.
        **options: further arguments of `make_step`.

    Raises:
        TypeError: `optimizer` is a transformation already.
        ValueError: the rates are not positive and growing, there are fewer than 10 steps, `smoothing` is no decay,
            `explosion` is not positive, or there are no batches.

    The error of a mean, whose gradient step is stable below a rate of 2:

    >>> from funcnet import optim, random
    >>> def loss(params, state, batch, key):
    ...     return 0.5 * (params["mean"] - batch).square().sum(), (state, {})
    >>> sweep = find_rate(loss, optim.sgd, {"mean": torch.zeros(1)}, {}, random.key(0), [torch.ones(1)], low=1e-3)
    >>> 0.01 < sweep.suggestion < 2.0
    True
    """
    _check(optimizer, low, high, steps, smoothing, explosion)
    growth = math.log(high / low) / (steps - 1)

    def schedule(count: Tensor) -> Tensor:
        return low * torch.exp(growth * count)

    step = make_step(loss, optimizer(schedule), **options)
    # A copy, since what compiles the step may have it consume its state.
    ts = tree.map(torch.clone, step.init(params, state, key))
    run = step if compile is None else compile(step)
    losses: list[float] = []
    smoothed: list[float] = []
    total = weight = 0.0
    end = f"it reached {high:.2g}"
    for i, batch in enumerate(islice(_again(batches), steps)):
        ts, metrics = run(ts, batch)
        value = float(metrics["loss"])
        rate = low * math.exp(growth * i)
        if not math.isfinite(value):
            end = f"the loss is {value} at {rate:.2g}"
            break
        total, weight = smoothing * total + value, smoothing * weight + 1
        losses.append(value)
        smoothed.append(total / weight)
        best, first = min(smoothed), _first(steps)
        if i < first:
            continue
        if smoothed[-1] > best + explosion * max(abs(best), smoothed[0] - best, _noise(losses[:first])):
            end = f"the loss explodes at {rate:.2g}"
            break
    rates = low * torch.exp(growth * torch.arange(len(losses), dtype=torch.float64))
    found, reason = _suggest(rates, torch.tensor(losses, dtype=torch.float64), smoothed, steps)
    raw, means = (torch.tensor(numbers, dtype=torch.float64) for numbers in (losses, smoothed))
    return RateSweep(rates, raw, means, found, f"{reason}; {end}.")


def try_rates(
    loss: Loss,
    optimizer: Optimizer,
    params: Params,
    state: State,
    key: Tensor,
    batches: Batches,
    rates: Tensor | Sequence[float],
    *,
    steps: int,
    **options: Any,
) -> Tensor:
    """The losses of short runs at several constant rates, side by side in one program.

    The runs start alike, see the same batches and draw from the same key. All is one call that can be jitted whole:
    `jit(lambda params, batches: try_rates(loss, optim.adamw, params, state, key, batches, rates, steps=50))`. It takes
    the memory of as many models and of all the batches.

    Args:
        loss: as `make_step` takes it.
        optimizer: a function of a learning rate that gives a transformation. It is called with a 0-dim tensor.
        params: trainable tensors.
        state: the model's other tensors.
        key: of the runs' randomness.
        batches: as for `find_rate`, all of one shape.
        rates: `(n,)`.
        steps: how many steps each run makes.
        **options: further arguments of `make_step`.

    Returns:
        The loss that each step met: `(n, steps)`, not finite where a run has diverged.

    Raises:
        TypeError: `optimizer` is a transformation already.
        ValueError: the rates have not one axis, `steps` is not positive, or there are no batches.

    >>> from funcnet import optim, random
    >>> def loss(params, state, batch, key):
    ...     return 0.5 * (params["mean"] - batch).square().sum(), (state, {})
    >>> mean, key = {"mean": torch.zeros(1)}, random.key(0)
    >>> try_rates(loss, optim.sgd, mean, {}, key, [torch.ones(1)], [0.5, 3.0], steps=3)
    tensor([[0.5000, 0.1250, 0.0312],
            [0.5000, 2.0000, 8.0000]])
    """
    _check_factory(optimizer)
    rates = torch.as_tensor(rates, device=next((leaf.device for leaf in tree.leaves(params)), None))
    if rates.ndim != 1 or not len(rates):
        raise ValueError(f"rates has shape {tuple(rates.shape)}; try_rates takes several rates on one axis: (n,).")
    if steps < 1:
        raise ValueError(f"steps is {steps}; it counts the steps of each run and must be positive.")
    rows = tree.stack(list(islice(_again(batches), steps)))

    def run(rate: Tensor) -> Tensor:
        step = make_step(loss, optimizer(rate), **options)

        def one(ts: TrainState, batch: Any) -> tuple[TrainState, Tensor]:
            ts, metrics = step(ts, batch)
            return ts, metrics["loss"]

        losses: Tensor = scan(one, step.init(params, state, key), rows)[1]
        return losses

    found: Tensor = vmap(run)(rates)
    return found


def _suggest(rates: Tensor, losses: Tensor, means: Sequence[float], steps: int) -> tuple[float | None, str]:
    """The rate of the steepest descent, and what it is; None, and why."""
    first = _first(steps)
    if len(means) < first + 2:
        return None, f"{len(means)} finite losses are too few to tell: start at a lower rate"
    smoothed = torch.tensor(means, dtype=torch.float64)
    lowest = first + int(smoothed[first:].argmin())
    fall, noise = float(smoothed[first] - smoothed[lowest]), _noise(losses[:first].tolist())
    if fall <= noise:
        return None, f"the loss falls by {max(fall, 0.0):.2g}, which is within its noise of {noise:.2g}"
    # Rates are evenly spaced in their logarithm, so that the steepest slope is the greatest difference.
    steepest = first + int(smoothed[first : lowest + 1].diff().argmin())
    return float(rates[steepest]), f"the smoothed loss falls steepest there, and is least at {rates[lowest]:.2g}"


def _first(steps: int) -> int:
    """How many losses there have to be before any is judged."""
    return max(steps // 10, 3)


def _noise(losses: Sequence[float]) -> float:
    """The standard deviation of losses around their course: by differences, since a steady fall is no noise."""
    return stdev(after - before for before, after in pairwise(losses)) / math.sqrt(2)


def _again(batches: Batches) -> Iterator[Any]:
    """Batches of epoch after epoch."""
    feed = Feed(batches)
    try:
        for epoch in count():
            empty = True
            for batch in feed.epoch(epoch, 0):
                empty = False
                yield batch
            if empty:
                raise feed.empty(epoch)
    finally:
        feed.close()


def _check_factory(optimizer: Optimizer) -> None:
    if isinstance(optimizer, GradientTransformation) or not callable(optimizer):
        raise TypeError(
            "optimizer is a function of a learning rate here: write optim.adamw rather than optim.adamw(1e-3), and "
            "partial(optim.sgd, momentum=0.9) for one with arguments."
        )


def _check(optimizer: Optimizer, low: float, high: float, steps: int, smoothing: float, explosion: float) -> None:
    _check_factory(optimizer)
    if not 0 < low < high < math.inf:
        raise ValueError(f"low={low} and high={high}: rates grow from one to the other, so that 0 < low < high.")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 10:
        raise ValueError(f"steps={steps!r}: a sweep takes an int of at least 10.")
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing={smoothing}: it is the decay of a running mean, from 0 to below 1.")
    if not explosion > 0:
        raise ValueError(f"explosion={explosion}: it is how often the loss may exceed its minimum, and positive.")
