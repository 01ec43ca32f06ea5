"""Functions without slopes, smoothed by noise so that they have some."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from .. import random
from ..transforms import stop_gradient, vmap
from ..tree import PyTree, flatten, map, unflatten
from .arguments import function

__all__ = ["Gumbel", "Normal", "make_perturbed_fun"]


class Noise(Protocol):
    """A law to draw from, whose log-density is known but for a constant."""

    def sample(self, key: Tensor, sample_shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw numbers."""

    def log_prob(self, inputs: Tensor) -> Tensor:
        """The log-density at each number, up to a constant."""


class Normal:
    """Standard normal noise.

    >>> Normal().log_prob(torch.tensor(2.0))
    tensor(-2.)
    """

    def sample(self, key: Tensor, sample_shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw numbers, those of `random.normal`."""
        return random.normal(key, sample_shape, dtype)

    def log_prob(self, inputs: Tensor) -> Tensor:
        r"""$-z^2 / 2$."""
        return -0.5 * inputs**2


class Gumbel:
    """Standard Gumbel noise, under which a perturbed argmax is a softmax.

    >>> Gumbel().log_prob(torch.tensor(0.0))
    tensor(-1.)
    """

    def sample(self, key: Tensor, sample_shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw numbers, those of `random.gumbel`."""
        return random.gumbel(key, sample_shape, dtype)

    def log_prob(self, inputs: Tensor) -> Tensor:
        r"""$-z - e^{-z}$."""
        return -inputs - torch.exp(-inputs)


def make_perturbed_fun(
    fun: Callable[[PyTree], PyTree],
    num_samples: int = 1000,
    sigma: float | Tensor = 0.1,
    noise: Noise = Gumbel(),  # noqa: B008 - it holds nothing
    use_baseline: bool = True,
) -> Callable[[Tensor | int, PyTree], PyTree]:
    r"""The mean of a function over noise, $f_\sigma(x) = \mathbb{E} f(x + \sigma z)$, which has derivatives.

    `f(key, x)` is an estimate from `num_samples` draws, and its derivatives of every order are estimates of those of
    $f_\sigma$, from values of `fun` alone (Berthet et al., arXiv:2002.08676; Foerster et al., arXiv:1802.05098).

    Args:
        fun: from a tree of floating tensors to one; it is vmapped.
        num_samples: how many draws; `ValueError` where that is not positive.
        sigma: the size of the noise.
        noise: `Gumbel()`, `Normal()`, or an object with their methods.
        use_baseline: subtract `fun(x)` in the derivatives, which makes them less noisy.

    Returns:
        A function of a key (or a seed) and `x`. The draws are jax's where `x` is one tensor, or dict keys are sorted.

    >>> best = lambda x: (x == x.max()).float()
    >>> soft = make_perturbed_fun(best, num_samples=10_000, sigma=1.0)
    >>> x = torch.tensor([0.0, 1.0])
    >>> torch.allclose(soft(0, x), torch.softmax(x, 0), atol=0.02)
    True
    """
    function(fun, "fun", "lambda x: (x == x.max()).float()")
    if isinstance(noise, type):
        raise TypeError(
            f"noise is the class {noise.__name__}, and must be an instance: write noise={noise.__name__}()."
        )
    if isinstance(num_samples, bool) or not isinstance(num_samples, int):
        raise TypeError(f"num_samples is a {type(num_samples).__name__}, and must be an int, as in num_samples=1000.")
    if not isinstance(sigma, Tensor) and not sigma > 0:
        raise ValueError(f"make_perturbed_fun got sigma={sigma}, and needs more than 0: the size of the noise.")
    if num_samples < 1:
        raise ValueError(f"make_perturbed_fun got num_samples={num_samples}, and needs at least 1.")

    def perturbed(key: Tensor | int, x: PyTree) -> PyTree:
        values, treedef = flatten(x)
        baseline = fun(stop_gradient(x)) if use_baseline else None

        def draw(own: Tensor) -> PyTree:
            keys = random.split(own, len(values))
            drawn = [noise.sample(k, tuple(v.shape), v.dtype) for k, v in zip(keys, values, strict=True)]
            moved = [(v + sigma * z).detach() for v, z in zip(values, drawn, strict=True)]
            # The point stays where it is, so that x decides how likely it was.
            density = [noise.log_prob((m - v) / sigma).sum() for m, v in zip(moved, values, strict=True)]
            likelihood = torch.stack(density).sum()
            box = torch.exp(likelihood - likelihood.detach())
            result = fun(unflatten(treedef, moved))
            if not use_baseline:
                return map(lambda out: box * out, result)
            return map(lambda out, plain: box * out + (1 - box) * plain, result, baseline)

        every = vmap(draw)(random.split(random.key(key) if isinstance(key, int) else key, num_samples))
        return map(lambda out: out.mean(0), every)

    return perturbed
