"""The gamma distribution, and the laws made of it."""

import torch
from torch import Tensor

from funcnet import _compat
from funcnet.random.arguments import Real, Shape, broadcast, floating, parameters, sized
from funcnet.random.continuous import draw_exponential, draw_normal
from funcnet.random.discrete import draw_signs
from funcnet.random.keys import as_key, split_words
from funcnet.random.rejection import first_accepted
from funcnet.random.uniform import draw_unit

__all__ = [
    "ball", "beta", "chisquare", "dirichlet", "draw_gamma", "f", "gamma", "generalized_normal", "loggamma", "t",
]  # fmt: skip

# A proposal is accepted with probability 0.95 at least, so ten are all refused once in 10**13.
ROUNDS = 10


def draw_gamma(key: Tensor, a: Tensor, shape: tuple[int, ...], *, log: bool) -> Tensor:
    """Gamma(a) numbers, or their logarithms, in `a`'s dtype, differentiable once in `a`.

    Marsaglia and Tsang, "A simple method for generating gamma variables", ACM TOMS 26, 2000: with `d = a - 1/3` and
    `v = (1 + z / sqrt(9 d))**3`, `z` normal, `d v` is accepted where `log u < z**2 / 2 + d - d v + d log v`. Under one,
    `a + 1` is drawn and multiplied by `u**(1 / a)`.
    """
    dtype = a.dtype
    a = a.to(torch.float64 if dtype == torch.float64 else torch.float32).expand(shape)
    kept, boost = split_words(key, (2,))
    small = a < 1
    at_least_one = torch.where(small, a + 1, a)
    fixed = at_least_one.detach()
    d = fixed - 1 / 3
    c = torch.rsqrt(9 * d)

    def propose(k: Tensor) -> tuple[Tensor, Tensor]:
        for_normal, for_uniform = split_words(k, (2,))
        z = draw_normal(for_normal, shape, a.dtype)
        u = 1 - draw_unit(for_uniform, shape, a.dtype)
        root = 1 + c * z
        v = torch.where(root > 0, root, 1.0) ** 3
        fits = torch.log(u) < 0.5 * z * z + d * (1 - v + torch.log(v))
        return d * v, (root > 0) & fits

    g = first_accepted(kept, ROUNDS, propose).detach()
    # The quantile moves with `a` while the accepted randomness stays: the implicit reparametrised gradient (Figurnov,
    # Mohamed and Mnih, NeurIPS 2018), written as a first-order term that is zero.
    g = g + (at_least_one - fixed) * _compat.gamma_grad(fixed, g)
    # 1 - u lies in (0, 1], so its logarithm is finite.
    power = torch.where(small, -draw_exponential(boost, shape, a.dtype) / a, 0.0)
    return (torch.log(g) + power if log else g * torch.exp(power)).to(dtype)


def gamma(key: Tensor, a: Real, shape: Shape | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw gamma numbers of scale one, of density `x**(a - 1) exp(-x) / Gamma(a)`.

    Args:
      key: int32 `(2,)`.
      a: positive, the concentration; broadcasts to `shape`. Differentiable once (implicit reparametrisation).
      shape: the shape of the result; None takes the parameter's.
      dtype: a floating type. For `a` well under 1 most draws underflow: take `loggamma`.

    Returns: `shape`. The law is jax's, the numbers are not: jax draws in a loop whose length depends on the data.

    Raises: `TypeError` for a dtype that is not floating; `ValueError` for a parameter that does not broadcast.

    >>> from funcnet import random
    >>> gamma(random.key(0), 3.0, (2,)) > 0
    tensor([True, True])
    """
    as_key(key, "gamma")
    (a,) = parameters(key, floating("gamma", dtype), a)
    return draw_gamma(key, a, broadcast("gamma", shape, a), log=False)


def loggamma(key: Tensor, a: Real, shape: Shape | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw the logarithms of gamma numbers, finite where the numbers themselves underflow.

    Arguments as in `gamma`; from one key `exp(loggamma(...))` equals `gamma(...)`.

    >>> from funcnet import random
    >>> loggamma(random.key(0), 0.001, (2,)).isfinite()
    tensor([True, True])
    """
    as_key(key, "loggamma")
    (a,) = parameters(key, floating("loggamma", dtype), a)
    return draw_gamma(key, a, broadcast("loggamma", shape, a), log=True)


def beta(key: Tensor, a: Real, b: Real, shape: Shape | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw beta numbers, of density proportional to `x**(a - 1) (1 - x)**(b - 1)` on [0, 1].

    `x = g / (g + h)` with `g` and `h` gamma numbers of `a` and `b`, taken by their logarithms. Arguments as in
    `gamma`; differentiable once in `a` and `b`.

    >>> from funcnet import random
    >>> beta(random.key(0), 2.0, 3.0, (2,)) < 1
    tensor([True, True])
    """
    as_key(key, "beta")
    a, b = parameters(key, floating("beta", dtype), a, b)
    shape = broadcast("beta", shape, a, b)
    keys = split_words(key, (2,))
    return torch.sigmoid(draw_gamma(keys[0], a, shape, log=True) - draw_gamma(keys[1], b, shape, log=True))


def dirichlet(key: Tensor, alpha: Tensor, shape: Shape | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw points of the simplex, of density proportional to `prod_i x_i**(alpha_i - 1)`.

    Gamma numbers over their sum, as a softmax of their logarithms.

    Args:
      key: int32 `(2,)`.
      alpha: `(..., n)`, positive. Differentiable once.
      shape: the batch shape, to which `alpha.shape[:-1]` broadcasts; None takes it.
      dtype: a floating type.

    Returns: `(*shape, n)`, rows that sum to one.

    Raises: `TypeError` for a dtype that is not floating; `ValueError` for a scalar `alpha`, or one that does not
    broadcast.

    >>> from funcnet import random
    >>> dirichlet(random.key(0), torch.ones(3), (2,)).sum(-1).round()
    tensor([1., 1.])
    """
    as_key(key, "dirichlet")
    (alpha,) = parameters(key, floating("dirichlet", dtype), alpha)
    if not alpha.dim():
        raise ValueError(
            "random.dirichlet needs alpha of shape (..., n), and got a scalar. Write alpha * torch.ones(n)."
        )
    batch = broadcast("dirichlet", shape, alpha[..., 0])
    return torch.softmax(draw_gamma(key, alpha, (*batch, alpha.shape[-1]), log=True), -1)


def chisquare(key: Tensor, df: Real, shape: Shape | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw chi-squared numbers of `df` degrees of freedom: twice a gamma number of `df / 2`.

    Arguments as in `gamma`; differentiable once in `df`.

    >>> from funcnet import random
    >>> chisquare(random.key(0), 3.0, (2,)) > 0
    tensor([True, True])
    """
    as_key(key, "chisquare")
    (df,) = parameters(key, floating("chisquare", dtype), df)
    return 2 * draw_gamma(key, df / 2, broadcast("chisquare", shape, df), log=False)


def t(key: Tensor, df: Real, shape: Shape | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw Student's t numbers of `df` degrees of freedom: a normal number over `sqrt(chi2 / df)`.

    Arguments as in `gamma`; differentiable once in `df`.

    >>> from funcnet import random
    >>> t(random.key(0), 5.0, (2,)).shape
    torch.Size([2])
    """
    as_key(key, "t")
    (df,) = parameters(key, floating("t", dtype), df)
    shape = broadcast("t", shape, df)
    keys = split_words(key, (2,))
    half = df / 2
    return draw_normal(keys[0], shape, dtype) * torch.sqrt(half / draw_gamma(keys[1], half, shape, log=False))


def f(key: Tensor, dfnum: Real, dfden: Real, shape: Shape | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw F numbers: the ratio of two chi-squared numbers, each over its degrees of freedom.

    Arguments as in `gamma`; differentiable once in both.

    >>> from funcnet import random
    >>> f(random.key(0), 3.0, 5.0, (2,)) > 0
    tensor([True, True])
    """
    as_key(key, "f")
    above, below = parameters(key, floating("f", dtype), dfnum, dfden)
    shape = broadcast("f", shape, above, below)
    keys = split_words(key, (2,))
    ratio = draw_gamma(keys[1], above / 2, shape, log=True) - draw_gamma(keys[0], below / 2, shape, log=True)
    return torch.exp(ratio) * (below / above)


def _generalized_normal(key: Tensor, p: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    keys = split_words(key, (2,))
    return draw_signs(keys[1], shape, dtype) * draw_gamma(keys[0], 1 / p, shape, log=False) ** (1 / p)


def generalized_normal(key: Tensor, p: Real, shape: Shape = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw numbers of density proportional to `exp(-|x|**p)`: a signed power of a gamma number.

    Args:
      key: int32 `(2,)`.
      p: positive; broadcasts to `shape`.
      shape: the shape of the result.
      dtype: a floating type.

    Returns: `shape`.

    Raises: `TypeError` for a dtype that is not floating; `ValueError` for a `p` that does not broadcast.

    >>> from funcnet import random
    >>> generalized_normal(random.key(0), 4.0, (2,)).shape
    torch.Size([2])
    """
    as_key(key, "generalized_normal")
    (p,) = parameters(key, floating("generalized_normal", dtype), p)
    return _generalized_normal(key, p, broadcast("generalized_normal", shape, p), dtype)


def ball(key: Tensor, d: int, p: Real = 2.0, shape: Shape = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw points uniformly from the unit ball of the p-norm in `d` dimensions.

    Barthe, Guedon, Mendelson and Naor, "A probabilistic approach to the geometry of the lpn-ball", Annals of
    Probability 33, 2005: `x = g / (|g|_p**p + e)**(1 / p)` with `g` generalized normal and `e` exponential.

    Args:
      key: int32 `(2,)`.
      d: the dimension.
      p: the norm; a scalar.
      shape: the batch shape.
      dtype: a floating type.

    Returns: `(*shape, d)`.

    Raises: `TypeError` for a dtype that is not floating.

    >>> from funcnet import random
    >>> ball(random.key(0), 3, shape=(2,)).norm(dim=-1) <= 1
    tensor([True, True])
    """
    as_key(key, "ball")
    (p,) = parameters(key, floating("ball", dtype), p)
    batch = sized("ball", shape)
    keys = split_words(key, (2,))
    g = _generalized_normal(keys[0], p, (*batch, d), dtype)
    e = draw_exponential(keys[1], batch, dtype)
    return g / ((g.abs() ** p).sum(-1) + e)[..., None] ** (1 / p)
