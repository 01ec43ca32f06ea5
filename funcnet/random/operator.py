"""Threefry as one operator, which a graph holds as one node.

Written out, the hash is 115 operations whose values are each used twice; a compiler that inlines them unfolds a tree.
As one operator it is traced at once, batched at once, and lowered by Inductor as the body of one loop, in which each
value is computed once.
"""

import math
from typing import Any

import torch
from torch import Tensor

from funcnet import _compat
from funcnet.random import threefry
from funcnet.random.arguments import joint

__all__ = ["hashed", "words"]


@torch.library.custom_op("funcnet::threefry2x32", mutates_args=())
def hashed(k0: Tensor, k1: Tensor, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
    """`threefry.hash_tensors` of int32 tensors that broadcast against one another."""
    a, b = threefry.hash_tensors(k0, k1, x0, x1)
    return a, b


@hashed.register_fake
def _(k0: Tensor, k1: Tensor, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
    _compat.meet_inductor()  # which runs this before it lowers a graph, also under a user's own torch.compile
    shape = joint(k0.shape, k1.shape, x0.shape, x1.shape)
    return x1.new_empty(shape), x1.new_empty(shape)


def _batched(info: Any, dims: tuple[int | None, ...], *words: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    rank = max(w.dim() - (d is not None) for w, d in zip(words, dims, strict=True))
    front = []
    for word, dim in zip(words, dims, strict=True):
        if dim is not None:
            word = word.movedim(dim, 0)
            word = word.reshape(word.shape[0], *(1,) * (rank - word.dim() + 1), *word.shape[1:])
        front.append(word)
    return hashed(*front), (0, 0)


hashed.register_vmap(_batched)


def _loop_body(ops: Any, k0: Any, k1: Any, x0: Any, x1: Any) -> tuple[Any, Any]:
    """The hash in Inductor's operations on the values of one element."""

    def word(value: int) -> Any:
        return ops.constant(value - (1 << 32) if value > 0x7FFFFFFF else value, torch.int32)

    keys = (k0, k1, ops.bitwise_xor(ops.bitwise_xor(k0, k1), word(threefry.PARITY)))
    x0, x1 = ops.add(x0, k0), ops.add(x1, k1)
    for i, (r, inject) in enumerate(threefry.SCHEDULE):
        x0 = ops.add(x0, x1)
        right = ops.bitwise_and(ops.bitwise_right_shift(x1, word(32 - r)), word((1 << r) - 1))
        x1 = ops.bitwise_xor(ops.bitwise_or(ops.bitwise_left_shift(x1, word(r)), right), x0)
        if inject:
            n = i // 4 + 1
            x0 = ops.add(x0, keys[n % 3])
            x1 = ops.add(x1, ops.add(keys[(n + 1) % 3], word(n)))
    return x0, x1


_compat.lower_elementwise("funcnet::threefry2x32", _loop_body)


def words(key: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The two int32 words of each counter of `shape`, in tensor operations."""
    high, low = threefry.counters(math.prod(shape), key.device)
    a, b = hashed(key[0], key[1], high, low)
    return a.reshape(shape), b.reshape(shape)
