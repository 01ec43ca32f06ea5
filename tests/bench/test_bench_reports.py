"""Tables, targets, changes and pictures of a report with known figures."""

import io

import pytest
import torch
from rich.console import Console

from funcnet import bench
from funcnet.bench import tables, targets
from funcnet.bench.changes import changes
from funcnet.bench.result import Cell, Report, Result


def cell(seconds, **options):
    return Cell(timing=bench.Timing(seconds, 0.9 * seconds, 1.1 * seconds, (seconds,) * 7, 2 * seconds), **options)


def report(compiled=0.002, name="mlp"):
    cells = {
        "module": cell(0.004, peak=3 << 20),
        "module, fused": cell(0.003, peak=2 << 20),
        "module compiled": cell(0.0025, compiled=True, cold=10.0, cached=2.0, peak=4 << 20),
        "funcnet compiled, donating": cell(compiled, compiled=True, cold=5.002, cached=0.5, peak=2 << 20),
        "jax": Cell(compiled=True, absent="jax is not installed"),
        "TorchOpt": Cell(failure="RuntimeError: no"),
    }
    reference = ["module", "module, fused", "module compiled"]
    result = Result(name, 64, "image", {"batch": 64}, reference, cells, flops=4_000_000_000)
    return Report(bench.environment(), bench.Limits(4e12, 1e10), [result])


def shown(drawn):
    text = io.StringIO()
    Console(file=text, width=220).print(drawn)
    return text.getvalue()


def test_a_table_has_every_figure_in_its_place():
    one = report()
    lines = shown(tables.table(one.results[0], one.limits)).splitlines()
    row = {line.strip().partition("  ")[0]: line.split() for line in lines}
    assert lines[0].strip() == "mlp; batch 64; 4 GFLOP a step"
    ours = " ".join(row["funcnet compiled, donating"])
    # 5 s to compile, against 1 ms saved a step beside the fused optimizer
    for figure in ("2 1.8 to 2.2", "0.80 (0.80 to 0.80)", "5.0 0.5", "5,000 steps", "2.0", "2000.0 (50%)"):
        assert figure in ours
    assert "1.00 (1.00 to 1.00)" in " ".join(row["module compiled"])
    assert "jax: jax is not installed" in row
    assert "TorchOpt: RuntimeError: no" in row


def test_markdown_is_one_table_a_subject_with_what_it_holds_for():
    text = tables.markdown(report())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 6
    assert len({line.count("|") for line in rows}) == 1
    assert "A matrix product reaches 4000 GFLOP/s, and a copy 10.0 GB/s." in text
    assert "torch 2." in text


@pytest.mark.parametrize(("compiled", "met"), [(0.002, True), (0.0024, False)])
def test_targets_are_met_or_not(compiled, met):
    found = {one.target.title: one for one in targets.reached(report(compiled))}
    step = found["compiled step / torch's fastest"]
    assert step.mean == pytest.approx(compiled / 0.0025)
    assert step.met == met
    assert found["first step, nothing cached / torch's compiled step"].mean == pytest.approx(0.5002)
    assert found["first step, cached / torch's compiled step"].mean == pytest.approx(0.25)
    assert found["peak memory of the compiled step / torch's least"].mean == pytest.approx(1.0)
    assert not any("jax" in title or "forward" in title for title in found)
    first = shown(targets.table(list(found.values()))).splitlines()[2]
    assert first.strip().startswith("compiled step / torch's fastest")


def test_one_subject_above_its_bound_misses_a_target_that_the_mean_meets():
    both = report(0.001)
    both.results += report(0.0027, "cnn").results
    step = next(one for one in targets.reached(both) if one.target.title.endswith("torch's fastest"))
    assert step.mean == pytest.approx((0.4 * 1.08) ** 0.5)
    assert step.worst == ("cnn", pytest.approx(1.08))
    assert not step.met


def test_changes_are_those_of_ratios():
    now, then = report(0.002), report(0.001)
    then.environment = then.environment | {"python": "3.0"}
    text = shown(changes(now, then))
    assert "against the older report (of another python)" in text
    row = next(line for line in text.splitlines() if "donating" in line)
    assert row.split("donating")[1].split() == ["2", "1", "0.80", "0.40", "2.00", "module", "compiled"]
    assert "jax" not in text


@pytest.mark.parametrize("missing", ["now", "then"])
def test_changes_are_over_one_reference_that_ran_in_both(missing):
    """The fastest reference of each run may be another way: their ratios say nothing about each other."""
    both = {"now": report(0.002), "then": report(0.001)}
    del both[missing].results[0].cells["module compiled"]
    text = shown(changes(both["now"], both["then"]))
    row = next(line for line in text.splitlines() if "donating" in line)
    assert row.split("donating")[1].split() == ["2", "1", "0.67", "0.33", "2.00", "module,", "fused"]


def test_without_a_reference_in_both_no_ratio_is_compared():
    now, then = report(0.002), report(0.001)
    result = now.results[0]
    result.cells = {name: cell for name, cell in result.cells.items() if name.startswith("funcnet")}
    result.reference = []  # as --ways 'funcnet*' leaves it
    row = next(line for line in shown(changes(now, then)).splitlines() if "donating" in line)
    assert row.split("donating")[1].split() == ["2", "1"]


def test_changes_say_what_else_was_asked_for():
    now, then = report(), report()
    now.environment |= {"run": {"autocast": "bf16", "date": "2030-01-02T03:04:05+00:00"}, "new": 1}
    then.environment |= {"run": {"autocast": None, "date": "2029-01-02T03:04:05+00:00"}}
    then.results[0].settings = {"batch": 32, "widths": [1, 2]}
    now.results[0].settings = {"batch": 64, "widths": (1, 2)}
    lines = [line.strip() for line in shown(changes(now, then)).splitlines()[:4]]
    assert lines[:3] == ["against the older report", "autocast to bf16, was nothing", "mlp: batch 64, was 32"]
    assert "autocast to bf16" in tables.markdown(now)
    assert "2030-01-02" in tables.markdown(now)


def test_compiling_pays_where_a_faster_eager_way_is_surely_beaten():
    one = report()
    result = one.results[0]
    pays = {}
    for rounds in ((0.0029,) * 7, (0.0029, 0.0031) * 4, (0.0031,) * 7):
        result.cells["funcnet compiled, donating"].timing = bench.Timing(0.0029, 0.0029, 0.0031, rounds, 0.1)
        result.cells["module, fused"].timing = bench.Timing(0.003, 0.003, 0.003, (0.003,) * len(rounds), 0.1)
        result.cells["module compiled"].timing = None
        result.cells["module"].timing = None
        row = next(line for line in tables.markdown(one).splitlines() if "donating" in line)
        pays[rounds[:2]] = row.split("|")[7].strip()
    assert pays[0.0029, 0.0029] == "49,991 steps"
    assert pays[0.0029, 0.0031] == "unsure"
    result.cells["funcnet compiled, donating"].timing = bench.Timing(0.0031, 0.0031, 0.0031, (0.0031,) * 7, 0.1)
    row = next(line for line in tables.markdown(one).splitlines() if "donating" in line)
    assert row.split("|")[7].strip() == "never"
    result.reference = ["module compiled"]  # no reference is eager, as where blocks are raced
    row = next(line for line in tables.markdown(one).splitlines() if "donating" in line)
    assert row.split("|")[7].strip() == ""


def test_a_subject_that_could_not_be_built_has_its_reason_in_the_tables_and_the_file(tmp_path):
    one = report()
    one.results.append(Result("gone", 1, "step", {}, [], {}, failure="RuntimeError: no"))
    assert one.failures[0] == "gone: RuntimeError: no"
    assert "gone; RuntimeError: no" in shown(tables.table(one.results[1], one.limits))
    assert "**gone; RuntimeError: no**" in tables.markdown(one)
    one.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == one


def on_gpu(**seconds):
    """A report from a GPU, whose ways took so many milliseconds."""
    ways = {"jax": 4.0, "module": 9.0, "module, fused": 6.0, "module compiled, graphs": 3.0} | {
        "funcnet compiled, donating": 2.5,
        "funcnet compiled, graphs": 2.0,
    }
    cells = {name: cell(1e-3 * seconds.get(name, value)) for name, value in ways.items()}
    found = [Result(name, 1, "step", {}, ["module"], dict(cells), flops=10**9) for name in ("gpt", "mlp")]
    return Report({**bench.environment(), "device": "NVIDIA H200"}, bench.Limits(1e12, 1e12), found)


def test_a_gpu_has_targets_of_its_own_with_graphs_on_both_sides():
    one = on_gpu()
    found = {found.target.title: found for found in targets.reached(one)}
    assert list(found) == [
        "compiled step / torch's fastest",
        "compiled step / jax",
        "compiled step of a small net / nn.Module, its best optimizer",
        "FLOPs of GPT-2's step / of a matrix product",
    ]
    means = [one.mean for one in found.values()]
    assert means == pytest.approx([2 / 3, 2 / 4, 2 / 6, 0.5])
    assert [list(one.ratios) for one in found.values()] == [["gpt", "mlp"], ["gpt", "mlp"], ["mlp"], ["gpt"]]
    assert all(one.met for one in found.values())
    # The faster of our compiled ways counts, and a share of the limit has a lower bound.
    one = on_gpu(**{"funcnet compiled, graphs": 7.0, "funcnet compiled, donating": 2.1})
    met = {found.target.title: found.met for found in targets.reached(one)}
    assert list(met.values()) == [True, True, False, False]
    assert "| at least 0.50 | 0.48 (gpt) |" in targets.markdown(targets.reached(one))


def test_the_worst_has_its_interval():
    step = next(one for one in targets.reached(report(0.0027)) if one.target.title.endswith("torch's fastest"))
    assert "| 1.08 (mlp, 1.08 to 1.08) |" in targets.markdown([step])


def test_the_environment_names_what_drives_a_gpu(monkeypatch):
    for name, value in (("is_available", True), ("get_device_name", "NVIDIA H200")):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    found = bench.environment("cuda")
    assert found["device"] == "NVIDIA H200"
    assert list(found["gpu"]) == ["CUDA", "cuDNN", "driver", "float32 products", "TF32 convolutions"]
    one = report()
    one.environment = found
    assert "float32 products highest" in tables.markdown(one)


def test_a_picture_is_drawn(tmp_path):
    picture = pytest.importorskip("funcnet.bench.picture", exc_type=ImportError)
    picture.draw(report(), tmp_path / "deep" / "bench.png")
    assert (tmp_path / "deep" / "bench.png").read_bytes().startswith(b"\x89PNG\r\n")
