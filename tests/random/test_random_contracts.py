"""What every distribution promises, over the registry."""

import numpy as np
import pytest
import torch
from random_registry import SCALAR, Entry, ids
from scipy import special, stats
from torch.fx.experimental.proxy_tensor import make_fx

from funcnet import jit, random

# torch.func.jvp warns of torch.jit.script, which it uses itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script")

every = pytest.mark.parametrize("entry", SCALAR, ids=ids)
N = 4000
DISCRETE = {"bernoulli", "randint", "geometric", "poisson", "binomial"}


@pytest.mark.parametrize("entry", [e for e in SCALAR if e.law is not None], ids=ids)
def test_law(entry: Entry) -> None:
    # float32 rounds most draws of a tiny gamma to zero.
    kwargs = {"dtype": torch.float64} if entry.name == "gamma" else {}
    x = entry.draw(random.key(11), (N,), **kwargs).double().numpy()
    if entry.name in DISCRETE:
        # Kolmogorov-Smirnov on the distribution function itself, made continuous by a uniform number in each step.
        u = random.uniform(random.key(12), (N,), torch.float64).numpy()
        p = entry.law.cdf(x - 1) + u * entry.law.pmf(x)
        assert stats.kstest(p, "uniform").pvalue > 1e-3
    else:
        assert stats.kstest(x, entry.law.cdf).pvalue > 1e-3


def test_law_without_scipy_name() -> None:
    x = random.loggamma(random.key(3), 0.002, (N,)).double().numpy()
    # The distribution function P(a, exp x) is exp(a x) / Gamma(1 + a) where exp x is next to nothing.
    below = np.exp(0.002 * x) / special.gamma(1.002)
    p = np.where(x < -20, below, special.gammainc(0.002, np.exp(x)))
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    s = random.rademacher(random.key(4), (N,)).double()
    assert abs(s.mean()) < 4 / N**0.5
    assert set(s.tolist()) == {-1.0, 1.0}
    d = random.double_sided_maxwell(random.key(5), 1.0, 2.0, (N,)).double().numpy()
    assert stats.kstest(np.abs(d - 1) / 2, stats.maxwell().cdf).pvalue > 1e-3


@every
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
def test_shape(entry: Entry, shape: tuple[int, ...]) -> None:
    assert tuple(entry.draw(random.key(0), shape).shape) == shape


@pytest.mark.parametrize("entry", [e for e in SCALAR if e.name not in {*DISCRETE, "rademacher"}], ids=ids)
def test_dtype(entry: Entry) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert entry.draw(random.key(0), (3,), dtype=dtype).dtype == dtype


@every
def test_pure(entry: Entry) -> None:
    k = random.key(5)
    before, state = k.clone(), torch.get_rng_state()
    a, b = entry.draw(k, (7,)), entry.draw(k, (7,))
    assert torch.equal(a, b)
    assert torch.equal(k, before)
    assert torch.equal(torch.get_rng_state(), state)


@every
def test_vmap_is_a_loop(entry: Entry) -> None:
    keys = random.split(random.key(2), 4)
    together = torch.func.vmap(lambda k: entry.draw(k, (5,)))(keys)
    loop = torch.stack([entry.draw(k, (5,)) for k in keys])
    torch.testing.assert_close(together, loop, rtol=1e-6, atol=1e-6)


@every
def test_traced_is_eager(entry: Entry) -> None:
    k = random.key(3)
    graph = make_fx(lambda k: entry.draw(k, (5,)), tracing_mode="fake")(k)
    torch.testing.assert_close(graph(random.key(8)), entry.draw(random.key(8), (5,)), rtol=1e-6, atol=1e-6)


# One of each, and of those made of gamma numbers beta alone: their graphs are large.
MADE_OF_GAMMA = {"loggamma", "chisquare", "t", "f", "generalized_normal"}
ONE_EACH = list({e.name: e for e in SCALAR if e.name not in MADE_OF_GAMMA}.values())


@pytest.mark.parametrize("entry", ONE_EACH, ids=ids)
def test_compiled_is_eager(entry: Entry) -> None:
    compiled = jit(lambda k: entry.draw(k, (5,)), backend="aot_eager")
    torch.testing.assert_close(compiled(random.key(8)), entry.draw(random.key(8), (5,)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("entry", [e for e in SCALAR if e.differentiable], ids=ids)
def test_gradient_is_that_of_the_mean(entry: Entry) -> None:
    args = tuple(torch.tensor(float(a), dtype=torch.float64) for a in entry.args)
    f = getattr(random, entry.name)
    n = 2000
    for i in entry.differentiable:

        def sample(x: torch.Tensor, i: int = i) -> torch.Tensor:
            return f(random.key(1), *args[:i], x, *args[i + 1 :], shape=(n,), dtype=torch.float64)

        got = torch.func.grad(lambda x: sample(x).mean())(args[i])
        h = 1e-4 * args[i].abs()
        mean = entry.mean
        assert mean is not None
        up, down = (mean(*args[:i], args[i] + s * h, *args[i + 1 :]) for s in (1, -1))
        want = (up - down) / (2 * h)
        # Five standard errors of the mean of the per-draw derivative, measured by batches.
        parts = torch.func.jacrev(lambda x: sample(x).reshape(20, -1).mean(-1))(args[i])
        error = parts.std() / 20**0.5
        assert abs(got - want) < 5 * error + 1e-3 * want.abs(), (i, got, want, error)
        assert got != 0


def test_jvp_and_grad_agree() -> None:
    a = torch.tensor([0.3, 2.0, 50.0])

    def f(a: torch.Tensor) -> torch.Tensor:
        return random.gamma(random.key(0), a).sum()

    _, tangent = torch.func.jvp(f, (a,), (torch.ones(3),))
    torch.testing.assert_close(tangent, torch.func.grad(f)(a).sum())


@every
def test_key_errors(entry: Entry) -> None:
    for bad, match in (
        (None, "got None. Make one with random.key"),
        (torch.Generator(), "torch.Generator"),
        (7, r"write random.key\(7\)"),
        (torch.zeros(2), "torch.float32"),
        (random.split(random.key(0), 3), "batch of keys"),
        (torch.zeros(3, dtype=torch.int32), r"shape \(3,\)"),
    ):
        with pytest.raises((TypeError, ValueError), match=match):
            entry.draw(bad, (2,))
