"""Timing: turns in blocks, paired ratios, percentiles."""

import pytest

from funcnet import bench


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when a function says so."""
    now = [0.0]
    monkeypatch.setattr(bench.time, "perf_counter", lambda: now[0])

    def advance(seconds):
        now[0] += seconds

    return advance


def test_functions_take_turns_with_one_call_uncounted(clock):
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    bench.compare(functions, rounds=2, block=3)
    assert "".join(calls) == "aaaabbbb" * 2


def test_medians_percentiles_and_paired_ratios(clock):
    taken = {"slow": [9.0, 2.0, 2.0, 9.0, 40.0, 40.0], "fast": [9.0, 1.0, 1.0, 9.0, 10.0, 10.0]}
    queues = {name: iter(seconds) for name, seconds in taken.items()}
    functions = {name: lambda queue=queue: clock(next(queue)) for name, queue in queues.items()}
    timings = bench.compare(functions, rounds=2, block=2)
    assert timings["slow"].rounds == pytest.approx((2.0, 40.0))
    assert timings["slow"].median == pytest.approx(21.0)
    assert (timings["slow"].low, timings["slow"].high) == pytest.approx((2.0, 40.0))
    assert timings["slow"].over(timings["fast"]) == pytest.approx((3.0, 2.2, 3.8))


def test_one_call_has_no_spread(clock):
    timing = bench.compare({"one": lambda: clock(0.5)}, rounds=1, block=1)["one"]
    assert (timing.low, timing.median, timing.high) == pytest.approx((0.5, 0.5, 0.5))
    assert timing.over(timing) == pytest.approx((1.0, 1.0, 1.0))
