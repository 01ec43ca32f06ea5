"""A report as a picture: for each subject the time of every way over that of the fastest reference."""

from pathlib import Path

from matplotlib.figure import Figure

from funcnet.bench.result import Report

__all__ = ["draw"]


def draw(report: Report, path: Path) -> None:
    """Draw horizontal bars with their confidence intervals, one panel a subject."""
    results = [result for result in report.results if result.ran()]
    heights = [len(result.ran()) + 1.5 for result in results] or [1.0]
    figure = Figure((8, 0.28 * sum(heights) + 0.6), layout="constrained")
    panels = figure.subplots(max(len(results), 1), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, result in zip(panels, results, strict=False):
        names = [name for name in result.cells if name in result.ran()]
        ratios = [(name, result.over(name, *(result.reference or names))) for name in reversed(names)]
        drawn = [(name, ratio) for name, ratio in ratios if ratio is not None]
        values = [ratio.value for _, ratio in drawn]
        spread = [[r.value - r.low for _, r in drawn], [r.high - r.value for _, r in drawn]]
        colors = ["C0" if name.startswith(("funcnet", "compiled", "vmapped")) else "0.7" for name, _ in drawn]
        axes.barh([name for name, _ in drawn], values, xerr=spread, color=colors, ecolor="0.3", capsize=2)
        axes.axvline(1.0, color="0.2", linewidth=0.8)
        axes.set_title(result.name, loc="left", fontsize=10)
        axes.set_xlim(0, min(max([2.0, *values]), 4.0))
        axes.tick_params(labelsize=8)
    panels[-1].set_xlabel("time over that of the fastest reference (bars to 95 %)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
