"""Keys and distributions, with jax.random's names, arguments and bits.

A key is an int32 tensor of shape `(2,)`. Every draw is a function of its key alone; the words, and so every draw made
of them by exact operations, are those of jax's default generator (Threefry-2x32, partitionable). Left out of
jax.random: `PRNGKey`, `clone`, `key_data`, `key_dtype`, `key_impl`, `wrap_key_data` and `random_gamma_p`, which serve
jax's typed keys and several generators; here a key is its own data, and there is one generator.

>>> from funcnet import random
>>> key, sub = random.split(random.key(0))
>>> random.normal(sub, (2,)).shape
torch.Size([2])
"""

from funcnet.random.arrays import choice as choice
from funcnet.random.arrays import multivariate_normal as multivariate_normal
from funcnet.random.arrays import orthogonal as orthogonal
from funcnet.random.arrays import permutation as permutation
from funcnet.random.continuous import cauchy as cauchy
from funcnet.random.continuous import exponential as exponential
from funcnet.random.continuous import gumbel as gumbel
from funcnet.random.continuous import laplace as laplace
from funcnet.random.continuous import logistic as logistic
from funcnet.random.continuous import normal as normal
from funcnet.random.continuous import truncated_normal as truncated_normal
from funcnet.random.counting import binomial as binomial
from funcnet.random.counting import multinomial as multinomial
from funcnet.random.counting import poisson as poisson
from funcnet.random.discrete import bernoulli as bernoulli
from funcnet.random.discrete import categorical as categorical
from funcnet.random.discrete import geometric as geometric
from funcnet.random.discrete import rademacher as rademacher
from funcnet.random.discrete import randint as randint
from funcnet.random.families import double_sided_maxwell as double_sided_maxwell
from funcnet.random.families import lognormal as lognormal
from funcnet.random.families import maxwell as maxwell
from funcnet.random.families import pareto as pareto
from funcnet.random.families import rayleigh as rayleigh
from funcnet.random.families import triangular as triangular
from funcnet.random.families import wald as wald
from funcnet.random.families import weibull_min as weibull_min
from funcnet.random.gammas import ball as ball
from funcnet.random.gammas import beta as beta
from funcnet.random.gammas import chisquare as chisquare
from funcnet.random.gammas import dirichlet as dirichlet
from funcnet.random.gammas import f as f
from funcnet.random.gammas import gamma as gamma
from funcnet.random.gammas import generalized_normal as generalized_normal
from funcnet.random.gammas import loggamma as loggamma
from funcnet.random.gammas import t as t
from funcnet.random.keys import check_key as check_key
from funcnet.random.keys import fold_in as fold_in
from funcnet.random.keys import key as key
from funcnet.random.keys import split as split
from funcnet.random.reuse import KeyReuseError as KeyReuseError
from funcnet.random.reuse import check_reuse as check_reuse
from funcnet.random.seeded import seeded as seeded
from funcnet.random.uniform import bits as bits
from funcnet.random.uniform import uniform as uniform

__all__ = [
    "KeyReuseError",
    "ball",
    "bernoulli",
    "beta",
    "binomial",
    "bits",
    "categorical",
    "cauchy",
    "check_key",
    "check_reuse",
    "chisquare",
    "choice",
    "dirichlet",
    "double_sided_maxwell",
    "exponential",
    "f",
    "fold_in",
    "gamma",
    "generalized_normal",
    "geometric",
    "gumbel",
    "key",
    "laplace",
    "loggamma",
    "logistic",
    "lognormal",
    "maxwell",
    "multinomial",
    "multivariate_normal",
    "normal",
    "orthogonal",
    "pareto",
    "permutation",
    "poisson",
    "rademacher",
    "randint",
    "rayleigh",
    "seeded",
    "split",
    "t",
    "triangular",
    "truncated_normal",
    "uniform",
    "wald",
    "weibull_min",
]
