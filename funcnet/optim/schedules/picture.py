"""A picture of a schedule."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..arguments import function
from ..values import Schedule
from .lengths import length

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_schedule"]

_POINTS = 2000  # more than a picture has pixels; every step of a long run would take long


def plot_schedule(
    schedule: Schedule, steps: int, *, path: str | Path | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Draw a schedule's value over its first steps, and return the axes.

    Args:
        schedule: the function of the count.
        steps: how many; of more than 2000, as many evenly spaced ones are drawn.
        path: where to save the picture, if anywhere; the ending tells the format.
        ax: axes to draw in, for several schedules in one picture; else a figure is made, outside of pyplot.

    Raises:
        ImportError: matplotlib is not there.
        ValueError: `steps` is not positive.

    >>> from funcnet.optim import cosine_decay_schedule
    >>> axes = plot_schedule(cosine_decay_schedule(0.1, 100), 100)
    >>> axes.get_xlabel(), len(axes.lines[0].get_ydata())
    ('step', 100)
    """
    length(steps, "steps", "plot_schedule"), function(schedule, "schedule", "optim.constant_schedule(0.1)")
    try:
        from matplotlib.figure import Figure
    except ImportError as missing:
        raise ImportError(
            "plot_schedule needs matplotlib: python -m pip install 'funcnet[demo]', or matplotlib."
        ) from missing
    counts = torch.linspace(0, steps - 1, min(steps, _POINTS), dtype=torch.float64).round().to(torch.int32)
    with torch.no_grad():
        values = [float(schedule(count)) for count in counts]
    if ax is None:
        ax = Figure(figsize=(6.0, 3.5), layout="constrained").subplots()
        ax.set(xlabel="step", ylabel="value", xlim=(0, steps))
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
    ax.plot(counts.numpy(), values)
    if min(values) >= 0:
        ax.set_ylim(bottom=0)
    if path is not None:
        ax.figure.canvas.print_figure(path, dpi=150)
    return ax
