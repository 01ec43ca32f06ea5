"""Timing: turns in blocks, paired ratios, intervals, arguments of one's own."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from funcnet import bench, random
from funcnet.bench import timing


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when a function says so."""
    now = [0.0]
    monkeypatch.setattr(timing, "timer", lambda: now[0])

    def advance(seconds):
        now[0] += seconds

    return advance


def test_functions_take_turns_with_one_call_uncounted(clock):
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    bench.compare(functions, rounds=2, block=3)
    assert "".join(calls) == "aaaabbbb" * 2
    calls.clear()
    bench.compare(functions, rounds=2, block={"a": 1, "b": 3})
    assert "".join(calls) == "aabbbb" * 2


def test_medians_quartiles_and_paired_ratios(clock):
    taken = {"slow": [9.0, 2.0, 2.0, 9.0, 40.0, 40.0], "fast": [8.0, 1.0, 1.0, 9.0, 10.0, 10.0]}
    queues = {name: iter(seconds) for name, seconds in taken.items()}
    functions = {name: lambda queue=queue: clock(next(queue)) for name, queue in queues.items()}
    timings = bench.compare(functions, rounds=2, block=2)
    assert timings["slow"].rounds == pytest.approx((2.0, 40.0))
    assert timings["slow"].median == pytest.approx(21.0)
    assert (timings["slow"].low, timings["slow"].high) == pytest.approx((2.0, 40.0))
    assert timings["slow"].over(timings["fast"]) == pytest.approx((3.0, 2.0, 4.0))
    assert (timings["slow"].first, timings["fast"].first) == pytest.approx((9.0, 8.0))


def test_one_call_has_no_spread(clock):
    timing = bench.compare({"one": lambda: clock(0.5)}, rounds=1, block=1)["one"]
    assert (timing.low, timing.median, timing.high) == pytest.approx((0.5, 0.5, 0.5))
    assert timing.over(timing) == pytest.approx((1.0, 1.0, 1.0))


@given(st.integers(1, 60))
def test_the_interval_is_the_narrowest_that_holds_the_median_in_95_of_100(count):
    """The median lies below the k-th of n sorted samples where fewer than k fall under it: a fair coin's law."""
    below = lambda k: sum(math.comb(count, i) for i in range(k)) / 2**count  # noqa: E731
    ratios = bench.Timing(1.0, 1.0, 1.0, tuple(map(float, range(1, count + 1))), 1.0)
    ones = bench.Timing(1.0, 1.0, 1.0, (1.0,) * count, 1.0)
    _, low, high = ratios.over(ones)
    assert low + high == count + 1
    assert below(int(low)) <= 0.025 or low == 1.0
    assert below(int(low) + 1) > 0.025


def test_every_function_has_arguments_of_its_own():
    start = random.normal(random.key(0), (3,))
    seen = {"one": [], "two": []}

    def step(name):
        def run(ts, batch):
            seen[name].append(ts.clone())
            return ts.mul_(2), batch  # as a donating step may

        return run

    before = start.clone()
    bench.compare({n: step(n) for n in seen}, (start, torch.tensor(1.0)), carry=True, rounds=2, block=2)
    assert torch.equal(start, before)
    for states in seen.values():
        assert len(states) == 6
        for i, state in enumerate(states):
            torch.testing.assert_close(state, before * 2**i)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"functions": {}}, "at least one of functions, and was given 0"),
        ({"rounds": 0}, "at least one of rounds, and was given 0"),
        ({"block": -1}, "at least one of block, and was given -1"),
    ],
)
def test_nothing_to_time(options, message):
    with pytest.raises(ValueError, match=message):
        bench.compare(**{"functions": {"one": lambda: None}, **options})
