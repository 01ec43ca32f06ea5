"""Torch code that draws half-precision tensors gets the law, not the 128 numbers that jax's bfloat16 uniforms are."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from funcnet import random

N = 40_000
HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


def _seeded(f: Callable[[], Tensor], seed: int = 0) -> Tensor:
    with random.seeded(random.key(seed)):
        return f()


@HALVES
@pytest.mark.parametrize("form", ["bernoulli_", "bernoulli_ tensor", "bernoulli", "bernoulli p"])
def test_a_rare_zero_is_drawn(dtype: torch.dtype, form: str) -> None:
    p = 0.99609375  # held exactly by both, one less 2**-8: half a step of bfloat16's uniforms
    x = torch.full((N,), p, dtype=dtype)
    drawn = _seeded(
        {
            "bernoulli_": lambda: x.clone().bernoulli_(p),
            "bernoulli_ tensor": lambda: x.clone().bernoulli_(x),
            "bernoulli": lambda: torch.bernoulli(x),
            "bernoulli p": lambda: torch.bernoulli(x, p),
        }[form]
    )
    assert drawn.dtype == dtype
    assert stats.binomtest(int((drawn == 0).sum()), N, 1 - p).pvalue > 1e-3


@HALVES
def test_gumbel_softmax_follows_the_logits(dtype: torch.dtype) -> None:
    # Among 500 numbers of 128 values there is a 0, which would outweigh any logit.
    logits = F.pad(torch.full((1000, 1), 10.0, dtype=dtype), (0, 500))
    drawn = _seeded(lambda: F.gumbel_softmax(logits, hard=True))[:, 0]
    assert stats.binomtest(int(drawn.sum()), 1000, float(torch.softmax(logits[0].double(), 0)[0])).pvalue > 1e-3


@HALVES
@pytest.mark.parametrize("replacement", [True, False])
def test_multinomial_reaches_every_category(dtype: torch.dtype, replacement: bool) -> None:
    weights = torch.ones(1000, dtype=dtype)
    if replacement:
        index = _seeded(lambda: torch.multinomial(weights, N, True))
    else:
        index = _seeded(lambda: torch.multinomial(weights.expand(N // 10, 1000), 1)).flatten()
    counts = index.bincount(minlength=1000)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


LAWS = {
    "rand": (lambda d: torch.rand(N, dtype=d), stats.uniform()),
    "rand_like": (lambda d: torch.rand_like(torch.zeros(N, dtype=d)), stats.uniform()),
    "randn": (lambda d: torch.randn(N, dtype=d), stats.norm()),
    "randn_like": (lambda d: torch.randn_like(torch.zeros(N, dtype=d)), stats.norm()),
    "normal": (lambda d: torch.normal(torch.zeros(N, dtype=d), 2.0), stats.norm(scale=2)),
    "normal size": (lambda d: torch.normal(0.0, 2.0, (N,), dtype=d), stats.norm(scale=2)),
    "normal_": (lambda d: torch.zeros(N, dtype=d).normal_(0.0, 2.0), stats.norm(scale=2)),
    "uniform_": (lambda d: torch.zeros(N, dtype=d).uniform_(-2.0, 2.0), stats.uniform(-2, 4)),
    "exponential_": (lambda d: torch.zeros(N, dtype=d).exponential_(2.0), stats.expon(scale=0.5)),
    "cauchy_": (lambda d: torch.zeros(N, dtype=d).cauchy_(), stats.cauchy()),
    "log_normal_": (lambda d: torch.zeros(N, dtype=d).log_normal_(0.0, 1.0), stats.lognorm(1)),
    "rrelu": (lambda d: -F.rrelu(torch.full((N,), -1.0, dtype=d), 0.0, 1.0, training=True), stats.uniform()),
}


@HALVES
@pytest.mark.parametrize("name", LAWS)
def test_draws_are_float32s_rounded(dtype: torch.dtype, name: str) -> None:
    draw, law = LAWS[name]
    x, wide = _seeded(lambda: draw(dtype)), _seeded(lambda: draw(torch.float32))
    assert x.dtype == dtype
    # Rounding moves every number by one step at most, where the law of 128 numbers jumps by 1/128.
    torch.testing.assert_close(x.float(), wide, rtol=2 * torch.finfo(dtype).eps, atol=1e-4)
    assert stats.kstest(wide.double().numpy(), law.cdf).pvalue > 1e-3
    assert x.unique().numel() > 200


@HALVES
def test_bounds_hold_after_rounding(dtype: torch.dtype) -> None:
    unit = _seeded(lambda: torch.rand(N, dtype=dtype))
    assert unit.max() < 1
    spread = _seeded(lambda: torch.zeros(N, dtype=dtype).uniform_(-0.25, 0.25))
    assert spread.max() < 0.25
    assert spread.min() >= -0.25
    assert _seeded(lambda: torch.zeros(N, dtype=dtype).exponential_(1000.0)).min() > 0


def test_geometric_is_exact_where_the_dtype_is() -> None:
    x = _seeded(lambda: torch.zeros(N, dtype=torch.bfloat16).geometric_(0.3))
    assert torch.equal(x.float(), _seeded(lambda: torch.zeros(N).geometric_(0.3)))


def test_under_a_default_of_half_precision() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        weight = _seeded(lambda: nn.Linear(100, 400).weight.detach())
        kept = _seeded(lambda: torch.zeros(N, dtype=torch.int64).bernoulli_(0.99609375))
    finally:
        torch.set_default_dtype(torch.float32)
    assert weight.unique().numel() > 300
    assert stats.binomtest(int((kept == 0).sum()), N, 2**-8).pvalue > 1e-3


def test_normal_has_the_dtype_of_its_first_tensor() -> None:
    mean = torch.zeros(3, dtype=torch.bfloat16)
    assert _seeded(lambda: torch.normal(mean, torch.ones(3))).dtype == torch.bfloat16  # as torch's own
