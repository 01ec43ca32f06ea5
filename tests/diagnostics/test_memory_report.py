"""Memory by phase, against formulas: every byte of an MLP's step is known."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from funcnet import Model, jit, make_step, optim, random, tree
from funcnet.diagnostics import memory_report

KEY = random.key(3)
SMALL = 64  # bytes of scalars: losses, counts, keys


def problem(rows, sizes, optimizer, **options):
    def built():
        pairs = itertools.pairwise(sizes)
        layers = [layer for pair in pairs for layer in (nn.Linear(*pair), nn.Tanh())]
        return nn.Sequential(*layers)

    net = Model(built)

    def loss(params, state, batch, key):
        out, state = net.apply(params, state, batch, key=key, train=True)
        return out.sum(), (state, {})

    step = make_step(loss, optimizer, **options)
    params, state = net.init(KEY)
    return step, step.init(params, state, KEY), random.normal(KEY, (rows, sizes[0]))


@settings(max_examples=8)  # a recording takes a while to start
@given(rows=st.integers(1, 300), sizes=st.lists(st.integers(1, 300), min_size=2, max_size=4))
def test_an_mlp_is_its_formula(rows, sizes):
    step, ts, batch = problem(rows, sizes, optim.adam(1e-3))
    report = memory_report(step, ts, batch)
    count = sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    assert report.held["parameters"] == 4 * count
    assert report.held["optimizer state"] == 2 * 4 * count + 4
    assert report.held["batch"] == 4 * rows * sizes[0]
    # Each tanh keeps its output, which is the input of the next layer too.
    assert 0 <= report.kept - 4 * rows * sum(sizes[1:]) <= SMALL
    assert 0 <= report.phases["backward"].left - 4 * count <= SMALL
    assert 0 <= report.phases["update"].left - 3 * 4 * count <= SMALL
    assert report.phases["forward"].peak >= report.kept
    assert report.peak == sum(report.held.values()) + max(phase.peak for phase in report.phases.values())


def test_donating_leaves_nothing_and_the_arguments_stay():
    step, ts, batch = problem(32, [64, 64, 8], optim.adamw(1e-3), donate=True)
    before = tree.map(torch.clone, ts)
    report = memory_report(step, ts, batch)
    assert report.phases["update"].left <= SMALL
    assert report.peak < memory_report(*problem(32, [64, 64, 8], optim.adamw(1e-3))).peak
    for a, b in zip(tree.leaves(before), tree.leaves(ts), strict=True):
        assert torch.equal(a, b)


def test_parts_of_a_batch_keep_a_part():
    whole = memory_report(*problem(256, [32, 256, 8], optim.sgd(0.1)))
    parts = memory_report(*problem(256, [32, 256, 8], optim.sgd(0.1), accumulate=8))
    weights = 4 * ((32 + 1) * 256 + (256 + 1) * 8)
    activations = 4 * 256 * (256 + 8)
    assert whole.kept >= activations
    # One part's activations, and at most the sum of the gradients so far and those of each part.
    assert parts.kept <= activations / 8 + 8 * weights + SMALL * 8
    assert parts.kept < whole.kept + 8 * weights


def test_a_step_of_ones_own_and_shared_memory():
    def step(w, batch):
        with torch.enable_grad():
            leaf = w["a"].detach().requires_grad_()
            (gradient,) = torch.autograd.grad((leaf * batch).exp().sum(), leaf)
        return {"a": w["a"] - gradient, "b": w["b"]}, {}

    shared = torch.ones(1000)
    report = memory_report(step, {"a": shared, "b": shared[:10]}, torch.ones(1000))
    assert report.held == {"state": 4000, "batch": 4000}  # shared memory counts once
    assert list(report.phases) == ["forward", "backward", "update"]
    assert 0 <= report.kept - 4000 <= SMALL  # exp keeps its output; the product keeps what was given
    assert report.phases["update"].left == 4000


def test_a_compiled_step_is_one_phase():
    step, ts, batch = problem(8, [16, 4], optim.sgd(0.1))
    report = memory_report(jit(step, donate=0, backend="aot_eager"), ts, batch)
    assert list(report.phases) == ["step"]
    assert report.kept == 0
    assert report.phases["step"].peak > 0


def test_the_table():
    lines = [
        " ".join(one.split()) for one in str(memory_report(*problem(100, [250, 100], optim.adam(1e-3)))).splitlines()
    ]
    assert lines[:3] == ["held bytes", "parameters 100 kB", "optimizer state 201 kB"]
    assert [line.split()[0] for line in lines if line][-5:] == ["beyond", "forward", "backward", "update", "peak"]
    assert lines[-1].endswith("in the update")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_it_is_the_allocators_count():
    step, ts, batch = (
        tree.to(part, "cuda") if not callable(part) else part
        for part in problem(256, [512, 512, 512], optim.adam(1e-3))
    )
    report = memory_report(step, ts, batch)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(ts, batch)
    peak = torch.cuda.max_memory_allocated() - before
    assert max(phase.peak for phase in report.phases.values()) == pytest.approx(peak, rel=0.05)
