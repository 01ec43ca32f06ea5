"""Pictures of learning rates."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from funcnet.diagnostics.rates import RateSweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_rates"]


def draw_rates(sweep: RateSweep | Tensor | Sequence[float], losses: Tensor | None = None) -> "Figure":
    """Draw a sweep, or what `try_rates` found, as matplotlib's Figure: `draw_rates(sweep).savefig("rates.png")`.

    Args:
        sweep: what `find_rate` returned: the losses, the smoothed losses and the suggestion over the rate. Or the
            rates that `try_rates` was given.
        losses: what `try_rates` returned, `(n, steps)`: the loss over the rate, after a quarter, a half and all steps.

    Raises:
        TypeError: rates without losses, or a sweep with other losses.
        ValueError: as many rates as rows of losses are needed.
        ModuleNotFoundError: matplotlib is not installed.

    >>> figure = draw_rates([0.5, 3.0], torch.tensor([[0.5, 0.125], [0.5, 2.0]]))
    >>> figure.axes[0].get_xscale(), [line.get_ydata().tolist() for line in figure.axes[0].lines]
    ('log', [[0.5, 0.5], [0.125, 2.0]])
    """
    from matplotlib.figure import Figure

    if isinstance(sweep, RateSweep) != (losses is None):
        raise TypeError("draw_rates takes draw_rates(sweep) of find_rate, or draw_rates(rates, losses) of try_rates.")
    figure = Figure((6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
    if isinstance(sweep, RateSweep):
        axes.plot(sweep.rates, sweep.losses, color="0.75", label="loss")
        axes.plot(sweep.rates, sweep.smoothed, label="smoothed")
        _limit(axes, sweep.losses, sweep.losses[:1])
        if sweep.suggestion is not None:
            axes.axvline(sweep.suggestion, color="C1", linestyle="--", label=f"suggestion {sweep.suggestion:.2g}")
    else:
        assert losses is not None  # checked above
        rates = torch.as_tensor(sweep).detach().cpu()
        if losses.ndim != 2 or len(losses) != len(rates):
            raise ValueError(f"{len(rates)} rates and losses of shape {tuple(losses.shape)}: it takes (n, steps).")
        order = rates.argsort()
        number, drawn = losses.shape[1], list[Tensor]()
        for done in sorted({-(-number // 4), -(-number // 2), number}):
            values = losses[:, done - 1].detach().cpu()[order]
            drawn.append(torch.where(values.isfinite(), values, math.nan))
            axes.plot(rates[order], drawn[-1], ".-", label=f"step {done}")
        _limit(axes, torch.cat(drawn), losses[:, 0].detach().cpu())
    axes.legend()
    return figure


def _limit(axes: "Axes", drawn: Tensor, first: Tensor) -> None:
    """Show what is drawn up to a little above the first losses: an explosion would press the rest into a line."""
    drawn, first = drawn[drawn.isfinite()], first[first.isfinite()]
    if len(drawn) and len(first):
        lowest, start = float(drawn.min()), float(first.max())
        spread = max(start - lowest, 0.1 * abs(start), 1e-30)
        axes.set_ylim(lowest - 0.1 * spread, min(float(drawn.max()), start + 0.5 * spread) + 0.1 * spread)
