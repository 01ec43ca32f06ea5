"""Profiles of steps whose operations are known."""

import json
import time

import pytest
import torch

from funcnet import jit, make_step, optim, random, tree
from funcnet.diagnostics import profile

KEY = random.key(9)


def problem(**options):
    def loss(params, state, batch, key):
        return (batch @ params["w"]).tanh().sum(), (state, {})

    step = make_step(loss, optim.adam(1e-3), **options)
    return step, step.init({"w": random.normal(KEY, (16, 8))}, {}, KEY), random.normal(KEY, (32, 16))


def by_name(found):
    return {one.name: one for one in found.operations}


@pytest.mark.parametrize("options", [{}, {"donate": True}])
def test_operations_of_a_step(options):
    step, ts, batch = problem(**options)
    before = tree.map(torch.clone, (ts, batch))
    found = profile(step, ts, batch, steps=3, warmup=1)
    names = by_name(found)
    assert names["aten::tanh"].calls == 1
    # Forward, and the gradient of the weight.
    assert names["aten::mm"].calls == 2
    assert names["aten::mm"].flops == 2 * 2 * 32 * 16 * 8
    assert len(found.seconds) == 3
    assert min(found.seconds) <= found.median <= max(found.seconds)
    assert 0 <= found.outside < 1
    assert all(one.device_seconds == 0 for one in found.operations)
    selves = [one.seconds for one in found.operations]
    assert selves == sorted(selves, reverse=True)
    assert sum(selves) <= found.profiled * 1.001
    assert sum(map(found.share, found.operations)) + found.outside == pytest.approx(1, abs=0.1)
    for a, b in zip(tree.leaves(before), tree.leaves((ts, batch)), strict=True):
        assert torch.equal(a, b)


def test_a_donating_compiled_step_goes_on_from_its_own_state():
    step, ts, batch = problem()
    run = jit(step, donate=0, backend="aot_eager")
    counts = []

    def watched(ts, batch):
        counts.append(int(ts.step))
        return run(ts, batch)

    profile(watched, ts, batch, steps=2, warmup=3)
    assert counts == list(range(7))
    assert run.compiles == 1


def test_any_function_is_given_the_same_arguments_each_time():
    seen = []

    def function(x, n):
        seen.append((x.clone(), n))
        return x + n

    profile(function, torch.ones(2), 3, steps=2, warmup=0)
    assert len(seen) == 4
    assert all(torch.equal(x, torch.ones(2)) and n == 3 for x, n in seen)


def test_python_is_outside_of_operations():
    def slow(x):
        time.sleep(0.02)
        return x + 1

    found = profile(slow, torch.ones(2), steps=2, warmup=0)
    assert found.outside > 0.8
    assert found.median >= 0.02


def test_the_trace_is_json_and_whole(tmp_path):
    step, ts, batch = problem()
    path = tmp_path / "trace.json"
    profile(step, ts, batch, steps=1, trace=path)
    names = {event.get("name") for event in json.loads(path.read_text())["traceEvents"]}
    assert {"aten::mm", "aten::tanh"} <= names
    assert [left.name for left in tmp_path.iterdir()] == ["trace.json"]


def test_the_table():
    step, ts, batch = problem()
    found = profile(step, ts, batch, steps=2)
    lines = str(found).splitlines()
    assert lines[0].split() == ["operation", "calls", "self,", "ms", "share", "FLOPs"]
    assert len(lines) == 1 + 15 + 2
    assert lines[-1].startswith("a step takes ")
    assert lines[-1].endswith("outside of operations")


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"steps=0, warmup=2: at least one step"):
        profile(torch.sin, torch.ones(1), steps=0)
    with pytest.raises(ValueError, match=r"'a\.json\.gz' would not be compressed"):
        profile(torch.sin, torch.ones(1), trace="a.json.gz")
