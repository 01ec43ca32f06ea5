"""What every way of a workload starts from: the same weights and the same batch."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.bench.workloads import Workload
from funcnet.model import Model, Params, State

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """A workload on a device."""

    workload: Workload
    device: torch.device
    autocast: torch.dtype | None = None

    @cached_property
    def model(self) -> Model:
        """The pure model."""
        return Model(self.workload.module)

    @cached_property
    def _tensors(self) -> tuple[Params, State]:
        # A little off their initial values: where a head starts at zero, as torchvision's transformer has it, no output
        # depends on anything below it, and ways would agree whatever they compute.
        one, other = random.split(random.key(0))
        params, state = self.model.init(one)
        keys = random.split(other, len(params))
        moved = {
            name: value + 0.02 * random.normal(key, tuple(value.shape))
            for key, (name, value) in zip(keys, params.items(), strict=True)
        }
        return tree.map(self._placed, moved), tree.map(self._placed, state)

    @cached_property
    def batch(self) -> tuple[tuple[Tensor, ...], Tensor]:
        """The inputs and the target."""
        batch: tuple[tuple[Tensor, ...], Tensor] = tree.map(self._placed, self.workload.batch(random.key(1)))
        return batch

    def start(self) -> tuple[Params, State]:
        """Copies of the weights that every way starts from."""
        params, state = self._tensors
        return tree.map(torch.clone, params), tree.map(torch.clone, state)

    def casts(self) -> AbstractContextManager[Any]:
        """The context that a forward pass runs in."""
        return torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None)

    def loss(self, run: Callable[..., Any], inputs: tuple[Tensor, ...], target: Tensor) -> Tensor:
        """The loss of a module's call, with whatever it returns in float32."""
        with self.casts():
            return self.workload.loss(run(*inputs), target)

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device)
