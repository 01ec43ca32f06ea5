"""What a run writes and averages: rows of a run before it, and steps that were skipped."""

import csv
import json
import math

import pytest
import torch

from funcnet import fit, jit, make_step, tree
from funcnet.train import CSVLog, JSONLinesLog
from tests.train.line import KEY, LENGTH, OPTIMIZER, ROWS, batches, begun


def loss(params, state, batch, key):
    return ((batch @ params["w"] - 1) ** 2).mean(), (state, {})


STEP = make_step(loss, OPTIMIZER)


def start():
    return begun(STEP)


def rows_of(path):
    text = path.read_text().splitlines()
    return list(csv.DictReader(text)) if text[0].startswith("step") else [json.loads(line) for line in text]


@pytest.mark.parametrize("kind", [CSVLog, JSONLinesLog])
def test_another_run_of_the_same_state_leaves_the_rows_of_the_first(tmp_path, kind):
    path = tmp_path / "log"
    ts, first = fit(STEP, start(), batches, epochs=2, log=[kind(path)], progress=False)
    written = path.read_text()
    _, second = fit(STEP, ts, batches, epochs=3, log=[kind(path)], progress=False)
    assert path.read_text().startswith(written)
    losses = [entry["loss"] for entry in first + second]
    found = [(int(row["step"]), float(row["loss"])) for row in rows_of(path)]
    assert found == [(LENGTH * n, value) for n, value in enumerate(losses, start=1)]
    fit(STEP, start(), batches, log=[kind(path)], progress=False)  # which begins at step 0, and so anew
    assert len(rows_of(path)) == 1


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("at", [None, 4, 6])
def test_steps_that_were_skipped_are_not_in_the_means(compiled, at):
    step = make_step(loss, OPTIMIZER, skip_nonfinite=True, donate=not compiled, metrics=["grad_norm"])
    step = jit(step, donate=0, backend="aot_eager") if compiled else step
    begin = make_step(loss, OPTIMIZER, skip_nonfinite=True).init({"w": torch.tensor([1.0, -2.0, 0.5])}, {}, KEY)

    def poisoned(epoch):
        return [rows * math.nan if (epoch, n) in ((0, 0), (1, 3)) else rows for n, rows in enumerate(batches(epoch))]

    saves, told = [], []

    def watched(ts, batch):
        before = int(ts.skipped)
        ts, metrics = step(ts, batch)
        told.append({name: value.item() for name, value in metrics.items()} if int(ts.skipped) == before else None)
        return ts, metrics

    def save(ts, number, *, position, metrics=None):
        saves.append((tree.map(torch.clone, ts), number, json.loads(json.dumps(position))))

    options = {"epochs": 2, "check_finite": False, "progress": False}
    ts, history = fit(watched, tree.map(torch.clone, begin), poisoned, save=save, save_every=4, **options)
    assert int(ts.skipped) == 2
    if at is not None:
        again, _, position = next(one for one in saves if one[1] == at)
        assert fit(step, again, poisoned, start=position, **options)[1] == history
    for epoch, entry in enumerate(history):
        taken = [metrics for metrics in told[LENGTH * epoch : LENGTH * (epoch + 1)] if metrics is not None]
        assert len(taken) == LENGTH - 1
        assert entry == pytest.approx({name: sum(m[name] for m in taken) / len(taken) for name in entry}, rel=1e-12)


def test_an_epoch_whose_steps_were_all_skipped_has_no_mean():
    step = make_step(loss, OPTIMIZER, skip_nonfinite=True)
    ts = step.init({"w": torch.tensor([1.0, -2.0, 0.5])}, {}, KEY)
    _, history = fit(step, ts, [ROWS[:4] * math.nan], check_finite=False, progress=False)
    assert math.isnan(history[0]["loss"])
