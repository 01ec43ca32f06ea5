"""A run that is killed again and again ends with the bits of one that was not."""

import os
import subprocess
import sys

import pytest

RUN = """
import os, random as chances, signal, sys, time
import torch
from torch import nn
from funcnet import Model, TrainState, checkpoint, jit, make_step, optim, random, tree
from funcnet.checkpoint import Checkpoints
torch.set_num_threads(1)  # a forked child has no threads of its parent

STEPS, folder, compiled, chance = 60, sys.argv[1], sys.argv[2] == "compiled", chances.Random(5)
model = Model(lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1)))
optimizer = optim.adamw(optim.cosine_decay_schedule(0.1, STEPS))

def loss(params, state, batch, key):
    out, state = model.apply(params, state, batch, key=key, train=True)
    return (out.squeeze(1) - batch.sum(1)).square().mean(), (state, {})

def run(folder):
    step = make_step(loss, optimizer)
    step = jit(step, donate=0, backend="eager") if compiled else step
    ts = TrainState.create(*model.init(random.key(1)), optimizer, random.key(2))
    data, at = random.key(3), 0
    with Checkpoints(folder, keep_last=2, keep_best=1) as checkpoints:
        found = checkpoints.restore(ts)
        if found:
            ts, at = found[0], found[1].position["batch"]
        while at < STEPS:
            ts, metrics = step(ts, random.normal(random.fold_in(data, at), (16, 4)))
            at += 1
            checkpoints.save(ts, at, metrics=metrics, position={"batch": at})

def forked(folder):
    child = os.fork()
    if not child:
        code = 1
        try:
            run(folder)
            code = 0
        finally:
            os._exit(code)
    return child

def newest(folder):
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return max((int(name[5:]) for name in names if name.startswith("step-")), default=0)

assert os.waitpid(forked(folder + "/whole"), 0)[1] == 0
kills, status = 0, 1
while status != 0:
    child = forked(folder + "/killed")
    goal = newest(folder + "/killed") + chance.randrange(1, 12)
    done, status = os.waitpid(child, os.WNOHANG)
    while not done and newest(folder + "/killed") < goal:
        time.sleep(0.001)
        done, status = os.waitpid(child, os.WNOHANG)
    if not done:
        time.sleep(chance.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kills += os.WIFSIGNALED(status)
    assert status in (0, signal.SIGKILL), status
whole, killed = (checkpoint.load(checkpoint.latest(f"{folder}/{which}")) for which in ("whole", "killed"))
assert int(whole.step) == int(killed.step) == STEPS
for (path, a), b in zip(tree.leaves_with_path(whole), tree.leaves(killed), strict=True):
    assert a.dtype == b.dtype and torch.equal(a, b), path
print(kills)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("way", ["eager", pytest.param("compiled", marks=pytest.mark.slow)])
def test_a_killed_run_ends_bit_for_bit_as_one_that_was_not(tmp_path, way):
    command = [sys.executable, "-c", RUN, str(tmp_path), way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 4
