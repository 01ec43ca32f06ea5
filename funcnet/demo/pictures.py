"""The demo's two pictures. Figures are made as objects: nothing of a session's matplotlib is touched."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from funcnet.checkpoint.files import whole
from funcnet.demo.models import BATCH_SIZE
from funcnet.demo.speed import Speed
from funcnet.demo.training import Trained

__all__ = ["draw_curves", "draw_speed"]

COLOURS = ("#1f6fb4", "#d95f0e", "#4d9221")


def draw_curves(results: list[Trained], path: Path) -> None:
    """Loss and accuracy of every model by epoch, on the training part (dashed) and on the test part."""
    figure = _figure(9.5, 4.2)
    losses, accuracies = figure.subplots(1, 2)
    for colour, trained in zip(COLOURS, results, strict=False):
        epochs = range(1, len(trained.history) + 1)
        for axes, metric in ((losses, "loss"), (accuracies, "accuracy")):
            axes.plot(
                epochs, _column(trained, metric), "--", color=colour, alpha=0.6, label=f"{trained.recipe.name}, train"
            )
            label = f"{trained.recipe.name}, test"
            if metric == "accuracy":
                label += f" ({trained.accuracy:.2%} at the end)"
            axes.plot(epochs, _column(trained, f"test_{metric}"), color=colour, label=label)
    losses.set(title="Cross-entropy", xlabel="epoch", ylabel="loss (nats)")
    accuracies.set(title="Accuracy", xlabel="epoch", ylabel="digits classified correctly", ylim=(0.88, 1.002))
    accuracies.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    for axes in (losses, accuracies):
        axes.legend(frameon=False)
        _tidy(axes)
    figure.suptitle("Handwritten digits (those to train on are shifted; labels are smoothed by 0.1)", fontsize=11)
    _save(figure, path)


def draw_speed(speeds: list[Speed], path: Path) -> None:
    """A bar for each model and way, with the quartiles of its steps."""
    figure = _figure(7.5, 4.2)
    axes = figure.subplots()
    ways = list(speeds[0].timings)
    width = 0.8 / len(ways)
    for n, (way, colour) in enumerate(zip(ways, COLOURS, strict=False)):
        timings = [speed.timings[way] for speed in speeds]
        places = [i + (n - (len(ways) - 1) / 2) * width for i in range(len(speeds))]
        medians = [1e3 * timing.median for timing in timings]
        spread = [
            [1e3 * (timing.median - timing.low) for timing in timings],
            [1e3 * (timing.high - timing.median) for timing in timings],
        ]
        axes.bar(places, medians, 0.92 * width, yerr=spread, capsize=4, color=colour, ecolor="0.25", label=way)
        for place, timing in zip(places, timings, strict=True):
            text = f"{1e3 * timing.median:.2f}"
            axes.annotate(text, (place, 1e3 * timing.high), (0, 4), textcoords="offset points", ha="center", fontsize=9)
    axes.set_xticks(range(len(speeds)), [speed.name for speed in speeds])
    axes.set(title=f"One training step on a batch of {BATCH_SIZE} digits", ylabel="time (ms); bars: the quartiles")
    axes.margins(y=0.12)
    axes.legend(frameon=False, loc="upper left")
    _tidy(axes)
    _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _column(trained: Trained, metric: str) -> list[float]:
    return [entry[metric] for entry in trained.history]


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)


def _save(figure: Figure, path: Path) -> None:
    with whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
