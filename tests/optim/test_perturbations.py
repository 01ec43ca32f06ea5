"""Perturbed functions: optax's estimates, at the same keys; the functions that they estimate; errors."""

import numpy as np
import pytest
import torch

from funcnet import jit, random, vmap
from funcnet.optim import perturbations
from funcnet.transforms import grad, hessian, jacrev

KEY = random.key(7)
X = {"a": torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64), "b": torch.tensor(0.5, dtype=torch.float64)}


def step(x):
    """No slopes anywhere."""
    return (x["a"] > 0).double() * 2 + (x["b"] > 0.4).double()


@pytest.mark.parametrize("noise", ["Gumbel", "Normal"])
@pytest.mark.parametrize("baseline", [True, False])
def test_equals_optax_up_to_second_derivatives(noise, baseline):
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")

    def theirs_step(x):
        return (x["a"] > 0).astype(float) * 2 + (x["b"] > 0.4).astype(float)

    kwargs = {"num_samples": 50, "sigma": 0.4, "use_baseline": baseline}
    mine = perturbations.make_perturbed_fun(step, noise=getattr(perturbations, noise)(), **kwargs)
    with jax.enable_x64(True):
        theirs = optax.perturbations.make_perturbed_fun(
            theirs_step, noise=getattr(optax.perturbations, noise)(), **kwargs
        )
        key, x = jax.random.key(7), jax.tree.map(lambda v: jax.numpy.asarray(v.numpy()), X)
        value, slope = theirs(key, x), jax.jacrev(lambda x: theirs(key, x))(x)
        curve = jax.hessian(lambda a: theirs(key, {"a": a, "b": x["b"]}).sum())(x["a"])
    np.testing.assert_allclose(mine(KEY, X).numpy(), np.asarray(value), rtol=1e-9)
    got = jacrev(lambda x: mine(KEY, x))(X)
    for name in X:
        np.testing.assert_allclose(got[name].numpy(), np.asarray(slope[name]), rtol=1e-9, atol=1e-12)
    got = hessian(lambda a: mine(KEY, {"a": a, "b": X["b"]}).sum())(X["a"])
    np.testing.assert_allclose(got.numpy(), np.asarray(curve), rtol=1e-9, atol=1e-10)


def test_estimates_the_slope_of_the_smoothed_step():
    # E[z > -x / s] is the normal distribution function, whose slope is the density.
    x, sigma = torch.tensor(0.2, dtype=torch.float64), 0.5
    f = perturbations.make_perturbed_fun(lambda x: (x > 0).double(), 100_000, sigma, perturbations.Normal())
    law = torch.distributions.Normal(0.0, 1.0)
    assert abs(f(1, x) - law.cdf(x / sigma)) < 0.005
    assert abs(grad(lambda x: f(1, x))(x) - law.log_prob(x / sigma).exp() / sigma) < 0.02


def test_vmap_and_jit():
    f = perturbations.make_perturbed_fun(step, 20, 0.3)
    keys = random.split(KEY, 3)
    want = torch.stack([f(key, X) for key in keys])
    torch.testing.assert_close(vmap(lambda key: f(key, X))(keys), want)
    slope = jacrev(lambda x: f(KEY, x).sum())
    torch.testing.assert_close(jit(slope, backend="aot_eager")(X), slope(X))


def test_no_draws_are_an_error():
    with pytest.raises(ValueError, match="num_samples=0"):
        perturbations.make_perturbed_fun(step, 0)
