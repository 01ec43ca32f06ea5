"""What a workload is, and the losses and batches that several share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from funcnet import random

__all__ = ["Workload", "bce_with_logits", "classified", "cross_entropy", "pick"]


@dataclass(frozen=True)
class Workload:
    """A model, its data and its loss: what every way of `funcnet bench` trains.

    >>> from funcnet import random
    >>> from funcnet.bench.workloads import WORKLOADS
    >>> mlp = WORKLOADS["mlp"]("cpu")
    >>> inputs, target = mlp.batch(random.key(0))
    >>> mlp.size, mlp.unit, inputs[0].shape, target.shape
    (64, 'image', torch.Size([64, 784]), torch.Size([64]))
    """

    name: str
    module: Callable[[], nn.Module]
    """The torch module's constructor; nothing in it is random once it is built."""
    batch: Callable[[Tensor], tuple[tuple[Tensor, ...], Tensor]]
    """From a key to the inputs of forward and the target, on the CPU; the same key gives the same batch."""
    loss: Callable[[Tensor, Tensor], Tensor]
    """From forward's output and the target to a mean, in float32 at least."""
    size: int
    """How many units are in a batch."""
    unit: str
    """What is counted: "image", "token", "example" or "sequence"."""
    jax: str | None = None
    """Where the same network in jax is, as "package.module:function"; `in_jax.load` finds it."""
    jax_loss: str = "cross_entropy"
    """The same loss in jax: a function of `in_jax.layers`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The sizes, as they are printed; the function that `jax` names is called with them."""
    rate: float = 1e-4
    """The learning rate; small, so that no loss reaches zero, where denormals slow every way at random."""


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """The mean cross entropy of logits `(..., classes)` and classes `(...)`, in float32 at least."""
    return F.cross_entropy(_widened(output).flatten(0, -2), target.flatten())


def bce_with_logits(output: Tensor, target: Tensor) -> Tensor:
    """The mean binary cross entropy of logits and probabilities of one shape, in float32 at least."""
    return F.binary_cross_entropy_with_logits(_widened(output), target.to(_widened(output).dtype))


def classified(key: Tensor, *, shape: tuple[int, ...], classes: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """Normal inputs of a shape, and a class for each row of them."""
    one, other = random.split(key)
    return (random.normal(one, shape),), random.randint(other, shape[:1], 0, classes).long()


def pick(machine: str, name: str, sizes: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The sizes of a workload for a machine.

    Raises:
        ValueError: it has none for this machine.
    """
    if machine not in sizes:
        raise ValueError(f"the workload {name} has sizes for {', '.join(sizes)}, and none for {machine!r}.")
    return sizes[machine]


def _widened(output: Tensor) -> Tensor:
    return output.to(torch.promote_types(output.dtype, torch.float32))
