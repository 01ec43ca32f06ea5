"""Evaluation is exact whatever the batches, and an epoch as a scan is the loop."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from funcnet import data, jit, make_step, optim, random, scan, tree
from funcnet.train import TrainState, make_epoch, make_eval

KEY = random.key(9)


def measure(params, state, batch):
    x, label = batch
    logits = x @ params["w"] + state["shift"]
    return {"loss": (logits - label).square(), "right": (logits > 0) == (label > 0)}


def start(step=None):
    step = make_step(loss, optim.sgd(0.1), ema=0.5) if step is None else step
    return step.init({"w": random.normal(KEY, (3,))}, {"shift": torch.tensor(0.25)}, KEY)


def loss(params, state, batch, key):
    return measure(params, state, batch)["loss"].mean() + random.normal(key, ()) * params["w"].sum(), (state, {})


def rows(count):
    one, two = random.split(random.fold_in(KEY, count), 2)
    return random.normal(one, (count, 3)), random.normal(two, (count,))


@given(st.integers(1, 40), st.integers(1, 50))
def test_means_do_not_depend_on_the_batches(count, batch_size):
    ts = start()._replace(average=None)
    whole = measure(ts.params, ts.state, rows(count))
    found = make_eval(measure, batch_size)(ts, rows(count))
    assert found.keys() == whole.keys()
    for name, values in whole.items():
        torch.testing.assert_close(found[name], values.float().mean(), rtol=1e-5, atol=1e-6)


def test_a_row_that_fills_up_counts_for_nothing_even_where_it_is_not_finite():
    x, label = rows(5)
    x[0] = torch.inf  # the row that the last batch is filled up with
    values = make_eval(lambda params, state, batch: {"first": torch.nan_to_num(batch[0][:, 0], posinf=7.0)}, 2)
    found = values(start(), (x, label))
    torch.testing.assert_close(found["first"], (7 + x[1:, 0].sum()) / 5)


def test_compiled_evaluation_is_the_same_and_compiles_once():
    evaluate = make_eval(measure, 4)
    compiled = jit(evaluate, backend="aot_eager")
    for seed in range(3):
        ts = start()._replace(params={"w": random.normal(random.key(seed), (3,))})
        for name, value in evaluate(ts, rows(10)).items():
            torch.testing.assert_close(compiled(ts, rows(10))[name], value)
    assert compiled.compiles == 1


def test_the_average_is_what_is_evaluated():
    ts = start()._replace(average={"w": torch.tensor([1.0, 2.0, 3.0])})
    found = make_eval(measure, 4)(ts, rows(6))
    torch.testing.assert_close(found["loss"], measure(ts.average, ts.state, rows(6))["loss"].mean())
    half = ts._replace(params=tree.cast(ts.params, torch.bfloat16))
    seen = []
    make_eval(lambda params, state, x: seen.append(params["w"].dtype) or {"row": x[0][:, 0]}, 6)(half, rows(6))
    assert seen == [torch.bfloat16]  # as the model was trained, though the mean is wider


def test_wrong_measures_and_data_are_told():
    with pytest.raises(ValueError, match=r"one value for each of the 4 rows, and 'loss' is \(\): leave the mean"):
        make_eval(lambda *_: {"loss": torch.tensor(1.0)}, 4)(start(), rows(6))
    with pytest.raises(ValueError, match=r"at least one row"):
        make_eval(measure, 4)(start(), rows(0))
    with pytest.raises(ValueError, match=r"batch_size is 0"):
        make_eval(measure, 0)


@pytest.mark.parametrize("compiled", [False, True])
def test_an_epoch_is_its_steps(compiled):
    step = make_step(loss, optim.adam(0.1), ema=0.9, skip_nonfinite=True, metrics=["grad_norm"])
    everything = rows(12)
    order = random.permutation(random.fold_in(KEY, 1), 12).reshape(4, 3)
    epoch = jit(make_epoch(step), donate=0, backend="aot_eager") if compiled else make_epoch(step)
    ts = expected = start(step)
    history = []
    for places in order:
        expected, told = step(expected, tree.map(lambda leaf, places=places: leaf[places], everything))
        history.append(told)
    ts, metrics = epoch(tree.map(torch.clone, ts), everything, order)
    assert tree.structure(ts) == tree.structure(expected)
    for a, b in zip(tree.leaves((ts, metrics)), tree.leaves((expected, tree.stack(history))), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_epochs_over_shuffled_data_are_a_scan_of_scans():
    step = make_step(loss, optim.sgd(0.05))
    everything = rows(12)
    orders = torch.stack([random.permutation(random.fold_in(KEY, e), 12).reshape(3, 4) for e in range(3)])
    ts, metrics = scan(lambda ts, order: make_epoch(step)(ts, everything, order), start(step), orders)
    expected = start(step)
    for e in range(3):
        for batch in data.batches(random.fold_in(KEY, e), everything, 4):
            expected, _ = step(expected, batch)
    torch.testing.assert_close(ts.params["w"], expected.params["w"], rtol=1e-5, atol=1e-6)
    assert metrics["loss"].shape == (3, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_added_up_in_single_precision(dtype):
    values = (200 + 200 * random.uniform(KEY, (700,))).to(dtype)
    found = make_eval(lambda params, state, x: {"mean": x}, 300)(TrainState({}, {}, None, None, None), values)
    torch.testing.assert_close(found["mean"], values.float().mean())
