"""Every distribution with arguments, its law, and what may be promised of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from scipy import stats

from funcnet import random


class Entry(NamedTuple):
    name: str
    args: tuple[Any, ...]
    law: Any = None
    "a frozen scipy distribution"
    exact: bool = False
    "equal to jax to the bit"
    close: bool = False
    "equal to jax to a few ulp"
    differentiable: tuple[int, ...] = ()
    "which of `args` the draw is a reparametrisation in"
    mean: Callable[..., Any] | None = None
    "the law's mean as a torch function of `args`"

    def draw(self, key: torch.Tensor, shape: tuple[int, ...] | None = None, **kwargs: Any) -> torch.Tensor:
        f = getattr(random, self.name)
        if self.name in ("bits", "uniform", "rademacher", *PLAIN):
            return f(key, shape or (), *self.args, **kwargs)
        if self.name == "randint":
            return f(key, shape or (), *self.args, **kwargs)
        return f(key, *self.args, shape=shape or (), **kwargs)


PLAIN = ("normal", "exponential", "gumbel", "laplace", "cauchy", "logistic", "maxwell")

SCALAR = [
    Entry("uniform", (), stats.uniform(), exact=True),
    Entry("normal", (), stats.norm(), close=True),
    Entry("exponential", (), stats.expon(), close=True),
    Entry("gumbel", (), stats.gumbel_r(), close=True),
    Entry("laplace", (), stats.laplace(), close=True),
    Entry("cauchy", (), stats.cauchy(), close=True),
    Entry("logistic", (), stats.logistic(), close=True),
    Entry("maxwell", (), stats.maxwell(), close=True),
    Entry("bernoulli", (0.3,), stats.bernoulli(0.3), exact=True),
    Entry("rademacher", (), None, exact=True),
    Entry("randint", (-3, 14), stats.randint(-3, 14), exact=True),
    Entry("truncated_normal", (-0.5, 2.0), stats.truncnorm(-0.5, 2.0), close=True),
    Entry("truncated_normal", (1.5, 2.0), stats.truncnorm(1.5, 2.0), close=True),
    Entry("geometric", (0.2,), stats.geom(0.2), exact=True),
    Entry("pareto", (3.0,), stats.pareto(3.0), close=True, differentiable=(0,), mean=lambda b: b / (b - 1)),
    Entry("rayleigh", (2.0,), stats.rayleigh(scale=2.0), differentiable=(0,), mean=lambda s: s * (torch.pi / 2) ** 0.5),
    Entry(
        "lognormal", (0.5,), stats.lognorm(0.5), close=True, differentiable=(0,), mean=lambda s: torch.exp(s * s / 2)
    ),
    Entry(
        "weibull_min",
        (2.0, 1.5),
        stats.weibull_min(1.5, scale=2.0),
        close=True,
        differentiable=(0, 1),
        mean=lambda s, c: s * torch.exp(torch.lgamma(1 + 1 / c)),
    ),
    Entry(
        "triangular",
        (-1.0, 0.5, 2.0),
        stats.triang(0.5, loc=-1.0, scale=3.0),
        close=True,
        differentiable=(0, 1, 2),
        mean=lambda a, b, c: (a + b + c) / 3,
    ),
    Entry("wald", (1.5,), stats.invgauss(1.5), close=True),
    Entry("gamma", (0.01,), stats.gamma(0.01)),
    Entry("gamma", (0.7,), stats.gamma(0.7), differentiable=(0,), mean=lambda a: a),
    Entry("gamma", (1.0,), stats.gamma(1.0), differentiable=(0,), mean=lambda a: a),
    Entry("gamma", (1e6,), stats.gamma(1e6), differentiable=(0,), mean=lambda a: a),
    Entry("loggamma", (0.002,), None),
    Entry("beta", (0.5, 3.0), stats.beta(0.5, 3.0), differentiable=(0, 1), mean=lambda a, b: a / (a + b)),
    Entry("beta", (400.0, 3.0), stats.beta(400.0, 3.0), differentiable=(0, 1), mean=lambda a, b: a / (a + b)),
    Entry("chisquare", (3.0,), stats.chi2(3.0), differentiable=(0,), mean=lambda a: a),
    Entry("t", (4.0,), stats.t(4.0)),
    Entry("f", (5.0, 9.0), stats.f(5.0, 9.0), differentiable=(1,), mean=lambda a, b: b / (b - 2)),
    Entry("generalized_normal", (1.5,), stats.gennorm(1.5)),
    Entry("double_sided_maxwell", (1.0, 2.0), None),
    Entry("poisson", (0.3,), stats.poisson(0.3)),
    Entry("poisson", (9.9,), stats.poisson(9.9)),
    Entry("poisson", (10.0,), stats.poisson(10.0)),
    Entry("poisson", (1e6,), stats.poisson(1e6)),
    Entry("binomial", (7, 0.2), stats.binom(7, 0.2)),
    Entry("binomial", (10**6, 3e-6), stats.binom(10**6, 3e-6)),
    Entry("binomial", (60, 0.7), stats.binom(60, 0.7)),
    Entry("binomial", (10**6, 0.4), stats.binom(10**6, 0.4)),
]


def ids(entry: Entry) -> str:
    return f"{entry.name}{list(entry.args)}"
