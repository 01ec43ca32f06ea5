"""The laws of vectors and matrices, each by marginals whose law is known."""

import numpy as np
import pytest
import torch
from scipy import stats

from funcnet import grad, jit, random, vmap

N = 4000
ALPHA = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)
COV = torch.tensor([[2.0, 0.6], [0.6, 0.5]], dtype=torch.float64)

DRAWS = {
    "dirichlet": lambda key, shape: random.dirichlet(key, ALPHA, shape, torch.float64),
    "multivariate_normal": lambda key, shape: random.multivariate_normal(key, MEAN, COV, shape, torch.float64),
    "orthogonal": lambda key, shape: random.orthogonal(key, 3, shape, dtype=torch.float64),
}


def test_dirichlet_has_beta_marginals():
    x = DRAWS["dirichlet"](random.key(1), (N,))
    torch.testing.assert_close(x.sum(-1), torch.ones(N, dtype=torch.float64))
    for i, a in enumerate(ALPHA.tolist()):
        law = stats.beta(a, ALPHA.sum().item() - a)
        assert stats.kstest(x[:, i].numpy(), law.cdf).pvalue > 1e-3


def test_multivariate_normal_whitens():
    x = DRAWS["multivariate_normal"](random.key(2), (N,))
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(COV), (x - MEAN).T, upper=False)
    for row in white.numpy():
        assert stats.kstest(row, "norm").pvalue > 1e-3
    assert abs(torch.corrcoef(white)[0, 1]) < 4 / N**0.5


def test_orthogonal_matrices_are_uniform():
    q = DRAWS["orthogonal"](random.key(3), (N,))
    torch.testing.assert_close(q @ q.mT, torch.eye(3, dtype=torch.float64).expand(N, 3, 3))
    # An entry of a Haar orthogonal 3x3 matrix is uniform in [-1, 1] (Archimedes); half have determinant 1.
    for i, j in ((0, 0), (1, 2), (2, 2)):
        assert stats.kstest(q[:, i, j].numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert abs((torch.linalg.det(q) > 0).double().mean() - 0.5) < 4 * 0.5 / N**0.5


def test_multinomial_counts():
    p = torch.tensor([0.2, 0.5, 0.3])
    x = vmap(lambda key: random.multinomial(key, 20, p))(random.split(random.key(4), N))
    assert (x.sum(-1) == 20).all()
    counts = torch.bincount(x[:, 1].long(), minlength=21).double()
    expected = torch.from_numpy(stats.binom(20, 0.5).pmf(range(21))) * N
    keep = expected > 5
    chi2 = ((counts - expected)[keep] ** 2 / expected[keep]).sum().item()
    assert stats.chi2(int(keep.sum()) - 1).sf(chi2) > 1e-3


@pytest.mark.parametrize("name", DRAWS)
def test_vmap_jit_and_purity(name):
    draw = DRAWS[name]
    keys = random.split(random.key(5), 4)
    generator = torch.get_rng_state()
    loop = torch.stack([draw(key, (2,)) for key in keys])
    torch.testing.assert_close(vmap(lambda key: draw(key, (2,)))(keys), loop)
    torch.testing.assert_close(jit(lambda key: draw(key, (2,)), backend="aot_eager")(keys[0]), loop[0])
    assert torch.equal(generator, torch.get_rng_state())
    assert not torch.allclose(loop[0], loop[1])


def test_gradients_of_the_mean():
    # The mean of a Dirichlet is alpha / sum(alpha), of a normal its mean: the slope of averages over many draws.
    def average(alpha):
        return random.dirichlet(random.key(6), alpha, (20_000,), torch.float64)[:, 0].mean()

    total = ALPHA.sum()
    expected = (torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64) * total - ALPHA[0]) / total**2
    torch.testing.assert_close(grad(average)(ALPHA), expected, rtol=0.1, atol=0.01)

    def shifted(mean):
        return random.multivariate_normal(random.key(7), mean, COV, (5,), torch.float64).sum()

    torch.testing.assert_close(grad(shifted)(MEAN), torch.full((2,), 5.0, dtype=torch.float64))


def test_double_precision_is_right_to_an_ulp():
    # jax's own float64 logarithms are up to 128 ulp off, so here the reference is extended precision.
    u = random.uniform(random.key(7), (100_000,), torch.float64).numpy()
    x = random.exponential(random.key(7), (100_000,), torch.float64).numpy()
    exact = -np.log1p(-u.astype(np.longdouble))
    assert (np.abs(x - exact) / np.spacing(np.abs(x))).max() < 1
