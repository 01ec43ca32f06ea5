"""Early stopping against a loop over plain numbers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from funcnet import jit, vmap
from funcnet.train import EarlyStopping

some = st.integers(-4, 4).map(float) | st.sampled_from([math.nan, math.inf, -math.inf])
values = st.lists(some, max_size=25)


@given(
    values=values,
    patience=st.integers(1, 5),
    min_delta=st.sampled_from([0.0, 1.0]),
    mode=st.sampled_from(["min", "max"]),
    tensors=st.booleans(),
)
def test_is_a_loop(values, patience, min_delta, mode, tensors):
    early = EarlyStopping(patience, min_delta, mode)
    state = early.init()
    sign = 1 if mode == "min" else -1
    best, best_step, bad, stop = math.inf, -1, 0, False
    for i, value in enumerate(values):
        if sign * value < best - min_delta:
            best, best_step, bad = sign * value, i, 0
        else:
            bad += 1
        stop = stop or bad >= patience
        before = tuple(leaf.clone() for leaf in state)
        new = early(state, torch.tensor(value) if tensors else value)
        assert all(torch.equal(a, b) for a, b in zip(state, before, strict=True))
        state = new
        assert (state.best.item(), state.best_step.item()) == (sign * best, best_step)
        assert (state.seen.item(), state.stop.item()) == (i + 1, stop)


def test_float32_losses_are_not_rounded_and_traced_is_eager():
    early = EarlyStopping(patience=2)
    step = jit(early, backend="aot_eager")
    eager = traced = early.init()
    for value in (1.0, 0.5, 0.7, 0.6):
        loss = torch.tensor(value)
        eager, traced = early(eager, loss), step(traced, loss)
        assert tuple(traced) == tuple(eager)
    assert (traced.stop.item(), traced.best_step.item(), step.compiles) == (True, 1, 1)
    runs = vmap(early, in_dims=(None, 0))(early.init(), torch.tensor([1.0, math.nan]))
    assert runs.best_step.tolist() == [0, -1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_numbers_keep_all_their_digits(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        early = EarlyStopping(patience=5)
        state = early(early(early.init(), 1 + 2**-40), 1 + 2**-41)
    finally:
        torch.set_default_dtype(before)
    assert (state.best.item(), state.best_step.item()) == (1 + 2**-41, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patience": 0}, r"patience=0: it counts values without improvement"),
        ({"min_delta": -1.0}, r"min_delta=-1\.0: it is a distance"),
        ({"min_delta": math.nan}, r"min_delta=nan"),
        ({"mode": "lower"}, r"mode='lower'\. Write 'min' for losses"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        EarlyStopping(**arguments)
    with pytest.raises(ValueError, match=r"one value at a time, and got shape \(2,\)"):
        EarlyStopping()(EarlyStopping().init(), torch.ones(2))
