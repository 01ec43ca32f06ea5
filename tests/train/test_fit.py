"""The loop: what it saves, logs, stops at, and how it goes on."""

import json
import math
import os
import signal
import threading

import pytest
import torch

from funcnet import data, fit, make_step, optim, random, tree
from funcnet.train import CSVLog, EarlyStopping, JSONLinesLog, NonFiniteError
from tests.train.line import KEY, OPTIMIZER, ROWS, batches, begun


def loss(params, state, batch, key):
    error = batch @ params["w"] - 1 + 0.01 * random.normal(key, (len(batch),))
    return (error**2).mean(), (state, {"largest": error.abs().max()})


STEP = make_step(loss, OPTIMIZER)


def start():
    return begun(STEP)


class Saves:
    def __init__(self):
        self.calls = []

    def __call__(self, ts, step, *, position, metrics=None):
        assert int(ts.step) == step
        self.calls.append((tree.map(torch.clone, ts), step, json.loads(json.dumps(position)), metrics))


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True))


def test_a_run_goes_on_from_any_save_to_the_same_bits():
    saves = Saves()
    whole, history = fit(STEP, start(), batches, epochs=3, save=saves, save_every=4, progress=False)
    steps = [step for _, step, _, _ in saves.calls]
    assert steps == [4, 6, 8, 12, 12, 16, 18]
    places = [(position["epoch"], position["batch"]) for _, _, position, _ in saves.calls]
    assert places == [(0, 4), (1, 0), (1, 2), (1, 6), (2, 0), (2, 4), (3, 0)]
    for ts, _, position, _ in saves.calls:
        end, rest = fit(STEP, tree.map(torch.clone, ts), batches, epochs=3, start=position, progress=False)
        assert same(end, whole)
        assert rest == history
    assert [m and m["loss"] for _, _, _, m in saves.calls if m] == [entry["loss"] for entry in history]


def test_a_run_may_be_counted_in_steps():
    saves = Saves()
    a, history = fit(STEP, start(), batches, steps=8, save=saves, progress=False)
    assert int(a.step) == 8
    assert len(history) == 2
    position = saves.calls[-1][2]
    assert (position["epoch"], position["batch"], len(position["history"])) == (1, 2, 1)
    whole, history = fit(STEP, start(), batches, epochs=3, progress=False)
    for at in (position, (1, 2)):
        b, rest = fit(STEP, a, batches, steps=18, start=at, progress=False)
        assert same(b, whole)
        assert rest[-1] == history[-1]
    assert len(rest) == 2  # two plain numbers have no history
    with pytest.raises(ValueError, match=r"epochs=1 or after steps=2: give one"):
        fit(STEP, start(), batches, epochs=1, steps=2)


def test_logs_have_a_row_an_epoch_and_means_within(tmp_path):
    logs = [CSVLog(tmp_path / "log.csv"), JSONLinesLog(tmp_path / "log.jsonl")]
    _, history = fit(
        STEP, start(), batches, epochs=2, log=logs, log_every=3, schedule=lambda n: 0.5 / n, progress=False
    )
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6, 6, 9, 12, 12]
    assert [row["lr"] for row in rows] == [0.5 / row["step"] for row in rows]
    assert rows[0]["loss"] + rows[1]["loss"] == pytest.approx(2 * rows[2]["loss"])
    assert [rows[2]["loss"], rows[5]["loss"]] == [entry["loss"] for entry in history]
    assert (tmp_path / "log.csv").read_text().splitlines()[0] == "step,loss,largest,lr,epoch"
    assert [row.get("epoch") for row in rows] == [None, None, 1, None, None, 2]


def test_logs_go_on_as_if_nothing_had_happened(tmp_path):
    def logged(path, **options):
        log = JSONLinesLog(path)
        fit(STEP, log=[log], log_every=5, progress=False, **options)
        return path.read_text()

    saves = Saves()
    whole = logged(tmp_path / "whole", ts=start(), batches=batches, epochs=3, save=saves, save_every=4)
    for number, (ts, _, position, _) in enumerate(saves.calls[:-1]):
        again = tmp_path / str(number)
        again.write_text(whole)
        assert logged(again, ts=ts, batches=batches, epochs=3, start=position) == whole


@pytest.mark.parametrize(
    "place", [(-1, 0), (0, 1.0), (0, True), (1, 2, (), None, None, 0), {"epoch": 1, "batches": 2}, 3]
)
def test_what_is_no_position_is_refused(place):
    with pytest.raises(ValueError, match=r"start=.* is no position: give the epoch and how many"):
        fit(STEP, start(), batches, start=place)


def test_early_stopping_ends_a_run_where_it_would_have_ended_uninterrupted():
    rising = {"rise": iter(range(100))}
    stop = EarlyStopping(patience=2, metric="rise")
    saves = Saves()
    _, history = fit(
        STEP, start(), batches, epochs=9, evaluate=lambda ts: {"rise": next(rising["rise"])}, early_stopping=stop,
        save=saves, progress=False,
    )  # fmt: skip
    assert [entry["rise"] for entry in history] == [0, 1, 2]
    for ts, _, position, _ in saves.calls:
        _, rest = fit(
            STEP, ts, batches, epochs=9, evaluate=lambda ts: {"rise": 7}, early_stopping=stop, start=position,
            progress=False,
        )  # fmt: skip
        assert len(rest) == 3
    with pytest.raises(ValueError, match=r"looks at 'lose', and an epoch has loss, largest: .*metric='loss'"):
        fit(STEP, start(), batches, early_stopping=EarlyStopping(metric="lose"), progress=False)


def test_callbacks_are_told_of_epochs_and_may_end_the_run():
    seen = []

    def callback(moment):
        seen.append((moment.epoch, moment.step, moment.metrics["double"]))
        return moment.epoch == 1

    _, history = fit(
        STEP, start(), batches, epochs=5, evaluate=lambda ts: {"double": 2 * ts.step}, callbacks=[callback],
        progress=False,
    )  # fmt: skip
    assert seen == [(0, 6, 12.0), (1, 12, 24.0)]
    assert len(history) == 2


def test_a_loss_that_is_not_finite_is_told_with_its_place():
    spoiled = [batch.clone() for batch in batches(1)]
    spoiled[3][2, 1] = math.nan
    saves = Saves()
    with pytest.raises(NonFiniteError, match=r"step 10 is nan \(epoch 1, batch 3\)\. .* batch \(1 of its 12 numbers\)"):
        fit(STEP, start(), lambda e: spoiled if e == 1 else batches(e), epochs=3, save=saves, progress=False)
    assert [step for _, step, _, _ in saves.calls] == [6]
    assert all(bool(torch.isfinite(leaf).all()) for leaf in tree.leaves(saves.calls[0][0]))
    ts, _ = fit(STEP, start(), [spoiled[3]], check_finite=False, progress=False)
    assert torch.isnan(ts.params["w"]).any()


@pytest.mark.parametrize("key", [KEY, None])
def test_the_rows_of_the_batch_are_told(key):
    rows = ROWS.clone()
    rows[7, 0] = math.inf
    order = torch.arange(24) if key is None else random.permutation(key, 24)
    place = int((order == 7).nonzero()) // 6
    told = ", ".join(map(str, order[6 * place : 6 * place + 6].tolist()))
    with pytest.raises(NonFiniteError, match=rf"batch {place}, rows \[{told}\]\)"):
        fit(STEP, start(), lambda _: data.batches(key, rows, 6), progress=False)


def test_where_the_batch_is_finite_the_state_is_named():
    huge = make_step(lambda p, s, b, k: (p["w"].sum() * torch.tensor(3e38) * b, (s, {})), optim.sgd(1.0))
    ts = huge.init({"w": torch.tensor([1.0, 1.0])}, {}, KEY)
    with pytest.raises(NonFiniteError, match=r"step 1 is inf .*epoch 0, batch 0"):
        fit(huge, ts, [torch.tensor(1.0)], progress=False)


def test_ctrl_c_ends_the_step_and_saves():
    saves = Saves()
    before = signal.getsignal(signal.SIGINT)

    def interrupting(ts, batch):
        if int(ts.step) == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return STEP(ts, batch)

    with pytest.raises(KeyboardInterrupt, match=r"interrupted after step 8, at start=\(1, 2\)"):
        fit(interrupting, start(), batches, epochs=3, save=saves, progress=False)
    assert signal.getsignal(signal.SIGINT) is before
    ts, step, position, _ = saves.calls[-1]
    assert (step, position["epoch"], position["batch"]) == (8, 1, 2)
    end, _ = fit(STEP, ts, batches, epochs=3, start=position, progress=False)
    assert same(end, fit(STEP, start(), batches, epochs=3, progress=False)[0])


def test_a_run_in_another_thread_leaves_signals_alone():
    found = []
    thread = threading.Thread(target=lambda: found.append(fit(STEP, start(), batches, epochs=1, progress=False)))
    thread.start()
    thread.join()
    assert same(found[0][0], fit(STEP, start(), batches, epochs=1, progress=False)[0])


def test_means_are_exact_over_more_steps_than_are_held():
    values = torch.arange(1000, dtype=torch.float64)
    _, history = fit(lambda ts, batch: (ts, {"loss": batch}), None, list(values), progress=False)
    assert history == [{"loss": values.mean().item()}]
    _, history = fit(lambda ts, batch: (ts, {"loss": 0.1}), None, list(range(3)), progress=False)
    assert history == [{"loss": pytest.approx(0.1, rel=1e-15)}]
