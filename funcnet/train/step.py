"""The state of a training run and the pure step over it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.model import Params, State
from funcnet.optim import GradientTransformation, advance
from funcnet.transforms import value_and_grad

__all__ = ["Loss", "Step", "TrainState", "make_step"]

Loss = Callable[[Params, State, Any, Tensor], tuple[Tensor, tuple[State, dict[str, Tensor]]]]


class TrainState(NamedTuple):
    """Everything that a training step changes, and all that a checkpoint needs.

    `key` stays the same over a run: each step draws from `fold_in(key, step)`, so that a resumed run goes on as the
    uninterrupted one.
    """

    params: Params
    state: State
    opt_state: Any
    key: Tensor
    step: Tensor
    """The number of steps done, an int32 0-dim tensor."""

    @classmethod
    def create(cls, params: Params, state: State, optimizer: GradientTransformation, key: Tensor) -> "TrainState":
        """The state before the first step.

        Args:
            params: trainable tensors, as from `Model.init`.
            state: the model's other tensors.
            optimizer: the transformation whose state is made for `params`.
            key: the key of the run's randomness: dropout, noise, augmentation.

        >>> from funcnet import optim
        >>> ts = TrainState.create({"w": torch.ones(2)}, {}, optim.sgd(0.1), random.key(0))
        >>> ts.step
        tensor(0, dtype=torch.int32)
        """
        random.check_key(key)
        # Beside the parameters, since a CUDA graph takes no tensor from elsewhere; and a copy of the key, since a
        # donating step consumes it and the caller may have more to draw.
        device = next((leaf.device for leaf in tree.leaves(params)), key.device)
        step = torch.zeros((), dtype=torch.int32, device=device)
        return cls(params, state, optimizer.init(params), key.to(device, copy=True), step)


Step = Callable[[TrainState, Any], tuple[TrainState, dict[str, Tensor]]]


def make_step(loss: Loss, optimizer: GradientTransformation, *, donate: bool = False) -> Step:
    """The pure training step `(ts, batch) -> (ts, metrics)` of a loss and an optimizer.

    `metrics` is what the loss returned and `"loss"` itself. Compile it with `jit(step, donate=0)`.

    Args:
        loss: `loss(params, state, batch, key) -> (loss, (state, metrics))`, where loss is a 0-dim tensor and metrics
            a dict of tensors. `key` is another one each step.
        optimizer: a transformation of gradients into updates.
        donate: let eager steps write new parameters and optimizer state over the old, which cannot be read afterwards:
            see `optim.advance`.

    >>> from funcnet import optim
    >>> def loss(params, state, batch, key):
    ...     return ((params["w"] - batch) ** 2).sum(), (state, {})
    >>> step = make_step(loss, optim.sgd(0.25))
    >>> ts = TrainState.create({"w": torch.tensor([1.0])}, {}, optim.sgd(0.25), random.key(0))
    >>> ts, metrics = step(ts, torch.tensor([3.0]))
    >>> ts.params["w"], metrics["loss"]
    (tensor([2.]), tensor(4.))
    """
    gradient = value_and_grad(loss, has_aux=True)

    def step(ts: TrainState, batch: Any) -> tuple[TrainState, dict[str, Tensor]]:
        key = random.fold_in(ts.key, ts.step)
        (value, aux), grads = gradient(ts.params, ts.state, batch, key)
        state, metrics = _new_state_and_metrics(aux)
        params, opt_state = advance(optimizer, grads, ts.opt_state, ts.params, donate=donate)
        return TrainState(params, state, opt_state, ts.key, ts.step + 1), {"loss": value, **metrics}

    return step


def _new_state_and_metrics(aux: Any) -> tuple[State, dict[str, Tensor]]:
    match aux:
        case (state, dict() as metrics):
            return state, metrics
    raise TypeError(
        "a loss for make_step returns (loss, (state, metrics)): the scalar, the model's new state as apply returned "
        f"it, and a dict of metrics, {{}} if there are none. The second was a {type(aux).__name__}."
    )
