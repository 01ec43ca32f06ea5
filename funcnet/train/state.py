"""The state of a training run."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.model import Params, State
from funcnet.optim import GradientTransformation
from funcnet.train.scaler import LossScale

__all__ = ["TrainState"]


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
    scale: LossScale | None = None
    """The factor of the loss, of a step that scales it: `make_step(..., loss_scale=LossScale.create())`."""
    average: Params | None = None
    """The running mean of the parameters, of a step that keeps one: `make_step(..., ema=0.999)`; float32 at least."""
    skipped: Tensor | None = None
    """How many steps were not finite and left out, int32, of a step that looks: with `skip_nonfinite`, or a scale."""

    @property
    def averaged(self) -> Params:
        """The parameters to evaluate: where a running mean is kept that, in the dtypes of the parameters.

        >>> TrainState({"w": torch.ones(1)}, {}, None, None, None, average={"w": torch.zeros(1)}).averaged
        {'w': tensor([0.])}
        """
        if self.average is None:
            return self.params
        found: Params = tree.map(lambda mean, leaf: mean.to(leaf.dtype), self.average, self.params)
        return found

    @classmethod
    def create(cls, params: Params, state: State, optimizer: GradientTransformation, key: Tensor) -> "TrainState":
        """The state before the first step; `make_step(...).init` makes the one that a step with more to keep wants.

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
