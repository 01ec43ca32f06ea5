"""Gaussian noise on the gradients."""

import math
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import random
from ..tree import PyTree, flatten, unflatten
from .arguments import check_floating, nonnegative, stateful
from .base import GradientTransformation, chain
from .leafwise import wide
from .scaling import scale_by_learning_rate
from .values import Scalar, ScalarOrSchedule, device_of, increment, precise, scalar, zero_count

__all__ = ["AddNoiseState", "add_noise", "noisy_sgd"]


class AddNoiseState(NamedTuple):
    """How many updates were made, and the key of the noise to come."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""
    rng_key: Tensor
    """int32, of shape (2,)"""


def add_noise(
    eta: Scalar, gamma: Scalar, key: Tensor | int | None = None, *, seed: int | None = None
) -> GradientTransformation:
    r"""Add normal noise that fades, $u_t = g_t + \sqrt{\eta / t^\gamma}\, \epsilon_t$ (arXiv:1511.06807).

    `key` is a key of `funcnet.random` or an integer seed, and the noise Optax's: a key a leaf, in the order of the
    leaves (jax sorts the keys of dicts). As in Optax, `seed` is an older name of it, and without either it is 0, with
    a warning. The key in the state belongs to one run: where many are mapped over, give each its own.

    >>> rule = add_noise(eta=0.01, gamma=0.55, key=0)
    >>> params = {"w": torch.zeros(2)}
    >>> rule.update({"w": torch.ones(2)}, rule.init(params), params)[0]
    {'w': tensor([1.0199, 0.9230])}
    """
    nonnegative(eta, "eta"), scalar(gamma, "gamma")
    if seed is not None:
        if key is not None:
            raise ValueError("add_noise got both key and seed, which is the older name of key: give the key alone.")
        warnings.warn("The seed of add_noise is now called key: write key=seed.", DeprecationWarning, stacklevel=2)
        key = seed
    if key is None:
        warnings.warn("add_noise got no key, and draws the noise of key=0: give it one.", stacklevel=2)
        key = 0
    given = key

    def init(params: PyTree) -> AddNoiseState:
        device = device_of(params)
        own = given.to(device, copy=True) if isinstance(given, Tensor) and given.ndim else random.key(given)
        return AddNoiseState(count=zero_count(params), rng_key=own.to(device))

    def update(
        updates: PyTree, state: AddNoiseState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, AddNoiseState]:
        count = increment(state.count)
        deviation = torch.sqrt(eta / count.to(precise(updates)) ** gamma)
        rng_key, drawing = random.split(state.rng_key).unbind(-2)
        values, treedef = flatten(updates)
        check_floating(values, updates, "updates")
        keys = random.split(drawing, len(values)).unbind(-2)
        noisy = [(g + deviation * _noise(own, g).to(g.device)).to(g.dtype) for own, g in zip(keys, values, strict=True)]
        return unflatten(treedef, noisy), AddNoiseState(count=count, rng_key=rng_key)

    return stateful(AddNoiseState, init, update)


def _noise(key: Tensor, like: Tensor) -> Tensor:
    """Normal numbers of a leaf's shape; complex ones have unit variance, as in jax."""
    dtype = wide(like.dtype)
    if not like.is_complex():
        return random.normal(key, like.shape, dtype)
    real, imag = (random.normal(half, like.shape, dtype.to_real()) for half in random.split(key).unbind(-2))
    return torch.complex(real, imag) * math.sqrt(0.5)


def noisy_sgd(
    learning_rate: ScalarOrSchedule,
    eta: Scalar = 0.01,
    gamma: Scalar = 0.55,
    key: Tensor | int | None = None,
    *,
    seed: int | None = None,
) -> GradientTransformation:
    r"""Gradient descent with noise: $u = -\eta$ times `add_noise`, which tells its arguments (arXiv:1511.06807).

    >>> optimizer = noisy_sgd(0.1, key=0)
    >>> params = {"w": torch.zeros(2)}
    >>> optimizer.update({"w": torch.ones(2)}, optimizer.init(params), params)[0]
    {'w': tensor([-0.1020, -0.0923])}
    """
    return chain(add_noise(eta, gamma, key, seed=seed), scale_by_learning_rate(learning_rate))
