"""The pure training step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from funcnet import optim, random, tree
from funcnet.model import Params, State
from funcnet.optim import GradientTransformation, Scalar, advance
from funcnet.optim.giving import apart
from funcnet.optim.leafwise import wide
from funcnet.optim.wrappers.choice import choose, decided
from funcnet.optim.wrappers.conditions import all_finite
from funcnet.train import statistics
from funcnet.train.accumulation import Gradient, accumulated
from funcnet.train.precision import Precision
from funcnet.train.scaler import LossScale
from funcnet.train.state import TrainState
from funcnet.transforms import value_and_grad

__all__ = ["Loss", "Metrics", "Step", "StepFunction", "make_step"]

Metrics = dict[str, Tensor]
Loss = Callable[[Params, State, Any, Tensor], tuple[Tensor, tuple[State, Metrics]]]
StepFunction = Callable[[TrainState, Any], tuple[TrainState, Metrics]]


@dataclass(frozen=True)
class Step:
    """A pure `(ts, batch) -> (ts, metrics)`, which `make_step` makes."""

    loss: Loss | None
    """What the optimizer may ask again, at other parameters; None where a batch is worked on in parts."""
    gradient: Gradient
    optimizer: GradientTransformation
    donate: bool
    clip: Callable[[Any], Any] | None
    ema: Scalar | None
    skip_nonfinite: bool
    loss_scale: LossScale | None
    precision: Precision | None
    metrics: Sequence[str]
    before: bool
    """Whether the old parameters are looked at after the update."""

    def init(self, params: Params, state: State, key: Tensor) -> TrainState:
        """The state before the first step, with what this step keeps besides.

        >>> step = make_step(lambda params, *_: (params["w"].sum(), ({}, {})), optim.sgd(0.5), ema=0.5)
        >>> step.init({"w": torch.ones(1)}, {}, random.key(0)).average
        {'w': tensor([1.])}
        """
        params = params if self.precision is None else self.precision.cast_params(params)
        ts = TrainState.create(params, state, self.optimizer, key)
        return ts._replace(
            scale=None
            if self.loss_scale is None
            else LossScale(*(t.to(ts.step.device, copy=True) for t in self.loss_scale)),
            # Wide, since a mean in half precision does not move by its small shares.
            average=None if self.ema is None else tree.map(lambda leaf: leaf.to(wide(leaf.dtype), copy=True), params),
            skipped=torch.zeros_like(ts.step) if self.skip_nonfinite else None,
        )

    def __call__(self, ts: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        """The next state, and the metrics of this step."""
        self._check(ts)
        key = random.fold_in(ts.key, ts.step)
        skipped, average, scale = ts.skipped, ts.average, ts.scale
        (value, (state, metrics)), grads = self.gradient(ts.params, ts.state, batch, key, scale)
        if self.donate:  # what the loss hands out may be a parameter, or a view of one
            value, state, metrics = apart((value, state, metrics), ts.params)
        told = statistics.measured(self.metrics, statistics.Change(grads, ts.params))
        before = tree.map(torch.clone, ts.params) if self.before and self.donate else ts.params
        finite = None if skipped is None else all_finite([value, grads], value)
        donate = self.donate and (finite is None or decided(finite))  # else the old ones are wanted beside the new

        def moved() -> tuple[Params, Any, State]:
            clipped = grads if self.clip is None else self.clip(grads)
            extra = {"value": value, "grad": clipped} | self._again(ts, batch, key)
            return (*advance(self.optimizer, clipped, ts.opt_state, ts.params, donate=donate, **extra), state)

        if finite is None or skipped is None:  # both or neither
            params, opt_state, state = moved()
        else:
            params, opt_state, state = choose(finite, moved, lambda: (ts.params, ts.opt_state, ts.state))
            skipped = skipped + ~finite
            scale = None if scale is None else scale.adjust(finite)
        if self.ema is not None:
            share = 1 - self.ema
            average = tree.map(lambda old, new: old + share * (new - old), average, params)
        told |= statistics.measured(self.metrics, statistics.Change(grads, before, params))
        if both := metrics.keys() & {"loss", *told}:
            raise ValueError(f"the loss returned a metric {min(both)!r}, which the step tells itself: rename it.")
        after = TrainState(params, state, opt_state, ts.key, ts.step + 1, scale, average, skipped)
        return after, {"loss": value, **metrics, **told}

    def _again(self, ts: TrainState, batch: Any, key: Tensor) -> dict[str, Any]:
        """For line searches and rules that step twice: the loss and its gradient, as functions of the parameters."""
        if self.loss is None:
            return {}
        loss = self.loss

        def value(params: Params, **_: Any) -> Tensor:  # line searches hand on what the others are given
            return loss(params, ts.state, batch, key)[0]

        def gradient(params: Params, _: Any) -> Params:
            grads: Params = self.gradient(params, ts.state, batch, key, ts.scale)[1]
            return grads

        return {"value_fn": value, "obj_fn": value, "grad_fn": gradient}

    def _check(self, ts: TrainState) -> None:
        asked = {"scale": self.loss_scale is not None, "average": self.ema is not None, "skipped": self.skip_nonfinite}
        for name, kept in asked.items():
            if kept != (getattr(ts, name) is not None):
                has = "has none" if kept else "has one that this step would not keep up"
                raise ValueError(
                    f"this step keeps {'a' if kept else 'no'} ts.{name}, and the state {has}: start with "
                    f"ts = step.init(params, state, key), of this step."
                )


def make_step(
    loss: Loss,
    optimizer: GradientTransformation,
    *,
    donate: bool = False,
    accumulate: int = 1,
    clip: Scalar | None = None,
    ema: Scalar | None = None,
    skip_nonfinite: bool = False,
    loss_scale: LossScale | None = None,
    precision: Precision | str | None = None,
    metrics: Sequence[str] = (),
) -> Step:
    r"""The pure training step `(ts, batch) -> (ts, metrics)` of a loss and an optimizer.

    `metrics` of the step are what the loss returned, `"loss"` itself, and the statistics asked for. Compile it whole
    with `jit(step, donate=0)`. Frozen parameters lie in the state: `params, frozen = tree.split(params, "head.*")` and
    `step.init(params, state | frozen, key)`; groups with rules of their own are `optim.partition`'s.

    Args:
        loss: `loss(params, state, batch, key) -> (loss, (state, metrics))`, where loss is a 0-dim tensor and metrics
            a dict of tensors. `key` is another one each step. For several terms see `weighted`.
        optimizer: a transformation of gradients into updates. It is given the value, the gradient and, for line
            searches and the like, the loss as functions of the parameters (`value_fn`, `obj_fn`, `grad_fn`).
        donate: let eager steps write new parameters and optimizer state over the old, which cannot be read afterwards:
            see `optim.advance`.
        accumulate: into how many parts a batch is cut, whose gradients are averaged: the memory of one part, and of a
            loss that is a mean over rows the same step.
        clip: the length to which gradients are shortened, all leaves taken as one vector.
        ema: the decay $d$ of a running mean of the parameters, $\bar\theta \leftarrow d \bar\theta + (1 - d) \theta$,
            which starts at the first: `ts.average`, in at
            least float32. `ts.averaged` has it in the dtypes of the parameters.
        skip_nonfinite: leave parameters, optimizer and model state as they were where the loss or a gradient is not
            finite, and count: `ts.skipped`.
        loss_scale: the first factor of the loss, for float16: `LossScale.create()`. It grows and shrinks in `ts.scale`
            as the gradients bear, and steps that overflow are skipped.
        precision: a policy of dtypes, or its name: see `Precision`; by default everything stays as it is. "tf32" is
            a flag of the process, which `Precision.around` sets around a whole step.
        metrics: names of statistics: grad_norm, param_norm, update_norm, update_ratio (update to weight), nonfinite
            (how many numbers of the gradient are not), over all leaves; and grad_norms, update_ratios, nonfinites, of
            each leaf. Gradients are looked at before they are clipped.

    Raises:
        ValueError: an unknown statistic, or fewer parts than one.

    >>> from funcnet import optim
    >>> def loss(params, state, batch, key):
    ...     return ((params["w"] - batch) ** 2).sum(), (state, {})
    >>> step = make_step(loss, optim.sgd(0.25), metrics=["grad_norm"])
    >>> ts = step.init({"w": torch.tensor([1.0])}, {}, random.key(0))
    >>> ts, metrics = step(ts, torch.tensor([3.0]))
    >>> ts.params["w"], metrics
    (tensor([2.]), {'loss': tensor(4.), 'grad_norm': tensor(4.)})
    """
    if isinstance(accumulate, bool) or not isinstance(accumulate, int) or accumulate < 1:
        raise ValueError(f"accumulate is {accumulate!r}; it counts the parts of a batch: an int of at least 1.")
    before = statistics.check(metrics)
    policy = Precision.named(precision) if isinstance(precision, str) else precision
    if policy is not None:
        loss = policy.apply(loss)
    both = value_and_grad(loss if loss_scale is None else _scaled(loss), has_aux=True)

    def gradient(params: Any, state: Any, batch: Any, key: Tensor, scale: LossScale | None) -> Any:
        if scale is None:
            (value, aux), grads = both(params, state, batch, key)
        else:
            (_, (value, aux)), grads = both(params, state, batch, key, scale)
            grads = scale.unscale(grads)
        return (value, _new_state_and_metrics(aux)), grads

    clipping = None if clip is None else optim.clip_by_global_norm(clip)
    return Step(
        loss if accumulate == 1 else None,
        accumulated(gradient, accumulate),
        optim.with_extra_args_support(optimizer),
        donate,
        None if clipping is None else lambda grads: clipping.update(grads, optim.EmptyState())[0],
        ema,
        skip_nonfinite or loss_scale is not None,
        loss_scale,
        policy,
        tuple(metrics),
        before,
    )


def _scaled(loss: Loss) -> Callable[..., Any]:
    def scaled(params: Any, state: Any, batch: Any, key: Tensor, scale: LossScale) -> Any:
        value, aux = loss(params, state, batch, key)
        return scale.multiply(value), (value, aux)

    return scaled


def _new_state_and_metrics(aux: Any) -> tuple[State, Metrics]:
    match aux:
        case (state, dict() as metrics):
            return state, metrics
    raise TypeError(
        "a loss for make_step returns (loss, (state, metrics)): the scalar, the model's new state as apply returned "
        f"it, and a dict of metrics, {{}} if there are none. The second was a {type(aux).__name__}."
    )
