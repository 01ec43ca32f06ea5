"""A run that ends anywhere goes on from its last checkpoint to the bits of one that never stopped."""

import os
import random as python_random
import signal
import subprocess
import sys
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from funcnet import Model, data, fit, jit, make_step, optim, random, tree
from funcnet.checkpoint import Checkpoints
from funcnet.train import LossScale

KEY = random.key(11)
MODEL = Model(lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 3)))
X = random.normal(KEY, (48, 4))
ROWS = {"x": X, "label": X[:, :3].argmax(1)}
EPOCHS = 3


def loss(params, state, batch, key):
    logits, state = MODEL.apply(params, state, batch["x"], key=key, train=True)
    return F.cross_entropy(logits, batch["label"]), (state, {})


STEP = make_step(loss, optim.adamw(1e-2), ema=0.9, clip=1.0, loss_scale=LossScale.create(2.0**8))


def batches(epoch):
    return data.batches(random.fold_in(KEY, epoch), ROWS, 8)


def start():
    return STEP.init(*MODEL.init(KEY), KEY)


class StoppedError(Exception):
    pass


def until(count, step):
    """The step, which fails at some call."""
    calls = iter(range(count))

    def run(ts, batch):
        if next(calls, None) is None:
            raise StoppedError
        return step(ts, batch)

    return run


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("stop", [2, 7, 11])
def test_a_run_that_failed_goes_on_from_its_checkpoint(tmp_path, compiled, stop):
    step = jit(STEP, donate=0, backend="aot_eager") if compiled else STEP
    whole, _ = fit(step, start(), batches, epochs=EPOCHS, progress=False)
    with Checkpoints(tmp_path) as saves, pytest.raises(StoppedError):
        fit(until(stop, step), start(), batches, epochs=EPOCHS, save=saves.save, save_every=4, progress=False)
    with Checkpoints(tmp_path) as saves:
        ts, position = start(), (0, 0)
        if (found := saves.restore(like=ts)) is not None:
            ts, position = found[0], found[1].position
        assert int(ts.step) == stop // 4 * 4 if stop < 6 else int(ts.step) >= 4
        end, _ = fit(step, ts, batches, epochs=EPOCHS, start=position, save=saves.save, save_every=4, progress=False)
        last = saves.restore(like=start())[0]
    for a, b, c in zip(*map(tree.leaves, (end, whole, last)), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


CHILD = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
from test_resume import *
torch.set_num_threads({threads})  # by which sums are rounded
with Checkpoints({folder!r}, keep_last=2) as saves:
    ts, position = start(), (0, 0)
    found = saves.restore(like=ts)
    if found is not None:
        ts, position = found[0], found[1].position
    print("ready", flush=True)
    fit(STEP, ts, batches, epochs=40, start=position, save=saves.save, save_every=1, progress=False)
print("done", flush=True)
"""


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_in_the_same_bits(tmp_path):
    whole, _ = fit(STEP, start(), batches, epochs=40, progress=False)
    here = os.path.dirname(__file__)
    root, threads = os.path.dirname(os.path.dirname(here)), torch.get_num_threads()
    code = CHILD.format(tests=here, root=root, folder=str(tmp_path), threads=threads)
    moments = python_random.Random(5)
    for kills in range(60):
        command = [sys.executable, "-W", "ignore", "-c", code]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout.readline() == "ready\n"
            time.sleep(moments.uniform(0.0, 0.15) if kills < 50 else 60)
            child.send_signal(signal.SIGKILL)
            rest = child.stdout.read()
        if "done" in rest:
            break
    assert kills >= 3
    with Checkpoints(tmp_path) as saves:
        end, manifest = saves.restore(like=start())
    assert manifest.step == 240
    for a, b in zip(tree.leaves(end), tree.leaves(whole), strict=True):
        assert torch.equal(a, b)
