"""Keys: where every draw starts.

A key is an int32 tensor of shape `(2,)`, the two words of a Threefry-2x32 key. It is an ordinary tensor: it can be
stacked, saved, moved to a device, and passed through every transform.
"""

import math
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from funcnet import _compat
from funcnet.random import reuse, threefry
from funcnet.random.operator import hashed, words

__all__ = ["as_key", "check_key", "fold_in", "key", "peek", "split", "split_words"]


def _signed(word: int) -> int:
    return word - (1 << 32) if word > 0x7FFFFFFF else word


def key(seed: int | Tensor, *, device: torch.device | str | None = None) -> Tensor:
    """Make a key from a seed.

    Args:
      seed: a Python integer of up to 64 bits, or an integer tensor of shape `()` (so that seeds can be vmapped).
        A seed that 32 bits hold, signed or not, gives `(0, seed)`; a longer one gives its upper and lower words.
        Both equal `jax.random.key`, the second under `jax_enable_x64` (without it jax drops the upper word).
      device: where the key lives, and so where its draws are made. Default the CPU, or the tensor seed's device.

    Returns: int32 of shape `(2,)`.

    Raises: `TypeError` for a seed that is no integer; `ValueError` for one of more than 64 bits.

    >>> key(0), key(2**32 + 5)
    (tensor([0, 0], dtype=torch.int32), tensor([1, 5], dtype=torch.int32))
    """
    if isinstance(seed, Tensor):
        return _key_of_tensor(seed, device)
    try:
        n = operator.index(seed)
    except TypeError:
        raise TypeError(
            f"random.key takes an integer seed, and got {type(seed).__name__}. Write random.key(0)."
        ) from None
    if not -(2**63) <= n < 2**64:
        raise ValueError(f"random.key takes a seed of at most 64 bits, and got {n}. Reduce it, as in seed % 2**63.")
    high = 0 if -(2**31) <= n < 2**32 else (n >> 32) & threefry.WORD
    return torch.tensor([_signed(high), _signed(n & threefry.WORD)], dtype=torch.int32, device=device or "cpu")


def _key_of_tensor(seed: Tensor, device: torch.device | str | None) -> Tensor:
    if seed.dim() or seed.is_floating_point() or seed.is_complex() or seed.dtype == torch.bool:
        raise TypeError(
            f"random.key takes an integer tensor of shape (), and got {seed.dtype} of shape {tuple(seed.shape)}. "
            "For many keys write vmap(random.key)(seeds), or random.split(random.key(0), n)."
        )
    wide = seed.to(device=device, dtype=torch.int64)
    short = (wide >= -(2**31)) & (wide < 2**32)
    return torch.stack((threefry.narrow(torch.where(short, 0, wide >> 32)), threefry.narrow(wide)))


def as_key(key: Tensor, by: str) -> Tensor:
    """Check that `key` is one key, and record that `by` uses it up when reuse is checked."""
    _check(key, by)
    if reuse.watching():
        reuse.consume(key, by)
    return key


def check_key(key: Tensor, by: str = "check_key") -> None:
    """Raise the error that a draw would, unless `key` is one key. It is not used up.

    >>> check_key(key(0))
    """
    _check(key, by)


def peek(key: Tensor, by: str) -> Tensor:
    """Check that `key` is one key, without using it up."""
    _check(key, by)
    return key


def _check(key: Tensor, by: str) -> None:
    if isinstance(key, Tensor) and key.dtype == torch.int32 and key.shape == (2,):
        return
    start = f"random.{by} needs a key as its first argument, an int32 tensor of shape (2,), and got"
    if key is None:
        raise TypeError(f"{start} None. Make one with random.key(0), and pass each draw its own part of random.split.")
    if isinstance(key, torch.Generator):
        raise TypeError(
            f"{start} a torch.Generator, whose state changes with every draw. Write random.key(seed) instead."
        )
    if isinstance(key, int):
        raise TypeError(f"{start} the integer {key}. A seed is no key yet: write random.key({key}).")
    if not isinstance(key, Tensor):
        raise TypeError(f"{start} {type(key).__name__}. Make one with random.key(0).")
    if key.dtype != torch.int32:
        raise TypeError(f"{start} a {key.dtype} tensor of shape {tuple(key.shape)}. Make one with random.key(0).")
    if key.dim() > 1 and key.shape[-1] == 2:
        raise ValueError(
            f"{start} a batch of keys of shape {tuple(key.shape)}. "
            f"Map over it: vmap(lambda k: random.{by}(k, ...))(keys)."
        )
    raise ValueError(f"{start} shape {tuple(key.shape)}. Make one with random.key(0).")


def split(key: Tensor, num: int | Sequence[int] = 2) -> Tensor:
    """Make `num` independent keys from one. The key itself is used up.

    Args:
      key: int32 `(2,)`.
      num: how many, or the shape of the batch of keys.

    Returns: int32 `(num, 2)`, or `(*num, 2)`: the hash of each index under `key`, equal to `jax.random.split`.

    Raises: `TypeError` or `ValueError` for what is no key; `ValueError` for a negative number.

    >>> split(key(0))
    tensor([[ 1797259609, -1715843330],
            [  928981903,  -841280227]], dtype=torch.int32)
    """
    as_key(key, "split")
    shape = (num,) if isinstance(num, int) else tuple(num)
    if any(n < 0 for n in shape):
        raise ValueError(f"random.split got num={num}: a number of keys, or a shape, is not negative.")
    return split_words(key, shape)


def split_words(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`split` of a key that was already checked."""
    host = threefry.host_words(key)
    if host is None:
        return torch.stack(words(key, shape), -1)
    n = math.prod(shape)
    if n <= threefry.FEW:
        flat = [_signed(word) for i in range(n) for word in threefry.hash_ints(*host, 0, i)]
        return torch.tensor(flat, dtype=torch.int32, device="cpu").reshape(*shape, 2)
    pairs = threefry.fill(*host, n, "pair").astype(">u8").view(">u4").astype("u4").view("i4")
    return torch.from_numpy(pairs).reshape(*shape, 2)


def fold_in(key: Tensor, data: int | Tensor) -> Tensor:
    """Make the key of the stream named `data`. The key is not used up: fold many numbers into one key.

    Args:
      key: int32 `(2,)`.
      data: an integer of 32 bits, or an integer tensor of shape `()`: a step, a layer's index, a hash of a name.

    Returns: int32 `(2,)`, the hash of `(0, data)` under `key`, equal to `jax.random.fold_in`.

    Raises: `TypeError` for data that is no integer scalar; `ValueError` for an integer beyond 32 bits.

    >>> fold_in(key(0), 7)
    tensor([-1578141107,   292468403], dtype=torch.int32)
    """
    peek(key, "fold_in")
    if isinstance(data, Tensor):
        if data.dim() or data.is_floating_point() or data.is_complex():
            raise TypeError(
                f"random.fold_in takes an integer or an integer tensor of shape (), and got {data.dtype} of shape "
                f"{tuple(data.shape)}. For a key per element write vmap(random.fold_in, (None, 0))(key, data)."
            )
        if _compat.readable(data) and (host := threefry.host_words(key)) is not None:
            return _folded(host, int(data))  # a step's count in eager mode: host integers are quicker
        word = threefry.narrow(data.to(device=key.device, dtype=torch.int64))
        return torch.stack(hashed(key[0], key[1], torch.zeros_like(word), word))
    if isinstance(data, float) or not hasattr(data, "__index__"):
        raise TypeError(
            f"random.fold_in takes an integer, and got {type(data).__name__}. Write random.fold_in(key, 3)."
        )
    if not -(2**31) <= data < 2**32:
        raise ValueError(
            f"random.fold_in takes an integer of 32 bits, and got {data}. Fold the parts in one after the other."
        )
    host = threefry.host_words(key)
    if host is None:
        number = _signed(operator.index(data) & threefry.WORD)
        word = torch.full((), number, dtype=torch.int32, device=key.device)
        return torch.stack(hashed(key[0], key[1], torch.zeros_like(word), word))
    return _folded(host, operator.index(data))


def _folded(host: tuple[int, int], number: int) -> Tensor:
    """`fold_in` of host integers."""
    signed = [_signed(w) for w in threefry.hash_ints(*host, 0, number & threefry.WORD)]
    return torch.tensor(signed, dtype=torch.int32, device="cpu")
