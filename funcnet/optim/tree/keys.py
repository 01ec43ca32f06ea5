"""Trees of keys, and of drawn numbers."""

from collections.abc import Callable

import torch
from torch import Tensor

from ... import random
from ...tree import PyTree, leaves, map, structure, unflatten

__all__ = ["random_like", "split_key_like", "unwrap_random_key_data"]


def split_key_like(rng_key: Tensor, target_tree: PyTree) -> PyTree:
    """A key for every leaf of a tree, in the order of the leaves (jax sorts the keys of dicts).

    >>> from funcnet.random import key
    >>> split_key_like(key(0), {"w": torch.ones(3)})
    {'w': tensor([ 1797259609, -1715843330], dtype=torch.int32)}
    """
    keys = random.split(rng_key, len(leaves(target_tree)))
    return unflatten(structure(target_tree), keys.unbind(-2))


def random_like(
    rng_key: Tensor,
    target_tree: PyTree,
    sampler: Callable[[Tensor, torch.Size, torch.dtype], Tensor] = random.normal,
    dtype: torch.dtype | None = None,
) -> PyTree:
    """Drawn numbers in the shapes, devices and dtypes of a tree (or the given dtype).

    `sampler(key, shape, dtype)` is a function of `funcnet.random`, or one like them.

    >>> from funcnet.random import key
    >>> random_like(key(0), {"w": torch.zeros(2)})
    {'w': tensor([ 1.0040, -0.9063])}
    """

    def leaf(like: Tensor, key: Tensor) -> Tensor:
        return sampler(key, like.shape, dtype or like.dtype).to(like.device)

    target_tree = map(torch.as_tensor, target_tree)
    return map(leaf, target_tree, split_key_like(rng_key, target_tree))


def unwrap_random_key_data(input_tree: PyTree) -> PyTree:
    """The tree as it is: a key of `funcnet.random` is its own data, where one of jax is unwrapped to compare it.

    >>> from funcnet.random import key
    >>> unwrap_random_key_data({"rng_key": key(7)})
    {'rng_key': tensor([0, 7], dtype=torch.int32)}
    """
    return input_tree
