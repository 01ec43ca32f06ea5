"""Tables, targets, changes and pictures of a report with known figures."""

import io

import pytest
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
    row = next(line.split() for line in text.splitlines() if "donating" in line)
    assert row[-5:] == ["2", "1", "0.80", "0.40", "2.00"]
    assert "jax" not in text


def test_a_picture_is_drawn(tmp_path):
    picture = pytest.importorskip("funcnet.bench.picture", exc_type=ImportError)
    picture.draw(report(), tmp_path / "deep" / "bench.png")
    assert (tmp_path / "deep" / "bench.png").read_bytes().startswith(b"\x89PNG\r\n")
