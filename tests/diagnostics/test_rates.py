"""Sweeps of learning rates, on a quadratic whose stable rates are known, and against loops."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from funcnet import Model, jit, optim, random, tree
from funcnet.diagnostics import draw_rates, find_rate, try_rates
from funcnet.train import make_step

KEY = random.key(5)


def quadratic(curvature):
    def loss(params, state, batch, key):
        return 0.5 * curvature * (params["w"] - batch).square().sum(), (state, {})

    return loss


START = {"w": random.normal(KEY, (3,)) + 4}
ZERO = [torch.zeros(3)]


def regression():
    """A small net on rows that a linear map made, with dropout."""
    net = Model(lambda: nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.2)))
    keys = random.split(KEY, 3)
    params, state = net.init(keys[0])
    batches = list(random.normal(keys[1], (4, 16, 3)))

    def loss(params, state, batch, key):
        out, state = net.apply(params, state, batch, key=key, train=True)
        return (out.sum(1) - batch.sum(1)).square().mean(), (state, {})

    return loss, params, state, keys[2], batches


@given(log=st.floats(-3, 3), momentum=st.sampled_from([None, 0.5]))
def test_a_quadratic_explodes_beyond_its_stable_rates(log, momentum):
    curvature = 10.0**log
    limit = (2 if momentum is None else 2 * (1 + momentum)) / curvature
    sgd = partial(optim.sgd, momentum=momentum)
    sweep = find_rate(quadratic(curvature), sgd, START, {}, KEY, ZERO, low=1e-3 * limit, high=1e3 * limit)
    assert sweep.suggestion < limit < sweep.rates[-1] < 1e3 * limit
    assert sweep.suggestion > 0.01 * limit
    assert "the loss explodes at" in sweep.note
    after = sweep.losses[sweep.rates > 1.5 * limit]
    assert len(after)
    assert (after.diff() > 0).all()


def test_losses_are_those_of_a_loop_and_the_mean_is_corrected():
    loss, params, state, key, batches = regression()
    sweep = find_rate(loss, optim.adam, params, state, key, batches, low=1e-4, high=1e-1, steps=10, smoothing=0.8)
    rates = [1e-4 * 1000 ** (i / 9) for i in range(10)]
    ts = make_step(loss, optim.adam(1.0)).init(params, state, key)
    for i, rate in enumerate(rates):
        ts, metrics = make_step(loss, optim.adam(rate))(ts, batches[i % 4])
        torch.testing.assert_close(sweep.losses[i].float(), metrics["loss"])
        weights = torch.tensor([0.8 ** (i - j) for j in range(i + 1)], dtype=torch.float64)
        torch.testing.assert_close(sweep.smoothed[i], (weights * sweep.losses[: i + 1]).sum() / weights.sum())
    torch.testing.assert_close(sweep.rates, torch.tensor(rates, dtype=torch.float64))


def test_the_suggestion_is_where_the_smoothed_loss_falls_steepest():
    loss, params, state, key, batches = regression()
    sweep = find_rate(loss, optim.sgd, params, state, key, batches, low=1e-5)
    place = sweep.rates.tolist().index(sweep.suggestion)
    lowest = int(sweep.smoothed.argmin())
    falls = [float(sweep.smoothed[i + 1] - sweep.smoothed[i]) for i in range(10, lowest)]
    assert 10 <= place < lowest
    assert falls[place - 10] == min(falls) < 0


def test_one_program_serves_all_rates_and_may_donate():
    loss, params, state, key, batches = regression()
    made = []

    def compiled(step):
        made.append(jit(step, donate=0, backend="aot_eager"))
        return made[0]

    plain, other = (
        find_rate(loss, optim.adamw, params, state, key, lambda epoch: batches, steps=20, compile=c)
        for c in (None, compiled)
    )
    torch.testing.assert_close(other.losses, plain.losses, rtol=1e-5, atol=1e-6)
    assert made[0].compiles == 1
    find_rate(loss, optim.adamw, params, state, key, batches, steps=20)  # nothing was consumed


def test_epochs_are_counted():
    seen = []

    def epoch(number):
        seen.append(number)
        return [torch.zeros(3)] * 4

    find_rate(quadratic(1.0), optim.sgd, START, {}, KEY, epoch, steps=10, high=1e-3, low=1e-5)
    assert seen == [0, 1, 2]


def test_where_the_loss_does_not_fall_there_is_no_suggestion():
    noise = list(random.normal(KEY, (50, 3)))

    def flat(params, state, batch, key):
        return (params["w"] * 0).sum() + batch.sum(), (state, {})

    sweep = find_rate(flat, optim.sgd, START, {}, KEY, noise, steps=50)
    assert sweep.suggestion is None
    assert "within its noise" in sweep.note
    assert str(sweep).startswith("no suggestion: the loss falls by")

    def broken(params, state, batch, key):
        return params["w"].sum().log() * math.nan, (state, {})

    sweep = find_rate(broken, optim.sgd, START, {}, KEY, noise)
    assert len(sweep.losses) == 0
    assert sweep.note == "0 finite losses are too few to tell: start at a lower rate; the loss is nan at 1e-06."


def test_noise_around_zero_is_no_explosion():
    keys = random.split(KEY, 100)
    heavy = [0.01 * random.exponential(k, ()) ** 3 for k in keys]

    def loss(params, state, batch, key):
        return params["w"].square().sum() * 0 + batch, (state, {})

    sweep = find_rate(loss, optim.sgd, START, {}, KEY, heavy)
    assert len(sweep.losses) == 100
    assert "it reached 10" in sweep.note


def test_a_negative_loss_is_swept_like_another():
    def shifted(params, state, batch, key):
        value, aux = quadratic(1.0)(params, state, batch, key)
        return value - 100, aux

    sweep = find_rate(shifted, optim.sgd, START, {}, KEY, ZERO, low=1e-3)
    assert 0.05 < sweep.suggestion < 2 < sweep.rates[-1]


@pytest.mark.parametrize("optimizer", [optim.sgd, optim.adamw, partial(optim.sgd, momentum=0.9)])
@pytest.mark.parametrize("compiled", [False, True])
def test_rates_side_by_side_are_runs_by_themselves(optimizer, compiled):
    loss, params, state, key, batches = regression()
    rates = torch.tensor([1e-3, 1e-2, 0.3])

    def all_of_it(params, state, key, batches, rates):
        return try_rates(loss, optimizer, params, state, key, batches, rates, steps=6)

    run = jit(all_of_it, backend="aot_eager") if compiled else all_of_it
    found = run(params, state, key, batches, rates)
    assert found.shape == (3, 6)
    for row, rate in zip(found, rates, strict=True):
        step = make_step(loss, optimizer(float(rate)))
        ts = step.init(params, state, key)
        for i in range(6):
            ts, metrics = step(ts, batches[i % 4])
            torch.testing.assert_close(row[i], metrics["loss"], rtol=1e-4, atol=1e-5)


def test_rates_take_batches_that_are_trees_and_options_of_the_step():
    def loss(params, state, batch, key):
        return (params["w"] @ batch["x"] - batch["y"]).square(), (state, {})

    batches = [{"x": random.normal(random.fold_in(KEY, i), (3,)), "y": torch.tensor(float(i))} for i in range(2)]
    found = try_rates(loss, optim.sgd, START, {}, KEY, batches, [1e-3], steps=5, clip=1e-6)
    free = try_rates(loss, optim.sgd, START, {}, KEY, batches, [1e-3], steps=5)
    torch.testing.assert_close(found[0, 2:4], found[0, :2], rtol=1e-4, atol=0)  # it hardly moves
    assert free[0, 4] < 0.99 * found[0, 4]


def test_pictures():
    sweep = find_rate(quadratic(1.0), optim.sgd, START, {}, KEY, ZERO, low=1e-3)
    (axes,) = draw_rates(sweep).axes
    raw, smooth, mark = axes.lines
    assert axes.get_xscale() == "log"
    assert raw.get_ydata().tolist() == sweep.losses.tolist()
    assert smooth.get_ydata().tolist() == sweep.smoothed.tolist()
    assert mark.get_xdata()[0] == sweep.suggestion
    assert len(draw_rates(sweep._replace(suggestion=None)).axes[0].lines) == 2
    losses = torch.tensor([[3.0, math.inf], [1.0, 0.5]])
    (axes,) = draw_rates([0.1, 0.01], losses).axes
    assert [line.get_xdata().tolist() for line in axes.lines] == [pytest.approx([0.01, 0.1])] * 2
    assert [line.get_ydata().tolist()[0] for line in axes.lines] == [1.0, 0.5]


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"optimizer": optim.sgd(0.1)}, TypeError, r"write optim\.adamw rather than optim\.adamw\(1e-3\)"),
        ({"low": 1.0, "high": 0.1}, ValueError, r"low=1\.0 and high=0\.1"),
        ({"low": 0.0}, ValueError, r"0 < low < high"),
        ({"steps": 3}, ValueError, r"steps=3: a sweep takes an int of at least 10"),
        ({"smoothing": 1.0}, ValueError, r"smoothing=1\.0: it is the decay"),
        ({"explosion": 0.0}, ValueError, r"explosion=0\.0"),
        ({"batches": []}, ValueError, r"epoch 0 has no batch"),
        ({"batches": (x for x in ZERO)}, ValueError, r"epoch 1 has no batch\. A generator is spent"),
    ],
)
def test_wrong_arguments(changed, error, message):
    given = {"optimizer": optim.sgd, "batches": ZERO} | changed
    with pytest.raises(error, match=message):
        find_rate(quadratic(1.0), given.pop("optimizer"), START, {}, KEY, given.pop("batches"), **given)


def test_wrong_arguments_of_several_rates():
    run = partial(try_rates, quadratic(1.0))
    with pytest.raises(TypeError, match=r"write optim\.adamw rather"):
        run(optim.sgd(0.1), START, {}, KEY, ZERO, [0.1], steps=2)
    with pytest.raises(ValueError, match=r"rates has shape \(\); try_rates takes several"):
        run(optim.sgd, START, {}, KEY, ZERO, torch.tensor(0.1), steps=2)
    with pytest.raises(ValueError, match=r"steps is 0"):
        run(optim.sgd, START, {}, KEY, ZERO, [0.1], steps=0)
    with pytest.raises(TypeError, match=r"draw_rates\(sweep\) of find_rate, or draw_rates\(rates, losses\)"):
        draw_rates([0.1])
    with pytest.raises(ValueError, match=r"2 rates and losses of shape \(1, 3\)"):
        draw_rates([0.1, 0.2], torch.ones(1, 3))


def test_what_is_given_stays():
    loss, params, state, key, batches = regression()
    before = tree.map(torch.clone, (params, state, key, batches))
    find_rate(loss, optim.adamw, params, state, key, batches, steps=12)
    for a, b in zip(tree.leaves(before), tree.leaves((params, state, key, batches)), strict=True):
        assert torch.equal(a, b)
