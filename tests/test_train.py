"""The loop and the state around a step. What a step computes is tested in test_training.py."""

import pytest
import torch

from funcnet import TrainState, data, fit, make_step, optim, random, tree

OPTIMIZER = optim.adam(0.1)


def loss(params, state, batch, key):
    noise = 0.01 * random.normal(key, (len(batch),))
    error = batch @ params["w"] - 1 + noise
    return (error**2).mean(), ({"seen": state["seen"] + len(batch)}, {"largest": error.abs().max()})


def start():
    params = {"w": torch.tensor([1.0, -2.0, 0.5])}
    return TrainState.create(params, {"seen": torch.tensor(0)}, OPTIMIZER, random.key(7))


ROWS = random.normal(random.key(1), (24, 3))


def batches(epoch):
    return data.batches(random.fold_in(random.key(2), epoch), ROWS, 8)


def same(a, b):
    return tree.structure(a) == tree.structure(b) and all(
        torch.equal(x, y) for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True)
    )


def test_a_step_changes_no_argument_and_repeats_to_the_bit():
    step = make_step(loss, OPTIMIZER)
    ts = start()
    before = tree.map(torch.clone, ts)
    first, metrics = step(ts, ROWS)
    again, _ = step(ts, ROWS)
    assert same(ts, before)
    assert same(first, again)
    assert metrics.keys() == {"loss", "largest"}
    assert (int(first.step), int(first.state["seen"])) == (1, 24)
    assert torch.equal(first.key, ts.key)
    assert not torch.equal(first.params["w"], ts.params["w"])


def test_state_shares_no_memory_with_the_parameters():
    ts = start()
    ts.params["w"].zero_()
    assert all(torch.equal(leaf, torch.zeros_like(leaf)) for leaf in tree.leaves(ts.opt_state))
    with pytest.raises(TypeError, match=r"key"):
        TrainState.create(ts.params, {}, OPTIMIZER, 0)


def test_fit_is_the_plain_loop():
    step = make_step(loss, OPTIMIZER)
    ts, history = fit(step, start(), batches, epochs=3, progress=False)
    expected, means = start(), []
    for epoch in range(3):
        losses = []
        for batch in batches(epoch):
            expected, metrics = step(expected, batch)
            losses.append(metrics["loss"])
        means.append(torch.stack(losses).mean().item())
    assert same(ts, expected)
    assert [entry["loss"] for entry in history] == pytest.approx(means)
    assert means[2] < means[0]


def test_fit_resumes_where_it_stopped():
    step = make_step(loss, OPTIMIZER)
    whole, _ = fit(step, start(), batches, epochs=2, progress=False)
    half, _ = fit(step, start(), batches, epochs=1, progress=False)
    resumed, _ = fit(step, half, lambda epoch: batches(epoch + 1), epochs=1, progress=False)
    assert same(whole, resumed)


def test_fit_evaluates_after_each_epoch_and_draws_a_bar(capsys):
    seen = []

    def evaluate(ts):
        seen.append(int(ts.step))
        return {"steps": float(ts.step)}

    _, history = fit(make_step(loss, OPTIMIZER), start(), batches, epochs=2, evaluate=evaluate)
    assert seen == [3, 6]
    assert [entry["steps"] for entry in history] == [3.0, 6.0]
    out, err = capsys.readouterr()
    assert "2/2" in err
    assert out == ""


def test_an_epoch_without_batches_is_explained():
    step = make_step(loss, OPTIMIZER)
    spent = data.batches(None, ROWS, 8)
    with pytest.raises(ValueError, match=r"epoch 1 has no batch\. A generator is spent after one epoch"):
        fit(step, start(), spent, epochs=2, progress=False)
    with pytest.raises(ValueError, match=r"epoch 0 has no batch.*batch size over the size of the data"):
        fit(step, start(), lambda epoch: [], progress=False)


def test_fit_takes_numbers_as_metrics_and_refuses_names_that_change():
    def step(ts, batch):
        return ts, {"loss": 2.0 * batch}

    assert fit(step, None, [1.0, 2.0], progress=False)[1] == [{"loss": 3.0}]

    def changing(ts, batch):
        return ts, {f"loss{batch}": torch.tensor(1.0)}

    with pytest.raises(ValueError, match=r"the metrics \['loss2'\], and \['loss1'\] before"):
        fit(changing, None, [1, 2], progress=False)
