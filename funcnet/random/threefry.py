"""Threefry-2x32 with twenty rounds, in three forms that give the same words.

The function takes a key of two 32-bit words and a counter of two 32-bit words, and gives two words back: four rounds
of add, rotate and exclusive-or between each of six injections of the key (Salmon, Moraes, Dror and Shaw, "Parallel
random numbers: as easy as 1, 2, 3", SC 2011).

- `hash_tensors`: int32 tensor operations. The reference; it can be traced, batched and compiled, on any device.
- `hash_ints`: Python integers, for one key and a handful of counters, where a tensor operation costs more.
- `fill`: numpy in chunks that stay in the cache, for eager draws on the CPU.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from funcnet import _compat
from funcnet.random import native

__all__ = ["WORD", "counters", "fill", "hash_ints", "hash_tensors", "host_words", "narrow"]

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA
WORD = 0xFFFFFFFF
# Twenty shifts in order, each with whether the key is injected after it.
SCHEDULE = tuple((ROTATIONS[i % 8], i % 4 == 3) for i in range(20))
# Up to this many keys are split in Python integers (4 microseconds each) rather than in numpy (40 at least).
FEW = 8
# Elements in a chunk: three arrays of them fit a second-level cache, and numpy's cost of a call is spread thin.
CHUNK = 32768


def hash_tensors(k0: Tensor, k1: Tensor, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
    """The hash of int32 tensors that broadcast against one another. int32 wraps as the 32-bit words do."""
    keys = (k0, k1, k0 ^ k1 ^ PARITY)
    x0, x1 = x0 + k0, x1 + k1
    for i, (r, inject) in enumerate(SCHEDULE):
        x0 = x0 + x1
        # The mask clears the copies of the sign bit that an arithmetic shift leaves: a logical shift.
        x1 = ((x1 << r) | ((x1 >> (32 - r)) & ((1 << r) - 1))) ^ x0
        if inject:
            n = i // 4 + 1
            x0, x1 = x0 + keys[n % 3], x1 + (keys[(n + 1) % 3] + n)
    return x0, x1


def hash_ints(k0: int, k1: int, x0: int, x1: int) -> tuple[int, int]:
    """The hash of unsigned 32-bit words held in Python integers."""
    keys = (k0, k1, k0 ^ k1 ^ PARITY)
    x0, x1 = (x0 + k0) & WORD, (x1 + k1) & WORD
    for i, (r, inject) in enumerate(SCHEDULE):
        x0 = (x0 + x1) & WORD
        x1 = ((x1 << r) & WORD | x1 >> (32 - r)) ^ x0
        if inject:
            n = i // 4 + 1
            x0, x1 = (x0 + keys[n % 3]) & WORD, (x1 + keys[(n + 1) % 3] + n) & WORD
    return x0, x1


Words = np.ndarray[tuple[int], np.dtype[np.uint32]]


def _scalar(value: int) -> np.ndarray[tuple[()], np.dtype[np.uint32]]:
    # A 0-d array costs numpy 0.2 microseconds less per call than a numpy scalar.
    return np.array(value & WORD, dtype=np.uint32)


_SHIFTS = tuple((_scalar(r), _scalar(32 - r), inject) for r, inject in SCHEDULE)
_NINE, _ONE_BITS, _ONE = _scalar(9), _scalar(0x3F800000), np.array(1.0, dtype=np.float32)


def _chunk(keys: tuple[int, int, int], low: Words, x0: Words, x1: Words, spare: Words, high: int) -> None:
    """Hash the counters `(high, low)`; `x0` and `x1` receive the words, and `x1` may be `low`."""
    np.add(low, _scalar(keys[1]), x1)
    x0.fill((high + keys[0]) & WORD)
    for i, (left, right, inject) in enumerate(_SHIFTS):
        np.add(x0, x1, x0)
        np.left_shift(x1, left, spare)
        np.right_shift(x1, right, x1)
        np.bitwise_or(x1, spare, x1)
        np.bitwise_xor(x1, x0, x1)
        if inject:
            n = i // 4 + 1
            np.add(x0, _scalar(keys[n % 3]), x0)
            np.add(x1, _scalar(keys[(n + 1) % 3] + n), x1)


def fill(k0: int, k1: int, n: int, kind: str, start: int = 0) -> Any:
    """Draw for the counters `start .. start + n - 1` on the host.

    `kind` is "bits" (uint32, the exclusive-or of the two words), "pair" (uint64, the first word in the high half)
    or "unit" (float32 in [0, 1), the upper 23 of the bits).
    """
    if kind != "pair" and (compiled := native.kernel(kind, n)) and start + n < 1 << 31:
        return _fill_compiled(compiled, k0, k1, n, kind, start)
    return _fill_numpy(k0, k1, n, kind, start)


def _fill_compiled(compiled: Callable[..., Any], k0: int, k1: int, n: int, kind: str, start: int) -> Any:
    out = torch.empty(n, dtype=torch.int32 if kind == "bits" else torch.float32, device="cpu")
    key = torch.from_numpy(np.array([k0, k1], dtype=np.uint32).view(np.int32))
    whole = n - n % native.CHUNK
    for i in range(0, whole, native.CHUNK):
        compiled(key, torch.tensor(start + i, dtype=torch.int32, device="cpu"), out[i : i + native.CHUNK])
    rest: Any = out.numpy()[whole:]
    rest[:] = _fill_numpy(k0, k1, n - whole, kind, start + whole).view(rest.dtype)
    return out.numpy() if kind == "unit" else out.numpy().view(np.uint32)


def _fill_numpy(k0: int, k1: int, n: int, kind: str, start: int) -> Any:
    keys = (k0, k1, k0 ^ k1 ^ PARITY)
    out: Any = np.empty(n, dtype=np.uint64 if kind == "pair" else np.uint32)
    size = min(n, CHUNK)
    x0, spare, low = (np.empty(size, dtype=np.uint32) for _ in range(3))
    wide = np.empty(size if kind == "pair" else 0, dtype=np.uint32)
    iota = np.arange(size, dtype=np.uint32)
    for i in range(0, n, CHUNK):
        m = min(CHUNK, n - i)
        a, t, part = x0[:m], spare[:m], out[i : i + m]
        b = wide[:m] if kind == "pair" else part
        counter = low[:m]
        np.add(iota[:m], _scalar(start + i), counter)
        _chunk(keys, counter, a, b, t, (start + i) >> 32)
        if kind == "pair":
            np.left_shift(a.astype(np.uint64), np.uint64(32), part)
            np.bitwise_or(part, b, part)
            continue
        np.bitwise_xor(a, b, b)
        if kind == "unit":
            # The bits of a float in [1, 2), less one: exact, and cheaper than a conversion.
            np.right_shift(b, _NINE, b)
            np.bitwise_or(b, _ONE_BITS, b)
            real = b.view(np.float32)
            np.subtract(real, _ONE, real)
    return out.view(np.float32) if kind == "unit" else out


def counters(n: int, device: torch.device, start: int = 0) -> tuple[Tensor, Tensor]:
    """The high and low words of the counters `start .. start + n - 1`, int32."""
    if start + n <= 2**31:
        low = torch.arange(start, start + n, dtype=torch.int32, device=device)
        return torch.zeros((), dtype=torch.int32, device=device), low
    count = torch.arange(start, start + n, dtype=torch.int64, device=device)
    return narrow(count >> 32), narrow(count)


def narrow(x: Tensor) -> Tensor:
    """The low word of an int64 tensor as int32, without relying on how a cast treats overflow."""
    low = x & WORD
    return torch.where(low > 0x7FFFFFFF, low - (1 << 32), low).to(torch.int32)


def host_words(key: Tensor) -> tuple[int, int] | None:
    """The key's words as unsigned integers where the host may read them, else None."""
    if not _compat.readable(key):
        return None
    k0, k1 = key.tolist()
    return k0 & WORD, k1 & WORD
