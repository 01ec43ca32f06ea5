"""Counts: Poisson, binomial and multinomial numbers.

Where the mean is under ten the count is found by walking up the distribution function, elsewhere by Hoermann's
transformed rejection. Both work in float64: a log-likelihood of a count near 10**6 has no digit left in float32, and a
float32 uniform number cannot reach the tail.
"""

import torch
from torch import Tensor

from funcnet import _compat
from funcnet.random.arguments import FLOATS, Real, Shape, broadcast, integral, parameters, sized
from funcnet.random.keys import as_key, split_words
from funcnet.random.rejection import first_accepted
from funcnet.random.uniform import draw_unit

__all__ = ["binomial", "draw_binomial", "draw_poisson", "multinomial", "poisson"]

# With a mean of ten a count of 56 or more has probability 1e-22, below what 52 bits can ask for.
STEPS = 56
# Seven proposals of ten are accepted at the worst, so all are refused once in 10**12.
ROUNDS = 24


def _walk(u: Tensor, mass: Tensor, ratio: Tensor, slope: Tensor) -> Tensor:
    """The smallest count whose distribution function exceeds `u`: `mass` at zero, then times `ratio / k - slope`."""
    count, total = torch.zeros_like(u), mass
    for k in range(1, STEPS):
        above = u >= total
        if _compat.readable(above) and not bool(above.any()):
            break
        count = count + above
        mass = mass * torch.clamp(ratio / k - slope, min=0.0)
        total = total + mass
    return count


def poisson(key: Tensor, lam: Real, shape: Shape | None = None, dtype: torch.dtype = torch.int32) -> Tensor:
    """Draw Poisson counts, of mass `lam**k exp(-lam) / k!`.

    By inversion under a mean of ten, else by PTRS (Hoermann, "The transformed rejection method for generating Poisson
    random variables", Insurance: Mathematics and Economics 12, 1993).

    Args:
      key: int32 `(2,)`.
      lam: the mean, at least 0; broadcasts to `shape`.
      shape: the shape of the result; None takes `lam`'s.
      dtype: an integer type; a count it cannot hold wraps.

    Returns: `shape`. The law is jax's, the numbers are not.

    Raises: `TypeError` for a dtype that is not an integer; `ValueError` for a `lam` that does not broadcast.

    >>> from funcnet import random
    >>> poisson(random.key(0), 4.0, (2,)) >= 0
    tensor([True, True])
    """
    as_key(key, "poisson")
    integral("poisson", dtype)
    (lam,) = parameters(key, torch.float64, lam)
    shape = broadcast("poisson", shape, lam)
    return draw_poisson(key, lam.detach().expand(shape)).to(dtype)


def draw_poisson(key: Tensor, lam: Tensor) -> Tensor:
    """Poisson counts of float64 means, float64."""
    shape = tuple(lam.shape)
    for_small, for_large = split_words(key, (2,))
    small = ~(lam >= 10)
    few = torch.where(small, lam, 0.0)
    low = _walk(draw_unit(for_small, shape, torch.float64), torch.exp(-few), few, torch.zeros_like(few))
    many = torch.where(small, 10.0, lam)
    log = torch.log(many)
    b = 0.931 + 2.53 * torch.sqrt(many)
    a = -0.059 + 0.02483 * b
    scale = 1.1239 + 1.1328 / (b - 3.4)
    easy = 0.9277 - 3.6224 / (b - 2)

    def propose(k: Tensor) -> tuple[Tensor, Tensor]:
        first, second = split_words(k, (2,))
        u = draw_unit(first, shape, torch.float64) - 0.5
        v = draw_unit(second, shape, torch.float64)
        room = 0.5 - u.abs()
        n = torch.floor((2 * a / room + b) * u + many + 0.43)
        possible = (n >= 0) & ~((room < 0.013) & (v > room))
        n = torch.where(possible, n, 0.0)
        left = torch.log(v * scale / (a / (room * room) + b))
        inside = left <= n * log - many - torch.lgamma(n + 1)
        return n, ((room >= 0.07) & (v <= easy)) | (possible & inside)

    return torch.where(small, low, first_accepted(for_large, ROUNDS, propose))


def binomial(key: Tensor, n: Real, p: Real, shape: Shape | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw the number of successes in `n` trials of probability `p`.

    By inversion where `n min(p, 1 - p)` is under ten, else by BTRS (Hoermann, "The generation of binomial random
    variates", Journal of Statistical Computation and Simulation 46, 1993).

    Args:
      key: int32 `(2,)`.
      n: the number of trials, at least 0.
      p: in [0, 1]; `n` and `p` broadcast to `shape`.
      shape: the shape of the result; None takes the parameters'.
      dtype: a floating type, as in jax, or an integer one.

    Returns: `shape`; NaN for a negative `n`, or a `p` outside [0, 1] or NaN. The law is jax's, the numbers are not.

    Raises: `TypeError` for another dtype; `ValueError` for parameters that do not broadcast.

    >>> from funcnet import random
    >>> binomial(random.key(0), 10, 0.3, (2,)) <= 10
    tensor([True, True])
    """
    as_key(key, "binomial")
    if dtype not in FLOATS:
        integral("binomial", dtype)
    n, p = parameters(key, torch.float64, n, p)
    shape = broadcast("binomial", shape, n, p)
    return draw_binomial(key, n.detach().expand(shape), p.detach().expand(shape)).to(dtype)


def draw_binomial(key: Tensor, n: Tensor, p: Tensor) -> Tensor:
    """Binomial counts of float64 parameters of one shape, float64."""
    shape = tuple(n.shape)
    valid = (n >= 0) & (p >= 0) & (p <= 1)
    n = torch.where(valid, torch.floor(n), 0.0)
    rare = p <= 0.5
    q = torch.where(valid, torch.where(rare, p, 1 - p), 0.0)
    for_small, for_large = split_words(key, (2,))
    small = n * q < 10
    few, odds = torch.where(small, n, 0.0), q / (1 - q)
    none = torch.exp(few * torch.log1p(-q))
    low = torch.minimum(_walk(draw_unit(for_small, shape, torch.float64), none, (few + 1) * odds, odds), few)
    many, r = torch.where(small, 40.0, n), torch.where(small, 0.5, q)
    spread = torch.sqrt(many * r * (1 - r))
    b = 1.15 + 2.53 * spread
    a = -0.0873 + 0.0248 * b + 0.01 * r
    centre = many * r + 0.5
    easy = 0.92 - 4.2 / b
    scale = (2.83 + 5.1 / b) * spread
    mode = torch.floor((many + 1) * r)
    log_odds = torch.log(r / (1 - r))
    top = torch.lgamma(mode + 1) + torch.lgamma(many - mode + 1)

    def propose(k: Tensor) -> tuple[Tensor, Tensor]:
        first, second = split_words(k, (2,))
        u = draw_unit(first, shape, torch.float64) - 0.5
        v = draw_unit(second, shape, torch.float64)
        room = 0.5 - u.abs()
        count = torch.floor((2 * a / room + b) * u + centre)
        possible = (count >= 0) & (count <= many)
        count = torch.where(possible, count, mode)
        left = torch.log(v * scale / (a / (room * room) + b))
        right = top - torch.lgamma(count + 1) - torch.lgamma(many - count + 1) + (count - mode) * log_odds
        return count, possible & (((room >= 0.07) & (v <= easy)) | (left <= right))

    count = torch.where(small, low, first_accepted(for_large, ROUNDS, propose))
    return torch.where(valid, torch.where(rare, count, n - count), torch.nan)


def multinomial(
    key: Tensor, n: Real, p: Tensor, *, shape: Shape | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw how often each of `k` outcomes occurs in `n` trials: a binomial count for each, given those before it.

    Args:
      key: int32 `(2,)`.
      n: the number of trials, which broadcasts to `shape[:-1]`.
      p: `(..., k)`, probabilities that sum to one over the last axis.
      shape: the shape of the result, ending in `k`; None takes `p`'s.
      dtype: a floating or integer type.

    Returns: `shape`, rows that sum to `n`.

    Raises: `TypeError` for another dtype; `ValueError` for parameters that do not broadcast.

    >>> from funcnet import random
    >>> multinomial(random.key(0), 10, torch.tensor([0.2, 0.3, 0.5])).sum()
    tensor(10.)
    """
    as_key(key, "multinomial")
    if dtype not in FLOATS:
        integral("multinomial", dtype)
    n, p = parameters(key, torch.float64, n, p)
    sizes = tuple(p.shape) if shape is None else sized("multinomial", shape)
    broadcast("multinomial", sizes, p)
    broadcast("multinomial", sizes[:-1], n)
    left, p = n.expand(sizes[:-1]), p.detach().expand(sizes)
    rest = p.flip(-1).cumsum(-1).flip(-1)
    ratio = torch.clamp(p / torch.where(rest == 0, 1.0, rest), 0.0, 1.0)
    counts = []
    for i, k in enumerate(split_words(key, (sizes[-1],))):
        # What is left goes to the last outcome, whatever rounding made of its ratio.
        count = left if i == sizes[-1] - 1 else draw_binomial(k, left, ratio[..., i])
        counts.append(count)
        left = left - count
    return torch.stack(counts, -1).to(dtype)
