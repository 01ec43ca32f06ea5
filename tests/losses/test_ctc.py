"""CTC against torch, optax, and the sum over all readings."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from funcnet import losses, random

DOUBLE = torch.float64


def normal(seed, *shape, scale=1.0):
    return scale * random.normal(random.key(seed), shape, dtype=DOUBLE)


def integers(seed, high, *shape):
    return random.randint(random.key(seed), shape, 0, high).long()


def paddings(lengths, size):
    return (torch.arange(size) >= torch.as_tensor(lengths)[:, None]).double()


@given(seed=st.integers(0, 10**6), labels=st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_ctc_equals_torch_values_and_slopes(seed, labels):
    logits, targets = normal(seed, 3, 8, 5, scale=3.0), 1 + integers(seed + 1, 4, 3, 3)
    frames = [8, 7, 6]  # enough for three labels with blanks between
    wide = logits.clone().requires_grad_()
    want = F.ctc_loss(
        wide.log_softmax(-1).movedim(1, 0), targets, torch.tensor(frames), torch.tensor(labels), reduction="none"
    )
    mine = logits.clone().requires_grad_()
    got = losses.ctc_loss(mine, paddings(frames, 8), targets, paddings(labels, 3))
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    slopes = [torch.autograd.grad(value.sum(), leaf)[0] for value, leaf in ((got, mine), (want, wide))]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-7, atol=1e-9)


def test_ctc_is_the_sum_over_all_readings():
    logits, label = normal(4, 1, 4, 3), torch.tensor([[1, 1]])
    total = torch.zeros((), dtype=DOUBLE)
    for path in torch.cartesian_prod(*[torch.arange(3)] * 4):
        merged = [c for i, c in enumerate(path.tolist()) if i == 0 or c != path[i - 1]]
        if [c for c in merged if c] == [1, 1]:
            total = total + logits[0].softmax(-1)[torch.arange(4), path].prod()
    got = losses.ctc_loss(logits, torch.zeros(1, 4), label, torch.zeros(1, 2))
    torch.testing.assert_close(got, -total.log()[None])


def test_ctc_what_cannot_be_read_costs_much_and_has_finite_slopes():
    logits = normal(5, 1, 2, 4).requires_grad_()
    loss = losses.ctc_loss(logits, torch.zeros(1, 2), torch.tensor([[1, 1, 1]]), torch.zeros(1, 3))
    assert loss > 9e4
    assert torch.autograd.grad(loss.sum(), logits)[0].isfinite().all()


def test_ctc_forward_probabilities_equal_optax():
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    logits, labels, frames = normal(6, 2, 6, 4), 1 + integers(7, 3, 2, 3), paddings([6, 4], 6)
    with jax.enable_x64(True):
        values = (logits, frames, labels, paddings([3, 1], 3))
        want = optax.ctc_loss_with_forward_probs(*[jax.numpy.asarray(v.numpy()) for v in values])
    got = losses.ctc_loss_with_forward_probs(*values)
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(mine.numpy(), np.asarray(theirs), rtol=1e-9)
