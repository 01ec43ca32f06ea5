"""Discrete draws by comparison, remainder and sorting; these equal jax's to the bit."""

import math

import torch
from torch import Tensor

from funcnet.random.arguments import Real, Shape, broadcast, integral, parameters, sized
from funcnet.random.continuous import draw_gumbel
from funcnet.random.keys import as_key, split_words
from funcnet.random.threefry import WORD
from funcnet.random.uniform import draw_bits, draw_unit

__all__ = ["bernoulli", "categorical", "draw_integers", "draw_signs", "geometric", "rademacher", "randint"]


def draw_signs(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Fair signs, -1 and 1."""
    heads = draw_unit(key, shape, torch.float32) < 0.5
    signs: Tensor = heads.to(dtype).mul(2).sub(1)
    return signs


def bernoulli(key: Tensor, p: Real = 0.5, shape: Shape | None = None, mode: str = "low") -> Tensor:
    """Draw truth values that are true with probability `p`.

    `u < p` with `u` uniform, in `p`'s own dtype (float32 for a Python number).

    Args:
      key: int32 `(2,)`.
      p: the probability of True; broadcasts to `shape`.
      shape: the shape of the result; None takes `p`'s.
      mode: "low" compares with one uniform number, so float32 resolves 2**-23; "high" with two, for a tiny `p`.

    Returns: bool, `shape`.

    Raises: `TypeError` for an integer tensor `p`; `ValueError` for another mode or a `p` that does not broadcast.

    >>> from funcnet import random
    >>> bernoulli(random.key(0), 0.5, (4,))
    tensor([False, False,  True,  True])
    """
    as_key(key, "bernoulli")
    if mode not in ("low", "high"):
        raise ValueError(f"random.bernoulli got mode={mode!r}. Write mode='low' or mode='high'.")
    dtype = p.dtype if isinstance(p, Tensor) else torch.float32
    if not dtype.is_floating_point:
        raise TypeError(f"random.bernoulli needs a floating probability p, and got {dtype}. Write p.float().")
    (p,) = parameters(key, dtype, p)
    shape = broadcast("bernoulli", shape, p)
    if mode == "low":
        return torch.lt(draw_unit(key, shape, dtype), p)
    first, second = draw_unit(key, (2, *shape), dtype)
    return torch.lt(second * torch.finfo(dtype).eps, p - first)


def rademacher(key: Tensor, shape: Shape = (), dtype: torch.dtype = torch.int32) -> Tensor:
    """Draw fair signs, -1 and 1.

    Args:
      key: int32 `(2,)`.
      shape: the shape of the result.
      dtype: any signed type, floating or integer.

    Returns: `shape`.

    >>> from funcnet import random
    >>> rademacher(random.key(0), (4,))
    tensor([-1, -1,  1,  1], dtype=torch.int32)
    """
    as_key(key, "rademacher")
    return draw_signs(key, sized("rademacher", shape), dtype)


def _remainder(a: Tensor, b: Tensor, width: int) -> Tensor:
    """`a % b` of unsigned numbers: of 32 bits held in int64, or of 64 bits held in int64's own 64."""
    if width == 32:
        return a % b
    lowest = -(2**63)
    small = b > 0
    divisor = torch.where(small, b, 1)
    # Half of the dividend is not negative, so its signed quotient is right; doubled it is at most one short.
    quotient = torch.div((a >> 1) & (2**63 - 1), divisor, rounding_mode="floor") << 1
    rest = a - quotient * divisor
    rest = torch.where((rest ^ lowest) >= (divisor ^ lowest), rest - divisor, rest)
    # A divisor of 2**63 or more goes at most once; zero stands for 2**64, which never does.
    large = torch.where((b != 0) & ((a ^ lowest) >= (b ^ lowest)), a - b, a)
    return torch.where(small, rest, large)


def draw_integers(key: Tensor, shape: tuple[int, ...], low: Tensor, high: Tensor, dtype: torch.dtype) -> Tensor:
    """Integers in [low, high), given int64 bounds; `low` where `high <= low`.

    Two words make one number of twice the width, `(a * 2**w + b) % span`, computed within the width.
    """
    info = torch.iinfo(dtype)
    width = 64 if dtype == torch.int64 else 32
    mask = WORD if width == 32 else -1
    low, high = low.clamp(info.min, info.max), high.clamp(info.min, info.max + 1 if width == 32 else info.max)
    span = torch.where(high > low, high - low, 1)
    if width == 32:
        span = span & mask
        # 2**32 leaves every remainder as it is.
        span = torch.where(span == 0, 2**32, span)
    keys = split_words(key, (2,))
    upper, lower = (draw_bits(k, shape, width).to(torch.int64) & mask for k in keys)
    half = torch.full_like(span, 1 << (width // 2))
    factor = _remainder(half, span, width)
    factor = _remainder((factor * factor) & mask, span, width)
    offset = (_remainder(upper, span, width) * factor + _remainder(lower, span, width)) & mask
    return (low + _remainder(offset, span, width)).to(dtype)


def randint(
    key: Tensor, shape: Shape, minval: int | Tensor, maxval: int | Tensor, dtype: torch.dtype = torch.int32
) -> Tensor:
    """Draw integers in `[minval, maxval)`.

    Args:
      key: int32 `(2,)`.
      shape: the shape of the result.
      minval, maxval: integers, or integer tensors that broadcast to `shape`; clipped to what `dtype` holds. Where
        `maxval <= minval` the result is `minval`.
      dtype: int8, int16, int32, int64 or uint8. jax's default is int32, and so is ours; the bits depend on whether it
        is int64.

    Returns: `shape`. A span that is no power of two is off uniform by at most `span * 2**-32` for int64 and
    `span**2 * 2**-64` otherwise.

    Raises: `TypeError` for another dtype, or bounds that are not integers; `ValueError` for bounds that do not
    broadcast.

    >>> from funcnet import random
    >>> randint(random.key(0), (4,), 0, 10)
    tensor([9, 0, 2, 3], dtype=torch.int32)
    """
    as_key(key, "randint")
    shape = sized("randint", shape)
    integral("randint", dtype)
    for bound in (minval, maxval):
        if (isinstance(bound, Tensor) and (bound.is_floating_point() or bound.is_complex())) or isinstance(
            bound, float
        ):
            raise TypeError(
                f"random.randint takes integer bounds, and got minval={minval!r}, maxval={maxval!r}. "
                "For real numbers write random.uniform(key, shape, minval=..., maxval=...)."
            )
    low, high = parameters(key, torch.int64, minval, maxval)
    broadcast("randint", shape, low, high)
    return draw_integers(key, shape, low, high, dtype)


def categorical(
    key: Tensor,
    logits: Tensor,
    axis: int = -1,
    shape: Shape | None = None,
    replace: bool = True,
    mode: str | None = None,
) -> Tensor:
    """Draw indices along `axis` with probabilities `softmax(logits, axis)`.

    With replacement the largest of `logits + gumbel`, without it the `k` largest (Kool, van Hoof and Welling,
    "Stochastic beams and where to find them", ICML 2019).

    Args:
      key: int32 `(2,)`.
      logits: floating, unnormalised log probabilities.
      axis: the axis of the categories.
      shape: `(*k, *batch)` with `batch` the shape of `logits` less `axis`; None takes `batch`.
      replace: False draws `prod(k)` different categories for each batch element.
      mode: as in `gumbel`.

    Returns: int64, `shape`.

    Raises: `TypeError` for logits that are not floating; `ValueError` for a shape that does not end in `batch`, or more
    draws without replacement than categories.

    >>> from funcnet import random
    >>> categorical(random.key(0), torch.tensor([0.0, 100.0]), shape=(5,))
    tensor([1, 1, 1, 1, 1])
    """
    as_key(key, "categorical")
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        kind = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(
            f"random.categorical takes floating logits, and got {kind}. Write torch.log(p) for probabilities p."
        )
    logits = logits.to(key.device)
    axis = axis % logits.dim()
    batch = (*logits.shape[:axis], *logits.shape[axis + 1 :])
    sizes = batch if shape is None else sized("categorical", shape)
    prefix, own = sizes[: len(sizes) - len(batch)], sizes[len(sizes) - len(batch) :]
    if len(sizes) < len(batch) or any(m not in (1, n) for m, n in zip(batch, own, strict=True)):
        raise ValueError(
            f"random.categorical got shape={sizes} for logits of shape {tuple(logits.shape)} and axis={axis}: the "
            f"shape must end in {batch}. Write shape=(n, {', '.join(map(str, batch))}) for n draws of each."
        )
    if replace:
        full = (*own[:axis], logits.shape[axis], *own[axis:])
        return torch.argmax(draw_gumbel(key, (*prefix, *full), logits.dtype, mode) + logits, dim=len(prefix) + axis)
    k = math.prod(prefix)
    if k > logits.shape[axis]:
        raise ValueError(
            f"random.categorical cannot draw {k} of {logits.shape[axis]} categories without replacement. Write "
            "replace=True, or a smaller shape."
        )
    noisy = logits + draw_gumbel(key, tuple(logits.shape), logits.dtype, mode)
    return torch.topk(noisy.movedim(axis, 0), k, dim=0).indices.reshape(sizes)


def geometric(key: Tensor, p: Real, shape: Shape | None = None, dtype: torch.dtype = torch.int32) -> Tensor:
    """Draw the number of trials up to the first success, each of probability `p`: 1, 2, 3, ...

    `floor(log(u) / log(1 - p)) + 1`.

    Args:
      key: int32 `(2,)`.
      p: in (0, 1]; broadcasts to `shape`.
      shape: the shape of the result; None takes `p`'s.
      dtype: an integer type.

    Returns: `shape`.

    Raises: `TypeError` for a dtype that is not an integer; `ValueError` for a `p` that does not broadcast.

    >>> from funcnet import random
    >>> geometric(random.key(0), 0.5, (4,)) >= 1
    tensor([True, True, True, True])
    """
    as_key(key, "geometric")
    integral("geometric", dtype)
    floats = p.dtype if isinstance(p, Tensor) and p.is_floating_point() else torch.float32
    (p,) = parameters(key, floats, p)
    u = draw_unit(key, broadcast("geometric", shape, p), floats)
    u = torch.where(u == 0, 1.0, u)
    return (torch.floor(torch.log(u) / torch.log1p(-p)) + 1).to(dtype)
