"""A batch in parts makes the step of the whole batch, for every optimizer."""

import sys
from functools import cache
from pathlib import Path

import pytest
import torch

from funcnet import make_step, optim, random, tree

sys.path.insert(0, str(Path(__file__).parent))
from registry import OPTIMIZERS
from running import close, example

ROWS = 12


def loss(params, state, batch, key):
    rows, target = batch
    output = torch.tanh(rows @ params["a"]) * params["b"]["c"] + params["b"]["d"]
    return ((output - target) ** 2).mean(), (state, {})


@cache
def batches():
    keys = random.split(random.key(5), 6)
    return [
        (random.normal(a, (ROWS, 2)).double(), random.normal(b, (ROWS, 3)).double())
        for a, b in zip(keys[:3], keys[3:], strict=True)
    ]


@pytest.mark.parametrize("case", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("parts", [2, 3, 12])
def test_parts_make_the_step_of_the_whole(case, parts):
    ends = []
    for count in (1, parts):
        step = make_step(loss, case.build(optim), accumulate=count)
        ts = step.init(example(dtype=torch.float64), {}, random.key(0))
        for batch in batches():
            ts, _ = step(ts, batch)
        ends.append(ts)
    close(ends[1].params, ends[0].params, rtol=1e-12, atol=1e-12)
    assert not any(torch.equal(x, y) for x, y in zip(tree.leaves(ends[0].params), tree.leaves(example()), strict=True))
