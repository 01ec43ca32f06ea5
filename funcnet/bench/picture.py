"""A report as a picture: for each subject the time of every way over that of the fastest reference."""

from pathlib import Path

from matplotlib.figure import Figure

from funcnet.bench.result import Report

__all__ = ["draw"]


_WIDEST = 3.0


def draw(report: Report, path: Path) -> None:
    """Draw horizontal bars with their confidence intervals, one panel a subject."""
    results = [result for result in report.results if result.ran()]
    heights = [len(result.ran()) + 1.5 for result in results] or [1.0]
    figure = Figure((8, 0.28 * sum(heights) + 0.6), layout="constrained")
    panels = figure.subplots(max(len(results), 1), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, result in zip(panels, results, strict=False):
        names = [name for name in result.cells if name in result.ran()]
        ratios = [(name, result.over(name, *(result.reference or names))) for name in reversed(names)]
        for name, ratio in ((name, ratio) for name, ratio in ratios if ratio is not None):
            color = "0.7" if name in result.reference else "C0"
            spread = [[ratio.value - ratio.low], [ratio.high - ratio.value]]
            axes.barh(name, ratio.value, xerr=spread, color=color, ecolor="0.3", capsize=2)
            place = min(ratio.high, _WIDEST) + 0.05
            axes.text(place, name, f"{ratio.value:.2f}", va="center", fontsize=8)
        axes.axvline(1.0, color="0.2", linewidth=0.8)
        axes.set_title(result.name, loc="left", fontsize=10)
        axes.set_xlim(0, _WIDEST + 0.3)  # what is wider is cut, and has its figure
        axes.tick_params(labelsize=8)
    panels[-1].set_xlabel(
        "time over that of the fastest reference (95 % intervals; of fewer than six rounds, their range)"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
