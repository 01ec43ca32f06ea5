"""The first operation that is not finite: named at the line and in the layer where it was planted."""

import inspect
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from funcnet import Model, data, grad, hessian, jit, make_step, optim, random, scan, tree, value_and_grad, vmap
from funcnet.diagnostics import AnomalyError, anomaly
from funcnet.diagnostics.places import Place

KEY = random.key(13)
LAYERS = 4


class Faulty(nn.Module):
    """A layer whose fault depends on what it is built with."""

    def __init__(self, fault):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.fault = fault

    def forward(self, x):
        x = self.linear(x)
        if self.fault == "log":
            return torch.log(x - x.amax())  # line of the log
        if self.fault == "backward":
            return (x - x.detach()).abs().sum(-1, keepdim=True).sqrt() + x  # line of the root
        return x.tanh()


def line_of(text):
    lines, start = inspect.getsourcelines(Faulty)
    return start + next(i for i, line in enumerate(lines) if text in line)


def problem(faults, optimizer=None, **options):
    net = Model(lambda: nn.Sequential(*(nn.Sequential(Faulty(fault), nn.ReLU()) for fault in faults)))

    def loss(params, state, batch, key):
        out, state = net.apply(params, state, batch, key=key, train=True)
        return out.square().mean(), (state, {})

    step = make_step(loss, optimizer or optim.adamw(1e-2), **options)
    return step, step.init(*net.init(KEY), KEY), random.normal(KEY, (5, 3))


def caught(f, *args, **kwargs):
    with pytest.raises(AnomalyError) as info:
        anomaly(f, **kwargs)(*args)
    return info.value


@given(place=st.integers(0, LAYERS - 1))
def test_a_planted_log_is_named_with_its_layer_and_line(place):
    step, ts, batch = problem(["log" if i == place else None for i in range(LAYERS)])
    error = caught(step, ts, batch)
    assert error.operation == "log"
    assert error.backward is None
    assert error.place.module == f"{place}.0"
    assert error.place.kind == "Faulty"
    assert Path(error.place.file) == Path(__file__)
    assert error.place.line == line_of("# line of the log")
    assert f"in submodule '{place}.0' (Faulty), at" in str(error)
    assert "input 0: float32 (5, 3), from -" in str(error)


@given(place=st.integers(0, LAYERS - 1))
def test_a_planted_root_is_named_in_the_backward(place):
    step, ts, batch = problem(["backward" if i == place else None for i in range(LAYERS)])
    assert math.isfinite(step(ts, batch)[1]["loss"])
    error = caught(step, ts, batch)
    assert error.backward == "SqrtBackward0"
    assert error.place.module == f"{place}.0"
    assert error.place.line == line_of("# line of the root")
    assert "in the backward pass (SqrtBackward0) of what was called in submodule" in str(error)


@pytest.mark.parametrize("optimizer", [optim.adamw(1e-2), optim.sgd(0.1, momentum=0.9), optim.lion(1e-3)])
@pytest.mark.parametrize("options", [{}, {"clip": 1.0, "ema": 0.9}, {"accumulate": 5}])
def test_where_all_is_finite_it_is_the_step_to_the_bit(optimizer, options):
    step, ts, batch = problem([None, None], optimizer, **options)
    for a, b in zip(tree.leaves(step(ts, batch)), tree.leaves(anomaly(step)(ts, batch)), strict=True):
        assert torch.equal(a, b)


def root(x):
    return x.square().sum().sqrt()


@pytest.mark.parametrize(
    "transformed",
    [
        grad(root),
        value_and_grad(root),
        grad(lambda x: grad(root)(x).sum()),
        lambda x: vmap(grad(root))(x.expand(3, 2)),
        lambda x: grad(lambda x: vmap(root)(x.expand(3, 2)).sum())(x),
        hessian(root),
        jit(grad(root), backend="aot_eager"),
        torch.func.grad(root),
    ],
)
def test_under_transforms(transformed):
    assert tree.leaves(anomaly(transformed)(torch.ones(2)))
    error = caught(transformed, torch.zeros(2))
    assert error.place.line == inspect.getsourcelines(root)[1] + 1
    assert Path(error.place.file) == Path(__file__)


def test_the_second_backward_is_that_of_the_same_line():
    def f(x):
        y = x.abs()
        y = y.pow(1.5)  # whose first derivative is finite at 0, and the second is not
        y = y.sum()
        return y + x.sum()

    def slope(x):
        return grad(f)(x).sum()

    x = torch.tensor([0.0, 1.0])
    assert torch.isfinite(anomaly(grad(f))(x)).all()
    error = caught(grad(slope), x)
    assert error.backward == "PowBackward0"
    assert error.place.line == inspect.getsourcelines(f)[1] + 2


def test_in_a_scan():
    def run(x):
        return scan(lambda carry, x: (carry * x, carry), torch.tensor(1.0), x)

    assert caught(run, torch.tensor([2.0, 1e38, 1e3, 1.0])).operation == "mul"


def test_masks_are_no_alarm_until_they_are_nan():
    scores = random.normal(KEY, (2, 4))
    mask = torch.tensor([[True, False, True, False], [False] * 4])

    def attend(scores, mask):
        bias = torch.full_like(scores, -math.inf).masked_fill(~mask, 0.0)
        scores = torch.cat([scores + bias, torch.where(mask, -torch.inf, scores)], 1)
        return scores.clone()[:, 1:].softmax(-1).amax(-1), torch.logsumexp(scores, -1)

    for a, b in zip(attend(scores, mask), anomaly(attend)(scores, mask), strict=True):
        assert torch.equal(a, b)
    error = caught(attend, scores, torch.ones_like(mask))
    assert error.operation == "_softmax"
    assert "12 not finite" not in str(error)
    assert "gave nan" in str(error)
    assert "not finite" in str(error)
    q = random.normal(KEY, (1, 2, 4, 8))
    anomaly(lambda q: nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True))(q)


def test_missing_values_that_are_left_out_are_no_alarm():
    x = torch.tensor([1.0, math.nan, 3.0])

    def mean(x):
        known = ~torch.isnan(x)
        return torch.where(known, x, 0).sum() / known.sum() + x[known].mean() + x.nan_to_num().sum()

    assert anomaly(mean)(x) == 2 + 2 + 4
    assert caught(lambda x: x + 1, x).operation == "add"


def test_infinities_that_are_meant():
    mask = torch.tensor([0.0, 1.0])
    assert caught(torch.log, mask).operation == "log"
    assert anomaly(torch.log, allow=("log",))(mask)[0] == -math.inf
    assert "gave inf" in str(caught(torch.reciprocal, torch.zeros(1)))


def test_overflow_of_a_cast_and_of_a_write():
    assert caught(lambda x: x.half(), torch.tensor([1e6])).operation == "_to_copy"

    def write(x):
        y = x.clone()
        y.mul_(1e30)
        return y

    error = caught(write, torch.tensor([1e30]))
    assert error.operation == "mul"
    assert "from 1e+30 to 1e+30" in str(error)  # as it was before


def test_what_was_given_so_is_named():
    step, ts, batch = problem([None])
    batch = batch.index_fill(0, torch.tensor([2]), math.nan)
    error = caught(step, ts, batch)
    assert "batch, float32 (5, 3), 3 not finite" in str(error)
    assert "batch was given so: look at the data or the parameters." in str(error)
    assert "ts.params.0.0.linear.weight, float32 (3, 3)" in str(error)


def test_random_draws_and_batches_are_no_alarm():
    def draw(key):
        x = random.normal(key, (1000,)), random.gumbel(key, (1000,)), random.truncated_normal(key, -1, 1, (1000,))
        return x, random.gamma(key, 0.5, (100,)), random.exponential(key, (1000,)), list(data.batches(key, x[0], 10))

    for a, b in zip(tree.leaves(draw(KEY)), tree.leaves(anomaly(draw)(KEY)), strict=True):
        assert torch.equal(a, b)


def test_inside_jit_it_says_what_to_write():
    run = jit(lambda x: anomaly(torch.sin)(x), backend="aot_eager")
    with pytest.raises(
        TypeError, match=r"called inside jit, where there are none\. Write anomaly\(step\)\(ts, batch\)"
    ):
        run(torch.ones(1))


def test_threads_and_calls_after_an_error_are_not_watched():
    caught(torch.log, torch.zeros(1))
    assert torch.log(torch.zeros(1)) == -math.inf
    step, ts, batch = problem([None])
    assert jit(step, backend="aot_eager")(ts, batch)[1]["loss"].isfinite()


def test_a_place_on_another_drive_keeps_its_whole_path(monkeypatch):
    def no_way(path):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr("os.path.relpath", no_way)
    assert f"at {__file__}:1" in str(Place(__file__, 1, "", None, ""))
