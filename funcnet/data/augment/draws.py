"""A key for each image, and the numbers drawn from them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from funcnet import _compat, random
from funcnet.random import threefry

__all__ = ["below", "image_keys", "splits", "uniforms"]


def image_keys(by: str, key: Tensor, count: int) -> Tensor:
    """The keys of the images, `(count, 2)`: `random.split(key, count)`, or the batch of keys that was given."""
    if isinstance(key, Tensor) and key.dtype == torch.int32 and key.ndim == 2 and key.shape[1] == 2:
        if key.shape[0] != count:
            raise ValueError(
                f"{by} got {key.shape[0]} keys for {count} images. Give one key for the batch, or one for each image: "
                f"random.split(key, {count})."
            )
        return key
    random.check_key(key, by)
    return random.split(key, count)


def splits(keys: Tensor, parts: int) -> Tensor:
    """`random.split(key, parts)` of each key, `(parts, N, 2)`."""
    host = _hashed_on_host(keys, parts)
    if host is None:
        return torch.func.vmap(lambda key: random.split(key, parts), out_dims=1)(keys)
    words = np.stack(host, -1).astype(np.uint32).view(np.int32)
    return torch.from_numpy(words).movedim(1, 0)


def uniforms(keys: Tensor, *shape: int) -> Tensor:
    """`random.uniform(key, shape)` of each key, `(N, *shape)` float32 on the keys' device."""
    host = _hashed_on_host(keys, int(np.prod(shape)))
    if host is None:
        return torch.func.vmap(lambda key: random.uniform(key, shape))(keys)
    bits = host[0] ^ host[1]
    return torch.from_numpy((bits >> 9).astype(np.float32) * np.float32(2.0**-23)).reshape(-1, *shape)


def below(unit: Tensor, n: int) -> Tensor:
    """The integers 0 .. n - 1 that uniform numbers fall on, int64."""
    return (unit * n).long().clamp(max=n - 1)


def _hashed_on_host(keys: Tensor, count: int) -> tuple[Any, Any] | None:
    """The two words of the first counters under each key, `(N, count)`, where the host may read the keys.

    In numpy the 120 small operations cost a tenth of what they do as torch's.
    """
    if not _compat.readable(keys):
        return None
    words: Any = keys.numpy().view(np.uint32).astype(np.int64)
    hashed: Any = threefry.hash_ints
    first, second = hashed(words[:, :1], words[:, 1:], 0, np.arange(count))
    return first, second
