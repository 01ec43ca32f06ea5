"""The loss scale: torch's GradScaler step by step, and its laws."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from funcnet import grad, jit, random, tree, vmap
from funcnet.train import LossScale

rounds = st.lists(st.booleans(), max_size=40)
powers = st.integers(-8, 20).map(lambda n: 2.0**n)


def reference(finite, start, growth, backoff, interval):
    """What torch's scaler says its scale is after each step, and which steps it took."""
    w = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.125)
    scaler = torch.amp.GradScaler(
        "cpu", init_scale=start, growth_factor=growth, backoff_factor=backoff, growth_interval=interval
    )
    scales, weights = [], []
    for good in finite:
        optimizer.zero_grad()
        scaler.scale((w * (1.0 if good else math.inf)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
        weights.append(w.detach().clone())
    return scales, weights


@given(
    finite=rounds,
    start=powers,
    growth=st.sampled_from([2.0, 4.0]),
    backoff=st.sampled_from([0.5, 0.25]),
    interval=st.integers(1, 5),
)
def test_step_by_step_as_torchs(finite, start, growth, backoff, interval):
    state, w = LossScale.create(start), torch.ones(3)
    scales, weights = reference(finite, start, growth, backoff, interval)
    for good, scale, weight in zip(finite, scales, weights, strict=True):
        factor = torch.tensor(1.0 if good else math.inf)
        grads = state.unscale(grad(lambda w, s=state, f=factor: s.multiply((w * f).sum()))(w))
        ok = state.finite(grads)
        assert ok.item() is good
        w = torch.where(ok, w - 0.125 * grads, w)
        state = state.adjust(ok, growth=growth, backoff=backoff, interval=interval, floor=2.0**-126, ceiling=2.0**126)
        assert state.scale.item() == scale
        assert torch.equal(w, weight)


@given(finite=rounds, start=powers, interval=st.integers(1, 3))
def test_laws(finite, start, interval):
    state = LossScale.create(start)
    row = 0
    for good in finite:
        old, state = state, state.adjust(torch.tensor(good), interval=interval, floor=2.0**-2, ceiling=2.0**10)
        row = row + 1 if good else 0
        assert 2.0**-2 <= state.scale <= 2.0**10
        assert math.frexp(state.scale.item())[0] == 0.5
        assert state.good_steps == row % interval
        inside = 2.0**-2 <= old.scale <= 2.0**10
        if inside and good and row % interval:
            assert state.scale == old.scale
        if inside and not good:
            assert state.scale == max(old.scale / 2, 2.0**-2)


def test_unscale_gives_the_bits_of_the_unscaled_gradients():
    w = {"a": random.normal(random.key(0), (5,)), "b": random.normal(random.key(1), (2, 3), torch.float64)}

    def loss(w):
        return w["a"].sin().sum() + w["b"].exp().sum().float()

    for scale in (2.0**-3, 2.0**15):
        state = LossScale.create(scale)
        found = state.unscale(grad(lambda w, s=state: s.multiply(loss(w)))(w))
        tree.map(lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=0), found, grad(loss)(w))
    half = random.normal(random.key(2), (7,)).half() * 2.0**-10
    scaled = LossScale.create(2.0**8)
    assert torch.equal(scaled.unscale(half * 2.0**8), half)
    assert LossScale.create(2.0**20).unscale(half).dtype == torch.float16
    counts = {"n": torch.tensor(3), "name": "w"}
    assert scaled.unscale(counts) == counts


def test_half_precision_losses_do_not_overflow_and_small_gradients_survive():
    state = LossScale.create()
    assert torch.isfinite(state.multiply(torch.tensor(60_000.0, dtype=torch.float16)))
    x = torch.tensor(2.0**-20)

    def loss(w):  # the gradient of w.half() is a float16 number under its smallest
        return (w.half() * x.half()).float() * 2.0**-10

    w = torch.tensor(1.0)
    assert grad(loss)(w) == 0
    assert state.unscale(grad(lambda w: state.multiply(loss(w)))(w)) == 2.0**-30


def test_traced_and_mapped():
    state = LossScale.create(8.0)
    step = jit(lambda s, g: s.adjust(s.finite(s.unscale(g)), interval=2), backend="aot_eager")
    for value in (1.0, math.nan, 1.0, 1.0, math.inf):
        grads = {"w": torch.tensor([1.0, value])}
        expected = state.adjust(state.finite(state.unscale(grads)), interval=2)
        state = step(state, grads)
        assert tuple(state) == tuple(expected)
    assert step.compiles == 1
    many = LossScale(torch.tensor([2.0, 4.0]), torch.tensor([0, 1], dtype=torch.int32))
    found = vmap(lambda s, ok: s.adjust(ok, interval=2))(many, torch.tensor([False, True]))
    assert found.scale.tolist() == [1.0, 8.0]
    assert found.good_steps.tolist() == [0, 0]


def test_an_empty_tree_is_finite():
    assert LossScale.create().finite({})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"growth": 3.0}, r"growth=3\.0, which is no power of two"),
        ({"growth": 0.5}, r"It needs growth above 1"),
        ({"backoff": 2.0}, r"backoff under 1"),
        ({"backoff": 0.0}, r"backoff=0\.0, which is no power of two"),
        ({"interval": 0}, r"one step at least"),
        ({"floor": 4.0, "ceiling": 2.0}, r"a floor under the ceiling"),
        ({"ceiling": math.inf}, r"ceiling=inf, which is no power of two"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LossScale.create().adjust(torch.tensor(True), **arguments)
    with pytest.raises(ValueError, match=r"scale=1000\.0, which is no power of two"):
        LossScale.create(1000.0)
