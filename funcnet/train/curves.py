"""The curves of a run as a picture."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from funcnet.checkpoint.files import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_curves", "save_figure"]

_MOST = 12  # names in a legend
_SIDES = ("train", "val", "valid", "validation", "test", "eval")


def draw_curves(rows: Sequence[Mapping[str, float]]) -> "Figure":
    """Draw metrics over a run, as matplotlib's Figure: `draw_curves(history).savefig("curves.png")`.

    Each metric has one panel, where `loss` and `test_loss`, or `accuracy` and `test_accuracy`, lie together, and so do
    the statistics of all leaves, such as `grad_norm/fc.weight`. Points that are not finite are left out.

    Args:
        rows: the history that `fit` returns, or the rows of a log, which have a `step`. A metric may lack in some.

    Raises:
        ValueError: there is no metric.
        ModuleNotFoundError: matplotlib is not installed.

    >>> figure = draw_curves([{"loss": 2.0, "test_loss": 2.1}, {"loss": 1.0, "test_loss": 1.2}])
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss']
    """
    from matplotlib.figure import Figure

    over = "step" if rows and all("step" in row for row in rows) else "epoch"
    lines: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for number, row in enumerate(rows, start=1):
        for name, value in row.items():
            if name not in ("step", "epoch"):
                points = lines.setdefault(_metric(name), {}).setdefault(name, [])
                if math.isfinite(value):
                    points.append((row.get(over, number), value))
    if not lines:
        raise ValueError("there are no curves to draw: no row has a metric.")
    columns = min(len(lines), 3)
    figure = Figure((4.6 * columns, 3.4 * -(-len(lines) // columns)), layout="constrained")
    panels = figure.subplots(-(-len(lines) // columns), columns, squeeze=False).ravel()
    for axes, (metric, named) in zip(panels, lines.items(), strict=False):
        for name, points in named.items():
            axes.plot(*zip(*points, strict=True) if points else ((), ()), ".-" if len(points) < 30 else "-", label=name)
        axes.set(xlabel=over, ylabel=metric)
        if 1 < len(named) <= _MOST:
            axes.legend()
    for axes in panels[len(lines) :]:
        axes.remove()
    return figure


def save_figure(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, whole or not at all; the folder is made where it is not there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_figure(draw_curves([{"loss": 2.0}, {"loss": 1.0}]), f"{folder}/run/curves.png")
    ...     os.listdir(f"{folder}/run")
    ['curves.png']
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with whole(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _metric(name: str) -> str:
    """The metric, whichever rows or leaves it is taken over."""
    metric = name.partition("/")[0]
    side, _, rest = metric.partition("_")
    return rest if side in _SIDES and rest else metric
