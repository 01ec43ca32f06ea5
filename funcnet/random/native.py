"""`fill` compiled, for programs that draw so much in eager mode that compiling pays.

The same integer operations as the reference, and an exact conversion: the same bits, so nobody can tell by a result
which form served. It is built once, when plain eager draws have summed up to `PAYS`, and only where it can be.
"""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcnet import _compat

__all__ = ["CHUNK", "kernel"]

CHUNK = 1 << 16
# numpy takes about a second for so many, and Inductor not much more to load a kernel from its cache.
PAYS = 1 << 26


class _State:
    drawn = 0
    kernels: dict[str, Callable[[Tensor, Tensor, Tensor], Any]] | None = None
    building = threading.Lock()


def kernel(kind: str, n: int) -> Callable[[Tensor, Tensor, Tensor], Any] | None:
    """The function of (words, start, out) that fills `out`, CHUNK elements, or None where numpy serves.

    `words` are the key's two, `start` the first counter, both int32; `out` is int32 for "bits", float32 for "unit".
    """
    if n < CHUNK or not _compat.plain():
        return None
    if _State.kernels is None:
        _State.drawn += n
        if _State.drawn < PAYS or not _State.building.acquire(blocking=False):
            return None
        _State.kernels = _build()
    return _State.kernels.get(kind)


def _build() -> dict[str, Callable[[Tensor, Tensor, Tensor], Any]]:
    from funcnet.random.operator import hashed

    def fill(words: Tensor, start: Tensor, out: Tensor) -> list[Tensor]:
        low = start + torch.arange(CHUNK, dtype=torch.int32, device="cpu")
        a, b = hashed(words[0], words[1], torch.zeros_like(start), low)
        bits = a ^ b
        out.copy_(bits if out.dtype == torch.int32 else ((bits >> 9) & 0x7FFFFF).to(torch.float32) * 2.0**-23)
        return []

    words, start = (torch.zeros(shape, dtype=torch.int32, device="cpu") for shape in (2, ()))
    kernels = {}
    try:
        # No function mode that surrounds the draw may see the compiler's own calls.
        with _compat.no_function_modes(), torch.no_grad():
            for kind, dtype in (("bits", torch.int32), ("unit", torch.float32)):
                examples = [words, start, torch.empty(CHUNK, dtype=dtype, device="cpu")]
                graph = _compat.trace(fill, examples)
                kernels[kind] = _compat.compile_graph(graph, examples, "inductor", None, ())
                kernels[kind](*examples)
    except Exception:  # whatever keeps Inductor from working here, numpy draws the same numbers
        return {}
    return kernels
