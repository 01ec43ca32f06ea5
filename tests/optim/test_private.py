"""Differentially private gradients: those of optax at the same key, and by hand."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from funcnet import optim, random, tree, vmap

sys.path.insert(0, str(Path(__file__).parent))
from running import close

EXAMPLES = 5
PARAMS = {
    "b": random.normal(random.key(0), (3,), torch.float64),
    "w": random.normal(random.key(1), (2, 3), torch.float64),
}


def gradients(step):
    """Five examples' gradients, the first of them long."""
    keys = random.split(random.key(10 + step), 2)
    drawn = {
        "b": random.normal(keys[0], (EXAMPLES, 3), torch.float64),
        "w": random.normal(keys[1], (EXAMPLES, 2, 3), torch.float64),
    }
    return tree.map(lambda g: g * torch.tensor([30.0, 1, 0.1, 1, 2]).reshape(-1, *[1] * (g.ndim - 1)), drawn)


@pytest.mark.filterwarnings("ignore:.seed. is deprecated:DeprecationWarning")  # by optax, of its own argument
@pytest.mark.parametrize("momentum", [None, 0.9])
@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_equals_optax_at_the_same_key(noise, momentum):
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
    arguments = (0.1, 1.5, noise, 3, momentum)
    with jax.enable_x64(True):
        ours, theirs = optim.contrib.dpsgd(*arguments), optax.contrib.dpsgd(*arguments)
        mine, other = ours.init(PARAMS), theirs.init(tree.map(lambda p: jax.numpy.array(p.numpy()), PARAMS))
        for step in range(4):
            got, mine = ours.update(gradients(step), mine, PARAMS)
            given = tree.map(lambda g: jax.numpy.array(g.numpy()), gradients(step))
            want, other = theirs.update(given, other)
            for name in PARAMS:
                np.testing.assert_allclose(got[name].numpy(), np.asarray(want[name]), rtol=1e-9, atol=1e-12)


def test_without_noise_it_is_the_mean_of_clipped_gradients():
    rule = optim.contrib.differentially_private_aggregate(2.0, 0.0, key=0)
    given = gradients(0)
    got, _ = rule.update(given, rule.init(PARAMS), PARAMS)
    clipped = []
    for i in range(EXAMPLES):
        one = tree.map(lambda g, i=i: g[i], given)
        shorter = torch.clamp(2.0 / tree.global_norm(one), max=1.0)
        clipped.append(tree.map(lambda g, s=shorter: g * s, one))
    close(got, tree.map(lambda g: g.mean(0), tree.stack(clipped)), rtol=1e-12, atol=1e-14)


def test_noise_is_new_at_every_step_and_for_every_member():
    rule = optim.contrib.differentially_private_aggregate(2.0, 1.0, key=random.key(4))
    state = rule.init(PARAMS)
    first, after = rule.update(gradients(0), state, PARAMS)
    again, _ = rule.update(gradients(0), state, PARAMS)
    second, _ = rule.update(gradients(0), after, PARAMS)
    close(first, again, rtol=0, atol=0)
    assert not torch.equal(first["w"], second["w"])
    states = vmap(lambda key: state._replace(rng_key=key))(random.split(random.key(5), 3))
    members = vmap(lambda state: rule.update(gradients(0), state, PARAMS)[0])(states)
    assert len(set(members["w"][:, 0, 0].tolist())) == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_half_precision_is_rounded_once(dtype, noise):
    rule = optim.contrib.differentially_private_aggregate(3.0, noise, key=0)
    given = {"w": (100 * random.normal(random.key(1), (300, 2000))).to(dtype)}
    got, _ = rule.update(given, rule.init(None))
    wide, _ = rule.update(tree.map(torch.Tensor.float, given), rule.init(None))
    assert got["w"].dtype == dtype
    assert torch.equal(got["w"], wide["w"].to(dtype))
    sums, _ = optim.per_example_global_norm_clip(given, 3.0)
    assert torch.equal(sums["w"], optim.per_example_global_norm_clip({"w": given["w"].float()}, 3.0)[0]["w"].to(dtype))


def test_the_sum_of_float16_may_pass_its_range():
    rule = optim.contrib.differentially_private_aggregate(1000.0, 0.0, key=0)
    got, _ = rule.update({"w": torch.full((100, 1), 1000.0, dtype=torch.float16)}, rule.init(None))
    assert got["w"].item() == 1000


def test_errors():
    with pytest.raises(ValueError, match="needs one key"):
        optim.contrib.differentially_private_aggregate(1.0, 1.0)
    rule = optim.contrib.differentially_private_aggregate(1.0, 1.0, key=0)
    with pytest.raises(ValueError, match=r"(?i)example"):
        rule.update({"w": torch.tensor(1.0)}, rule.init(None))
