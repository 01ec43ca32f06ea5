"""Schedules: dtypes, transforms, what optax has not, errors, the picture."""

import builtins
import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from funcnet import jit, optim, random
from funcnet.optim import schedules

sys.path.insert(0, str(Path(__file__).parent))
from registry import SCHEDULES

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script.:FutureWarning")

# A schedule of two values, for each of those that optax lacks or has.
OF_VALUES = {
    "linear": lambda a, b: schedules.linear_schedule(a, b, 5, 1),
    "polynomial": lambda a, b: schedules.polynomial_schedule(a, 0.1, b, 5),
    "cosine": lambda a, b: schedules.cosine_decay_schedule(a, 6, alpha=b),
    "exponential": lambda a, b: schedules.exponential_decay(a, 2, b, end_value=0.3 * a),
    "staircase": lambda a, b: schedules.exponential_decay(a, 2, b, staircase=True),
    "piecewise constant": lambda a, b: schedules.piecewise_constant_schedule(a, {2: b, 5: 0.3}),
    "piecewise lines": lambda a, b: schedules.piecewise_interpolate_schedule("linear", a, {2: b, 5: 0.3}),
    "piecewise waves": lambda a, b: schedules.piecewise_interpolate_schedule("cosine", a, {2: b, 5: 0.3}),
    "one cycle in lines": lambda a, b: schedules.linear_onecycle_schedule(8, a, div_factor=1 + b),
    "one cycle in waves": lambda a, b: schedules.cosine_onecycle_schedule(8, a, final_div_factor=b),
    "warm-up, constant": lambda a, b: schedules.warmup_constant_schedule(a, b, 4),
    "warm-up, cosine": lambda a, b: schedules.warmup_cosine_decay_schedule(0.1, a, 2, 6, b),
    "warm-up, exponential": lambda a, b: schedules.warmup_exponential_decay_schedule(0.1, a, 2, 2, b),
    "warm-up, stable, lines": lambda a, b: schedules.warmup_stable_decay_schedule(0.1, a, 2, 2, 3, b),
    "warm-up, stable, root": lambda a, b: schedules.warmup_stable_decay_schedule(0.1, a, 2, 2, 3, b, "sqrt"),
    "restarts": lambda a, b: schedules.sgdr_schedule(
        [{"init_value": 0.0, "peak_value": p, "warmup_steps": 1, "decay_steps": 4} for p in (a, b)]
    ),
    "step": lambda a, b: schedules.step_lr(a, 2, b),
    "milestones": lambda a, b: schedules.multi_step_lr(a, [1, 4], b),
    "a part at first": lambda a, b: schedules.constant_lr(a, b, 3),
    "linear_lr": lambda a, b: schedules.linear_lr(a, b, total_iters=4),
    "exponential_lr": lambda a, b: schedules.exponential_lr(a, b),
    "polynomial_lr": lambda a, b: schedules.polynomial_lr(a, 5, b),
    "cosine_annealing_lr": lambda a, b: schedules.cosine_annealing_lr(a, 4, b),
    "warm restarts": lambda a, b: schedules.cosine_annealing_warm_restarts(a, 2, 2, b),
    "cyclic": lambda a, b: schedules.cyclic_lr(a, b, 3, mode="triangular2"),
    "cyclic, exponential": lambda a, b: schedules.cyclic_lr(a, 2.0, 3, mode="exp_range", gamma=b),
    "one_cycle_lr": lambda a, b: schedules.one_cycle_lr(a, 8, div_factor=1 + b, three_phase=True),
    "lambda": lambda a, b: schedules.lambda_lr(a, lambda count: b**count),
    "multiplicative": lambda a, b: schedules.multiplicative_lr(a, lambda count: b / count),
    "joined": lambda a, b: schedules.sequential_lr([schedules.constant_lr(a), schedules.exponential_lr(b, 0.5)], [3]),
}
every = pytest.mark.parametrize("build", OF_VALUES.values(), ids=OF_VALUES.keys())
COUNTS = torch.arange(9, dtype=torch.int32)


def total(build, a, b):
    """One number of all values, each with a weight of its own."""
    return sum((i + 1.5) ** 0.5 * build(a, b)(count) for i, count in enumerate(COUNTS))


@every
def test_values_differentiate(build):
    a, b = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.7, 0.6))
    assert torch.autograd.gradcheck(lambda a, b: total(build, a, b), (a, b))
    want = torch.autograd.grad(total(build, a, b), (a, b), allow_unused=True)
    got = grad(lambda pair: total(build, *pair))((a.detach(), b.detach()))
    torch.testing.assert_close(got, tuple(torch.zeros(()).double() if w is None else w for w in want))
    one, zero = torch.ones(()).double(), torch.zeros(()).double()
    moved = jvp(lambda a: total(build, a, b.detach()), (a.detach(),), (one,))[1]
    torch.testing.assert_close(moved, zero + got[0])


@every
def test_values_vmap(build):
    a, b = (random.uniform(random.key(n), (4,), minval=0.2, maxval=0.9) for n in (1, 2))
    for count in (0, 3, 8):
        got = vmap(lambda a, b, count=count: torch.as_tensor(build(a, b)(count)))(a, b)
        want = torch.stack([torch.as_tensor(build(x.item(), y.item())(count)) for x, y in zip(a, b, strict=True)])
        torch.testing.assert_close(got, want)


@every
def test_counts_vmap_and_trace(build):
    schedule = build(0.7, 0.6)
    want = torch.stack([schedule(count) for count in COUNTS])
    torch.testing.assert_close(vmap(schedule)(COUNTS), want)
    if build is not OF_VALUES["multiplicative"]:  # a loop in the graph, which make_fx alone does not make
        traced = make_fx(schedule)(COUNTS[3])
        torch.testing.assert_close(torch.stack([traced(count) for count in COUNTS]), want)


@every
def test_compiles_once(build):
    compiled = jit(build(0.7, 0.6), backend="aot_eager")
    for count in COUNTS:
        torch.testing.assert_close(compiled(count), build(0.7, 0.6)(count))
    assert compiled.compiles == 1


@every
@pytest.mark.parametrize("default", [torch.float32, torch.float64])
def test_values_are_0_dim_of_the_default_dtype(build, default):
    torch.set_default_dtype(default)
    try:
        for count in (COUNTS[2], 2):
            value = build(0.7, 0.6)(count)
            assert (value.dtype, value.shape) == (default, ())
    finally:
        torch.set_default_dtype(torch.float32)


@every
def test_numbers_and_tensors_give_the_same(build):
    for count in COUNTS:
        numbers = build(0.7, 0.6)(count)
        tensors = build(torch.tensor(0.7), torch.tensor(0.6))(count)
        torch.testing.assert_close(numbers, tensors)


def test_every_schedule_is_in_the_table():
    made = {name for name, value in vars(schedules).items() if inspect.isfunction(value) and "inject" not in name}
    named = {case.name for case in SCHEDULES}
    source = inspect.getsource(sys.modules[__name__])
    missing = {name for name in made if name not in named and f"schedules.{name}" not in source}
    assert not missing


@pytest.mark.parametrize("decay", ["linear", "cosine", "sqrt"])
def test_warmup_stable_decay_by_hand(decay):
    falls = {"linear": lambda s: 1 - s, "cosine": lambda s: (1 + np.cos(np.pi * s)) / 2, "sqrt": lambda s: 1 - s**0.5}

    def by_hand(t):
        if t < 4:
            return 0.2 + (1.5 - 0.2) * t / 4
        if t < 10:
            return 1.5
        return 0.1 + (1.5 - 0.1) * falls[decay](min(1.0, (t - 10) / 5))

    schedule = optim.warmup_stable_decay_schedule(0.2, 1.5, 4, 6, 5, 0.1, decay)
    np.testing.assert_allclose([float(schedule(t)) for t in range(20)], [by_hand(t) for t in range(20)], rtol=1e-6)


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    values=st.lists(st.floats(0, 5), min_size=6, max_size=6),
)
def test_joined_schedules_count_from_their_own_start(lengths, values):
    parts = [schedules.linear_schedule(value, value + 1, 9) for value in values[: len(lengths) + 1]]
    ends = np.cumsum(lengths)
    joined = optim.join_schedules(parts, ends.tolist())
    for t in range(ends[-1] + 5):
        own = int(np.searchsorted(ends, t, side="right"))
        assert float(joined(t)) == float(parts[own](t - (ends[own - 1] if own else 0)))


def test_in_an_optimizer_under_jit():
    schedule = optim.warmup_stable_decay_schedule(0.0, 0.1, 2, 2, 2)
    rule = optim.chain(optim.trace(0.9), optim.scale_by_learning_rate(schedule))
    compiled = jit(rule.update, backend="aot_eager")
    state = again = rule.init({"w": torch.ones(3)})
    for step in range(5):
        gradient = {"w": random.normal(random.key(step), (3,))}
        want, state = rule.update(gradient, state)
        got, again = compiled(gradient, again)
        torch.testing.assert_close(got, want)


ERRORS = [
    (lambda: schedules.step_lr(1.0, 0), ValueError, "step_lr got step_size=0, and needs at least 1"),
    (lambda: schedules.step_lr(1.0, 2.5), TypeError, r"step_lr got step_size=2.5: a number of steps is an int"),
    (lambda: schedules.multi_step_lr(1.0, [3, -1]), ValueError, "a milestone=-1"),
    (lambda: schedules.constant_lr(1.0, 2.0), ValueError, "factor=2.0, and needs 0 <= factor <= 1"),
    (lambda: schedules.constant_lr(1.0, total_iters=-1), ValueError, "total_iters=-1, and needs at least 0"),
    (lambda: schedules.linear_lr(1.0, 0.0), ValueError, "start_factor=0"),
    (lambda: schedules.linear_lr(1.0, end_factor=-0.1), ValueError, "end_factor=-0.1"),
    (lambda: schedules.linear_lr(1.0, total_iters=0), ValueError, "total_iters=0"),
    (lambda: schedules.polynomial_lr(1.0, 0), ValueError, "total_iters=0"),
    (lambda: schedules.cosine_annealing_lr(1.0, 0), ValueError, "T_max=0"),
    (lambda: schedules.cosine_annealing_warm_restarts(1.0, 0), ValueError, "T_0=0"),
    (lambda: schedules.cosine_annealing_warm_restarts(1.0, 2, 0), ValueError, "T_mult=0"),
    (lambda: schedules.cyclic_lr(0.1, 1.0, 0), ValueError, "step_size_up=0"),
    (lambda: schedules.cyclic_lr(0.1, 1.0, 2, 0), ValueError, "step_size_down=0"),
    (lambda: schedules.cyclic_lr(0.1, 1.0, mode="square"), ValueError, "mode='square'"),
    (lambda: schedules.cyclic_lr(0.1, 1.0, scale_mode="epoch"), ValueError, "scale_mode='epoch'"),
    (lambda: schedules.one_cycle_lr(1.0), ValueError, "needs total_steps, or epochs and steps_per_epoch"),
    (lambda: schedules.one_cycle_lr(1.0, 0), ValueError, "total_steps=0"),
    (lambda: schedules.one_cycle_lr(1.0, epochs=2, steps_per_epoch=-3), ValueError, "steps_per_epoch=-3"),
    (lambda: schedules.one_cycle_lr(1.0, 9, pct_start=1.5), ValueError, "pct_start=1.5"),
    (lambda: schedules.one_cycle_lr(1.0, 9, anneal_strategy="log"), ValueError, "anneal_strategy='log'"),
    (lambda: schedules.linear_schedule(0.0, 1.0, 0), ValueError, "linear_schedule got transition_steps=0.*constant"),
    (lambda: schedules.polynomial_schedule(0.0, 1.0, 2, -1), ValueError, "polynomial_schedule got transition_steps=-1"),
    (lambda: schedules.exponential_decay(1.0, 0, 0.5), ValueError, "exponential_decay got transition_steps=0"),
    (lambda: schedules.warmup_constant_schedule(0.0, 1.0, 0), ValueError, "warmup_steps=0, and needs a positive"),
    (lambda: schedules.linear_onecycle_schedule(0, 1.0), ValueError, "transition_steps=0"),
    (lambda: schedules.cosine_onecycle_schedule(-4, 1.0), ValueError, "transition_steps=-4"),
    (lambda: schedules.piecewise_constant_schedule(1.0, {2: -0.5}), ValueError, "a scale of -0.5 at step 2"),
    (lambda: schedules.piecewise_constant_schedule(1.0, {-2: 0.5}), ValueError, "a boundary=-2"),
    (lambda: schedules.piecewise_interpolate_schedule("cubic", 1.0), ValueError, "interpolate_type='cubic'"),
    (lambda: schedules.exponential_decay(1.0, 2, -0.5), ValueError, "decay_rate=-0.5"),
    (lambda: schedules.sgdr_schedule([]), ValueError, "got no cycles"),
    (lambda: schedules.join_schedules([abs, abs, abs], [5, 3]), ValueError, r"boundaries=\[5, 3\]"),
    (lambda: schedules.join_schedules([abs, abs], [-1]), ValueError, r"boundaries=\[-1\]"),
    (lambda: schedules.warmup_exponential_decay_schedule(0.0, 1.0, -1, 2, 0.5), ValueError, "warmup_steps=-1"),
    (lambda: schedules.warmup_stable_decay_schedule(0.0, 1.0, -1, 2, 3), ValueError, "warmup_steps=-1"),
    (lambda: schedules.warmup_stable_decay_schedule(0.0, 1.0, 1, -2, 3), ValueError, "stable_steps=-2"),
    (lambda: schedules.warmup_stable_decay_schedule(0.0, 1.0, 1, 2, 0), ValueError, "decay_steps=0"),
    (lambda: schedules.warmup_stable_decay_schedule(0.0, 1.0, 1, 2, 3, decay="log"), ValueError, "decay='log'"),
    (lambda: schedules.linear_schedule(torch.ones(2), 1.0, 5), ValueError, r"init_value has shape \(2,\)"),
    (lambda: schedules.exponential_lr(1.0, "half"), TypeError, "gamma is a str"),
    (lambda: schedules.plot_schedule(abs, 0), ValueError, "steps=0"),
]


@pytest.mark.parametrize(("call", "error", "match"), ERRORS, ids=[match for _, _, match in ERRORS])
def test_errors_name_the_argument(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_plot_schedule_draws_and_saves(tmp_path):
    schedule = schedules.one_cycle_lr(0.5, 300)
    axes = schedules.plot_schedule(schedule, 300, path=tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 2000
    line = axes.lines[0]
    np.testing.assert_allclose(line.get_ydata(), [float(schedule(t)) for t in range(300)])
    again = schedules.plot_schedule(schedules.constant_schedule(0.1), 300, ax=axes)
    assert again is axes
    assert len(axes.lines) == 2


def test_plot_schedule_of_a_long_run_draws_its_ends():
    line = schedules.plot_schedule(schedules.linear_schedule(0.0, 1.0, 999_999), 1_000_000).lines[0]
    assert line.get_xdata()[[0, -1]].tolist() == [0, 999_999]
    assert len(line.get_xdata()) == 2000


def test_plot_schedule_says_what_to_install(monkeypatch):
    plain = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"funcnet\[demo\]"):
        schedules.plot_schedule(schedules.constant_schedule(0.1), 3)
