"""Half precision inside a step: master weights, a scale that adjusts itself, loss curves beside float32's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from funcnet import Model, jit, make_step, optim, random, tree
from funcnet.train import LossScale, Precision

KEY = random.key(8)
MODEL = Model(lambda: nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 3)))
X = random.normal(KEY, (64, 6))
LABEL = X[:, :3].argmax(1)


def loss(params, state, batch, key):
    x, label = batch
    logits, state = MODEL.apply(params, state, x, train=True)
    return F.cross_entropy(logits.float(), label), (state, {"seen": logits.sum() * 0 + logits.element_size()})


def run(steps=60, compiled=False, **options):
    step = make_step(loss, optim.adam(1e-2), **options)
    ts = step.init(*MODEL.init(KEY), KEY)
    go = jit(step, donate=0, backend="aot_eager") if compiled else step
    losses = []
    for _ in range(steps):
        ts, metrics = go(ts, (X, LABEL))
        losses.append(metrics["loss"])
    return ts, torch.stack(losses), metrics


@pytest.mark.parametrize(("name", "bytes"), [("bfloat16", 2), ("float16", 2), ("autocast-bfloat16", 2), ("float32", 4)])
@pytest.mark.parametrize("compiled", [False, True])
def test_losses_stay_beside_those_of_float32(name, bytes, compiled):
    _, reference, _ = run()
    scale = {"loss_scale": LossScale.create()} if name == "float16" else {}
    ts, losses, metrics = run(precision=name, compiled=compiled, **scale)
    assert metrics["seen"] == bytes
    assert losses.dtype == torch.float32
    assert {leaf.dtype for leaf in tree.leaves((ts.params, ts.opt_state)) if leaf.is_floating_point()} == {
        torch.float32
    }
    assert reference[-1] < 0.5 * reference[0]
    assert_close(losses, reference, rtol=0.05, atol=0.02)


def test_without_a_policy_dtypes_stay():
    step = make_step(loss, optim.sgd(0.1))
    params = tree.cast(MODEL.init(KEY)[0], torch.bfloat16)
    ts, _ = step(step.init(params, {}, KEY), (X.bfloat16(), LABEL))
    assert {leaf.dtype for leaf in ts.params.values()} == {torch.bfloat16}


@pytest.mark.parametrize("parts", [1, 4])
def test_a_scaled_step_is_the_plain_one(parts):
    plain, losses, _ = run(5, accumulate=parts)
    scaled, told, _ = run(5, accumulate=parts, loss_scale=LossScale.create(2.0**10))
    assert_close(told, losses)
    assert_close(scaled.params, plain.params)
    assert scaled.scale.scale == 2.0**10
    assert int(scaled.scale.good_steps) == 5


@pytest.mark.parametrize("compiled", [False, True])
def test_a_scale_that_overflows_comes_down_and_its_steps_are_skipped(compiled):
    ts, losses, _ = run(12, precision="float16", loss_scale=LossScale.create(2.0**24), compiled=compiled)
    assert 0 < int(ts.skipped) < 12
    assert ts.scale.scale == 2.0 ** (24 - int(ts.skipped))
    assert bool((losses[: int(ts.skipped)] == losses[0]).all())
    assert losses[-1] < losses[0]


def test_a_policy_of_ones_own_keeps_parameters_in_half_precision():
    step = make_step(loss, optim.sgd(0.1), precision=Precision(param=torch.bfloat16, compute=torch.bfloat16))
    ts = step.init(*MODEL.init(KEY), KEY)
    ts, _ = step(ts, (X, LABEL))
    assert {leaf.dtype for leaf in ts.params.values()} == {torch.bfloat16}
    with pytest.raises(ValueError, match=r"Did you mean 'bfloat16'\?"):
        make_step(loss, optim.sgd(0.1), precision="bfloat")


@pytest.mark.parametrize("compiled", [False, True])
def test_the_average_of_half_precision_parameters_moves(compiled):
    step = make_step(lambda params, *_: (params["w"].sum(), ({}, {})), optim.sgd(0.25), ema=0.999)
    go = jit(step, donate=0, backend="aot_eager") if compiled else step
    params = {"w": torch.full((3,), 4.0, dtype=torch.bfloat16)}
    ts = step.init(tree.map(torch.clone, params), {}, KEY)
    expected = params["w"].double()
    for n in range(1, 9):
        ts, _ = go(ts, None)
        expected = expected + 0.001 * (4 - 0.25 * n - expected)
    assert ts.average["w"].dtype == torch.float32
    assert_close(ts.average["w"].double(), expected, rtol=1e-6, atol=0)
    assert ts.averaged["w"].dtype == torch.bfloat16
    assert_close(ts.averaged["w"], ts.average["w"].bfloat16())
