"""How runs end, and go on after their end: counted in steps, interrupted, or with a loss that is not finite."""

import copy
import json
import os
import signal

import pytest
import torch

from funcnet import fit, make_step, optim, random, tree
from funcnet.train import CSVLog, JSONLinesLog, NonFiniteError
from funcnet.train.failures import Watch

KEY = random.key(4)
BATCHES = [random.normal(random.key(i), (4, 3)) for i in range(6)]


def loss(params, state, batch, key):
    return ((batch @ params["w"] - 1) ** 2).mean(), (state, {})


STEP = make_step(loss, optim.adam(0.05))


def start():
    return STEP.init({"w": torch.tensor([1.0, -2.0, 0.5])}, {}, KEY)


class Kept:
    """What `save` was given, without a copy, as a program may keep it."""

    def __init__(self):
        self.states, self.positions = [], []

    def __call__(self, ts, step, *, position, metrics=None):
        self.states.append(ts)
        self.positions.append(position)


def logged(folder):
    return (folder / "log.csv").read_text(), (folder / "log.jsonl").read_text()


@pytest.mark.parametrize("steps", [4, 6, 9, 12])
@pytest.mark.parametrize("save_every", [None, 1])
def test_a_run_of_steps_goes_on_after_its_last_as_if_it_had_not_ended(tmp_path, steps, save_every):
    kept, measured = Kept(), {"evaluate": lambda ts: {"size": ts.params["w"].norm()}}

    def run(ts, **options):
        logs = [CSVLog(tmp_path / "log.csv"), JSONLinesLog(tmp_path / "log.jsonl")]
        return fit(STEP, ts, BATCHES, steps=steps, log=logs, log_every=4, progress=False, **measured, **options)

    whole, history = run(start(), save=kept, save_every=save_every)
    rows = logged(tmp_path)
    assert len(history) == -(-steps // 6)
    for ts, position in list(zip(kept.states, kept.positions, strict=True))[-2:]:  # killed before the end, and after it
        again, rest = run(ts, start=json.loads(json.dumps(position)))
        assert torch.equal(again.params["w"], whole.params["w"])
        assert rest == history
        assert logged(tmp_path) == rows


def test_a_saved_position_stays_what_it_was():
    kept, told = Kept(), []
    fit(STEP, start(), BATCHES, epochs=3, save=kept, callbacks=[lambda now: now.metrics.clear()], progress=False)
    assert [(p["epoch"], len(p["history"])) for p in kept.positions] == [(1, 1), (2, 2), (3, 3)]
    assert all(entry["loss"] > 0 for p in kept.positions for entry in p["history"])
    before = copy.deepcopy(kept.positions[0])
    fit(STEP, kept.states[0], BATCHES, epochs=3, start=kept.positions[0], callbacks=[told.append], progress=False)
    assert kept.positions[0] == before


def test_a_state_that_counts_no_steps_goes_on_in_its_logs(tmp_path):
    kept = Kept()

    def run(ts, epochs, **options):
        def step(ts, batch):
            return ts + batch.sum(), {"loss": batch.square().mean()}

        log = [JSONLinesLog(tmp_path / "log.jsonl")]
        return fit(step, ts, BATCHES, epochs=epochs, log=log, progress=False, **options)

    half, _ = run(torch.zeros(()), 2, save=kept)
    whole, _ = run(half, 3, start=kept.positions[-1])
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [6, 12, 18]
    again, _ = run(half, 3, start=(2, 0))  # where no one knows how many steps are behind, no row is taken back
    assert torch.equal(again, whole)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 4


def test_nothing_that_is_not_finite_is_saved(monkeypatch):
    def waits(self, place, metrics):  # as for a loss on a device
        self._waiting.append((place, metrics["loss"]))

    monkeypatch.setattr(Watch, "add", waits)
    kept = Kept()
    rows = [*BATCHES[:3], BATCHES[3] * torch.inf, *BATCHES[4:]]
    with pytest.raises(NonFiniteError, match=r"the loss of step 4 is (inf|nan) \(epoch 0, batch 3\)"):
        fit(STEP, start(), rows, epochs=2, save=kept, save_every=1, progress=False)
    assert [position["batch"] for position in kept.positions] == [1, 2, 3]
    assert all(bool(torch.isfinite(leaf).all()) for ts in kept.states for leaf in tree.leaves(ts))


@pytest.mark.parametrize("when", ["evaluate", "save", "callback"])
def test_ctrl_c_at_the_end_of_the_last_epoch_is_not_swallowed(when):
    def press(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)
        return {}

    kept = Kept()
    ways = {"evaluate": {"evaluate": press}, "save": {"save": press}, "callback": {"callbacks": [press]}}
    with pytest.raises(KeyboardInterrupt, match="interrupted after step 6"):
        fit(STEP, start(), BATCHES, **{"save": kept} | ways[when], progress=False)
    assert len(kept.positions) == (when != "save")
