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
    bench.compare(functions, rounds=8, block=3)
    assert {"".join(calls[i : i + 8]) for i in range(0, 64, 8)} == {"aaaabbbb", "bbbbaaaa"}
    before = calls.copy()
    calls.clear()
    bench.compare(functions, rounds=8, block=3)
    assert calls == before  # the orders are the same in every run
    calls.clear()
    bench.compare(functions, rounds=2, block={"a": 1, "b": 3})
    assert sorted(calls) == ["a"] * 4 + ["b"] * 8


def test_no_order_of_three_is_left_out(clock):
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "abc"}
    state = torch.random.get_rng_state()
    bench.compare(functions, rounds=40, block=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len({tuple(calls[i : i + 6]) for i in range(0, 240, 6)}) == 6


class Event:
    """A CUDA event of the clock that only functions move."""

    def __init__(self, now, calls):
        self.now, self.calls, self.at = now, calls, None

    def record(self):
        self.calls.append("|")
        self.at = self.now()

    def synchronize(self):
        self.calls.append("!")

    def elapsed_time(self, other):
        return 1e3 * (other.at - self.at)


@pytest.mark.parametrize(("device", "order", "median"), [("cuda", "sw|sssw|!", 0.5), ("cpu", "swswswsw", 0.7)])
def test_what_is_waited_for_is_timed_a_block_at_a_time_on_a_gpu_and_else_by_calls(
    clock, monkeypatch, device, order, median
):
    """It is the device of the work that decides, and not whether anything has begun to use a GPU."""
    calls = []

    def step():
        calls.append("s")
        clock(0.4)

    def wait():
        calls.append("w")
        clock(0.3)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cpu")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: device == "cpu")
    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: Event(timing.timer, calls))
    found = bench.compare({"one": step}, rounds=1, block=3, waits={"one": wait}, device=device)["one"]
    assert "".join(calls) == order
    assert found.median == pytest.approx(median)
    assert found.first == pytest.approx(0.7)


def test_medians_quartiles_and_paired_ratios(clock):
    taken = {"slow": [9.0, 2.0, 2.0, 9.0, 40.0, 40.0], "fast": [8.0, 1.0, 1.0, 9.0, 10.0, 10.0]}
    queues = {name: iter(seconds) for name, seconds in taken.items()}
    functions = {name: lambda queue=queue: clock(next(queue)) for name, queue in queues.items()}
    timings = bench.compare(functions, rounds=2, block=2)
    assert timings["slow"].rounds == pytest.approx((2.0, 40.0))
    assert timings["slow"].median == pytest.approx(21.0)
    assert (timings["slow"].low, timings["slow"].high) == pytest.approx((2.0, 40.0))
    ratio = timings["slow"].over(timings["fast"])
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((3.0, 2.0, 4.0))
    assert (timings["slow"].first, timings["fast"].first) == pytest.approx((9.0, 8.0))


def test_one_call_has_no_spread(clock):
    timing = bench.compare({"one": lambda: clock(0.5)}, rounds=1, block=1)["one"]
    assert (timing.low, timing.median, timing.high) == pytest.approx((0.5, 0.5, 0.5))
    assert str(timing.over(timing)) == "1.00 (1.00 to 1.00 in 1 rounds)"


@pytest.mark.parametrize(("rounds", "text"), [(5, "3.00 (1.00 to 5.00 in 5 rounds)"), (6, "3.50 (1.00 to 6.00)")])
def test_an_interval_of_95_percent_takes_six_rounds(rounds, text):
    ones = bench.Timing(1.0, 1.0, 1.0, (1.0,) * rounds, 1.0)
    assert str(ones._replace(rounds=tuple(map(float, range(1, rounds + 1)))).over(ones)) == text


@given(st.integers(1, 60))
def test_the_interval_is_the_narrowest_that_holds_the_median_in_95_of_100(count):
    """The median lies below the k-th of n sorted samples where fewer than k fall under it: a fair coin's law."""
    below = lambda k: sum(math.comb(count, i) for i in range(k)) / 2**count  # noqa: E731
    ratios = bench.Timing(1.0, 1.0, 1.0, tuple(map(float, range(1, count + 1))), 1.0)
    ones = bench.Timing(1.0, 1.0, 1.0, (1.0,) * count, 1.0)
    _, low, high, _ = ratios.over(ones)
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
