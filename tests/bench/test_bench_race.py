"""A race on ways whose faults are known: what fails is told in its cell, and the others go on."""

import importlib
import os
import sys
from pathlib import Path

import pytest
import torch

from funcnet import bench, random
from funcnet.bench import memory, ways
from funcnet.bench.race import race
from funcnet.bench.result import Cell, Report, ReportError, Result
from funcnet.bench.subject import Running, Setting, Subject, Way, bytes_of
from funcnet.bench.workloads import WORKLOADS

X = random.normal(random.key(0), (300,))


def way(function, **options):
    return Way(lambda: Running(function, lambda: bytes_of(X)), **options)


def broken():
    raise RuntimeError("no such kernel\nand more")


def after(calls):
    """A step that breaks after so many calls."""
    left = [calls]

    def step():
        left[0] -= 1
        if left[0] < 0:
            raise MemoryError("all gone")
        return X

    return step


def test_ways_that_fail_differ_or_are_absent_have_their_reason_in_the_cell():
    ways = {
        "plain": way(lambda: X),
        "off": way(lambda: X * 1.01),
        "nan": way(lambda: X * float("nan")),
        "shorter": way(lambda: X[:2]),
        "broken": way(broken),
        "late": way(after(20)),
        "absent": way(broken, absent="needs a GPU"),
        "near": way(lambda: {"a": X[:100] * (1 + 1e-6), "b": X[100:]}),
    }
    told = []
    result = race(Subject("s", ways, ("plain",)), rounds=3, seconds=0.001, told=told.append)
    failures = {name: cell.failure for name, cell in result.cells.items() if cell.failure}
    assert set(failures) == {"off", "nan", "shorter", "broken", "late"}
    assert failures["broken"] == "RuntimeError: no such kernel"
    assert failures["late"] == "MemoryError: all gone"
    assert failures["off"].startswith("returns ")
    assert "at step 2, where plain returns" in failures["off"]
    assert result.cells["absent"].absent == "needs a GPU"
    assert sorted(result.ran()) == ["near", "plain"]
    assert result.over("plain", "plain").value == 1.0
    assert result.over("broken", "plain") is None
    assert told[0] == "s: plain starts"
    report = Report(bench.environment(), bench.Limits(1.0, 1.0), [result])
    assert len(report.failures) == 5
    assert report.absences == ["s, absent: needs a GPU"]


def test_long_steps_are_timed_in_fewer_rounds(monkeypatch):
    ways = {"one": way(lambda: X.exp()), "two": way(lambda: X.exp())}
    for seconds, rounds in ((0.0, 6), (60.0, 8)):
        monkeypatch.setattr(importlib.import_module("funcnet.bench.race"), "_LONGEST", seconds)
        result = race(Subject("s", ways, ("one",)), rounds=8, seconds=0.0001)
        assert {len(cell.timing.rounds) for cell in result.cells.values()} == {rounds}


def test_without_rounds_ways_are_compared_and_not_timed():
    result = race(Subject("s", {"one": way(lambda: X), "two": way(lambda: X * 2)}, ("one",)), rounds=0)
    assert result.ran() == []
    assert result.cells["one"].failure is None
    assert "where one returns" in result.cells["two"].failure


def test_a_compiled_way_is_started_twice_with_empty_caches_first():
    starts = []

    def make():
        starts.append(1)
        return Running(lambda: X, lambda: 0)

    result = race(Subject("s", {"one": Way(make, compiled=True)}, ()), rounds=1, seconds=0.001)
    assert len(starts) == 2
    cell = result.cells["one"]
    assert cell.cold > 0
    assert cell.cached > 0
    assert len(cell.warmup) == 10
    assert cell.compile_seconds <= cell.cold
    race(Subject("s", {"one": Way(make, compiled=True)}, ()), rounds=1, seconds=0.001, cold=False)
    assert len(starts) == 3


def test_no_way_is_compiled_again_once_another_has_started():
    """Torch forgets what it compiled when its caches are emptied: for ways that run, in the middle of the rounds."""
    compiled = []

    def make(name):
        def backend(graph, inputs):
            compiled.append(name)
            return graph

        return Running(torch.compile(lambda: X * len(name) / len(name), backend=backend), lambda: 0)

    ways = {name: Way(lambda name=name: make(name), compiled=True) for name in ("first", "other", "third")}
    cells = race(Subject("s", ways, ("first",)), rounds=2, seconds=0.001).cells
    assert not any(cell.failure for cell in cells.values())
    assert sorted(compiled) == ["first"] * 2 + ["other"] * 2 + ["third"] * 2


def test_each_way_has_caches_of_its_own_empty_at_first_and_filled_at_its_second_start():
    seen = {"one": [], "two": []}
    running = []
    outside = os.environ.get("TORCHINDUCTOR_CACHE_DIR")

    def make(name):
        running.append(name)

        def step():
            folder = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR", ""))
            if len(seen[name]) < 2:
                seen[name].append((folder, [found.name for found in folder.iterdir()] if folder.exists() else []))
                folder.mkdir(exist_ok=True)
                (folder / name).touch()
            return X

        return Running(step, lambda: 0)

    ways = {name: Way(lambda name=name: make(name), compiled=True) for name in seen}
    race(Subject("s", ways, ()), rounds=1, seconds=0.001)
    assert running == ["one", "two", "one", "two"]
    for name, ((cold, nothing), (warm, filled)) in seen.items():
        assert (nothing, filled, warm) == ([], [name], cold)
        assert not cold.exists()
    assert seen["one"][0][0] != seen["two"][0][0]
    assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == outside


def test_what_a_step_takes_may_be_told_by_the_way():
    told = {"planned": lambda: 1 << 30, "unknown": lambda: None}
    ways = {name: Way(lambda taken=taken: Running(lambda: X, lambda: 5, taken=taken)) for name, taken in told.items()}
    cells = race(Subject("s", ways, ()), rounds=1, seconds=0.001).cells
    assert (cells["planned"].peak, cells["unknown"].peak) == ((1 << 30) + 5, None)


def test_what_torch_keeps_unused_on_a_gpu_is_free(monkeypatch):
    for name, value in (("mem_get_info", (100, 900)), ("memory_reserved", 50), ("memory_allocated", 20)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert memory.free("cuda") == 130


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process its peak")
def test_the_peak_is_what_is_held_and_what_a_step_takes():
    held = torch.ones(1 << 22)  # 16 MiB

    def large():
        return (held + 1).square().sum()  # 32 MiB more

    ways = {"large": Way(lambda: Running(large, lambda: bytes_of(held)))}
    peak = race(Subject("s", ways, ()), rounds=1, seconds=0.001).cells["large"].peak
    assert 47 < peak / 2**20 < 56


def test_a_report_comes_back_as_it_was_written(tmp_path):
    result = race(
        Subject("s", {"one": way(lambda: X), "two": way(broken)}, ("one",), 4, "image", {"batch": 4}, 12),
        rounds=2,
        seconds=0.001,
    )
    report = Report(bench.environment(), bench.Limits(2.0, 3.0), [result])
    path = tmp_path / "deep" / "report.json"
    report.save(path)
    assert [found.name for found in path.parent.iterdir()] == ["report.json"]
    again = Report.load(path)
    assert again == report
    assert again.results[0].cells["one"].timing.over(result.cells["one"].timing).value == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read .*: No such file"),
        ("{", "holds no report of `funcnet bench --out`"),
        ("[]", "holds no report"),
        ('{"environment": {}, "limits": {"flops": 1}, "results": []}', "holds no report"),
    ],
)
def test_what_is_no_report(text, message, tmp_path):
    path = tmp_path / "report.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ReportError, match=message):
        Report.load(path)


def timed(**seconds):
    """A result whose ways took so long in both of two rounds."""
    cells = {
        name: Cell(timing=bench.Timing(s, s, s, (s, s), s), peak=int(s), cold=s, compiled=True)
        for name, s in seconds.items()
    }
    return Result("s", 1, "step", {}, ["a"], cells)


def test_the_fastest_of_several_is_what_a_way_is_set_against():
    result = timed(a=4.0, b=2.0, c=3.0)
    assert result.ran() == ["b", "c", "a"]
    assert result.over("c", "a", "b").value == 1.5
    assert result.over("c", "a").value == 0.75
    assert result.over("c", "nothing") is None


def test_a_way_that_does_not_fit_is_not_begun(monkeypatch):
    monkeypatch.setattr(importlib.import_module("funcnet.bench.race"), "free", lambda device: 10 << 20)
    cells = race(ways.training(WORKLOADS["mlp"]("cpu"), Setting(torch.device("cpu"))), rounds=0).cells
    assert {cell.absent for cell in cells.values()} == {"needs about 17.3 MB of memory, and 10.5 MB are free"}
    there = iter([1 << 30, 1 << 20])
    monkeypatch.setattr(importlib.import_module("funcnet.bench.race"), "free", lambda device: next(there))
    two = Subject("two", {name: Way(lambda: Running(lambda: 1.0, lambda: 0)) for name in "ab"}, ("a",), memory=2 << 20)
    cells = race(two, rounds=0).cells
    assert cells["a"].absent is None
    assert (
        cells["b"].absent
        == "needs about 2.10 MB of memory, and 1.05 MB are free beside 1 at work: choose fewer (--ways)"
    )
    fitting = ways.training(WORKLOADS["mlp"]("cpu"), Setting(torch.device("cpu")))
    assert fitting.ways["module"].absent is None
    assert fitting.flops == 3 * 2 * 64 * (784 * 512 + 512 * 256 + 256 * 10) - 2 * 64 * 784 * 512
