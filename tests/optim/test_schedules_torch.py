"""The schedules named after torch.optim.lr_scheduler, against it."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from funcnet.optim import schedules

STEPS = 100
RATE = 0.3


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def optimizer(rate=RATE):
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=rate, momentum=0.9)


def theirs(build, steps=STEPS, what="lr"):
    """The learning rate at every step, as torch's scheduler leaves it in the optimizer."""
    group = optimizer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch wants the optimizer to step, and has deprecated its own argument
        scheduler = build(group)
        values = []
        for _ in range(steps):
            values.append(float(group.param_groups[0][what]))
            scheduler.step()
    return values


def ours(schedule, steps=STEPS):
    return [float(schedule(torch.tensor(step, dtype=torch.int32))) for step in range(steps)]


def same(schedule, build, steps=STEPS, what="lr"):
    torch.testing.assert_close(
        torch.tensor(ours(schedule, steps)), torch.tensor(theirs(build, steps, what)), rtol=1e-9, atol=1e-12
    )


CASES = [
    ("step_lr", "StepLR", {"step_size": 7}),
    ("step_lr", "StepLR", {"step_size": 30, "gamma": 0.7}),
    ("multi_step_lr", "MultiStepLR", {"milestones": [10, 30, 30, 77]}),
    ("multi_step_lr", "MultiStepLR", {"milestones": [1, 50], "gamma": 0.5}),
    ("constant_lr", "ConstantLR", {}),
    ("constant_lr", "ConstantLR", {"factor": 0.2, "total_iters": 20}),
    ("linear_lr", "LinearLR", {}),
    ("linear_lr", "LinearLR", {"start_factor": 0.1, "end_factor": 0.6, "total_iters": 40}),
    ("exponential_lr", "ExponentialLR", {"gamma": 0.97}),
    ("polynomial_lr", "PolynomialLR", {}),
    ("polynomial_lr", "PolynomialLR", {"total_iters": 60, "power": 2.5}),
    ("cosine_annealing_lr", "CosineAnnealingLR", {"T_max": 100}),
    ("cosine_annealing_lr", "CosineAnnealingLR", {"T_max": 23, "eta_min": 0.01}),
    ("cosine_annealing_warm_restarts", "CosineAnnealingWarmRestarts", {"T_0": 9}),
    ("cosine_annealing_warm_restarts", "CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2, "eta_min": 0.05}),
    ("cosine_annealing_warm_restarts", "CosineAnnealingWarmRestarts", {"T_0": 1, "T_mult": 3}),
    ("lambda_lr", "LambdaLR", {"lr_lambda": lambda t: 1 / (1 + 0.1 * t)}),
    ("multiplicative_lr", "MultiplicativeLR", {"lr_lambda": lambda t: 1 - 0.5 / (1 + t)}),
]


def named(part):
    """What a test is called: functions by their names, since the workers of xdist must agree."""
    if isinstance(part, dict):
        return ", ".join(f"{key}={getattr(value, '__name__', value)}" for key, value in part.items())
    return str(part)


@pytest.mark.parametrize(("name", "torchs", "kwargs"), CASES, ids=named)
def test_equals_torchs_scheduler(name, torchs, kwargs):
    same(getattr(schedules, name)(RATE, **kwargs), lambda o: getattr(lr_scheduler, torchs)(o, **kwargs))


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"step_size_up": 8},
        {"step_size_up": 8, "step_size_down": 5},
        {"step_size_up": 6, "step_size_down": 1, "mode": "triangular2"},
        {"step_size_up": 10, "mode": "exp_range", "gamma": 0.98},
        {"step_size_up": 7, "scale_fn": lambda x: 1 / x},
        {"step_size_up": 7, "scale_fn": lambda x: 0.99**x, "scale_mode": "iterations"},
    ],
    ids=named,
)
def test_cyclic_lr_equals_torchs(kwargs):
    same(schedules.cyclic_lr(0.01, 0.5, **kwargs), lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.5, **kwargs))
    same(
        schedules.cyclic_lr(0.9, 0.8, **kwargs),
        lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.5, **kwargs),
        what="momentum",
    )


@pytest.mark.parametrize(
    "kwargs",
    [
        {"total_steps": 101},
        {"epochs": 11, "steps_per_epoch": 10, "pct_start": 0.41, "anneal_strategy": "linear"},
        {"total_steps": 120, "three_phase": True},
        {"total_steps": 103, "three_phase": True, "anneal_strategy": "linear", "div_factor": 4.0},
        {"total_steps": 150, "pct_start": 0.0, "final_div_factor": 10.0},
        {"total_steps": 150, "pct_start": 1.0},
    ],
    ids=named,
)
def test_one_cycle_lr_equals_torchs(kwargs):
    same(schedules.one_cycle_lr(0.5, **kwargs), lambda o: lr_scheduler.OneCycleLR(o, 0.5, **kwargs))
    momentum = kwargs | {"div_factor": 0.85 / 0.95, "final_div_factor": 1.0}
    same(
        schedules.one_cycle_lr(0.85, **momentum),
        lambda o: lr_scheduler.OneCycleLR(o, 0.5, **kwargs),
        what="momentum",
    )


def test_one_cycle_lr_stays_at_its_end_where_torch_stops():
    schedule = schedules.one_cycle_lr(1.0, 10)
    assert ours(schedule, 30)[9:] == pytest.approx([1 / 25 / 1e4] * 21, rel=1e-9)


def test_one_cycle_lr_with_a_first_phase_of_no_steps():
    # pct_start * total_steps == 1, where torch divides by zero.
    values = ours(schedules.one_cycle_lr(1.0, 10, pct_start=0.1), 10)
    assert all(0 <= value <= 1 for value in values)


def test_sequential_lr_equals_torchs():
    def build(o):
        parts = [
            lr_scheduler.ConstantLR(o, factor=0.1, total_iters=30),
            lr_scheduler.ExponentialLR(o, gamma=0.9),
            lr_scheduler.StepLR(o, step_size=5),
        ]
        return lr_scheduler.SequentialLR(o, parts, milestones=[20, 60])

    parts = [
        schedules.constant_lr(RATE, 0.1, 30),
        schedules.exponential_lr(RATE, 0.9),
        schedules.step_lr(RATE, 5),
    ]
    same(schedules.sequential_lr(parts, [20, 60]), build)


@given(data=st.data())
def test_drawn_arguments_equal_torchs(data):
    length, part = st.integers(1, 40), st.floats(0.01, 1.0)
    choices = {
        "StepLR": {"step_size": length, "gamma": part},
        "LinearLR": {"start_factor": part, "end_factor": part, "total_iters": length},
        "PolynomialLR": {"total_iters": length, "power": st.floats(0.2, 4.0)},
        "CosineAnnealingLR": {"T_max": length, "eta_min": part},
        "CosineAnnealingWarmRestarts": {"T_0": length, "T_mult": st.integers(1, 4), "eta_min": part},
    }
    name = data.draw(st.sampled_from(sorted(choices)))
    kwargs = {key: data.draw(strategy, label=key) for key, strategy in choices[name].items()}
    snake = {
        "StepLR": "step_lr",
        "LinearLR": "linear_lr",
        "PolynomialLR": "polynomial_lr",
        "CosineAnnealingLR": "cosine_annealing_lr",
        "CosineAnnealingWarmRestarts": "cosine_annealing_warm_restarts",
    }[name]
    same(getattr(schedules, snake)(RATE, **kwargs), lambda o: getattr(lr_scheduler, name)(o, **kwargs), steps=60)


def test_warm_restarts_are_exact_at_the_largest_counts():
    # 3 * (2**k - 1) are the starts; torch's logarithm misses some of them.
    schedule = schedules.cosine_annealing_warm_restarts(1.0, 3, 2)
    for k in (5, 10, 20, 29):
        start = 3 * (2**k - 1)
        assert float(schedule(torch.tensor(start, dtype=torch.int32))) == 1.0
        assert float(schedule(torch.tensor(start - 1, dtype=torch.int32))) < 0.01
    assert 0 <= float(schedule(torch.tensor(2**31 - 1, dtype=torch.int32))) <= 1
