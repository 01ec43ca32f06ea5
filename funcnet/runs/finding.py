"""`funcnet find-lr`: a sweep over learning rates."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from funcnet.checkpoint.files import whole
from funcnet.diagnostics import draw_rates, find_rate
from funcnet.jit import jit
from funcnet.runs.errors import RunError
from funcnet.runs.plan import Plan, step_options
from funcnet.shell import finite

__all__ = ["check", "find"]

_PICTURES = (".png", ".pdf", ".svg", ".jpg")


def check(low: float, high: float, plot: Path | None) -> None:
    """Raise where a sweep is asked for wrongly, before anything is computed.

    Raises:
        RunError: the rates do not grow, or the picture cannot be drawn.
    """
    if not low < high:
        raise RunError(f"--low {low:g} is not below --high {high:g}: the sweep goes up from the one to the other.")
    if plot is None:
        return
    if find_spec("matplotlib") is None:
        raise RunError("--plot needs matplotlib, which is not installed: pip install matplotlib, or leave --plot out.")
    if plot.suffix.lower() not in _PICTURES:
        raise RunError(f"--plot {plot} is no picture: write a name that ends with {', '.join(_PICTURES)}.")
    if not plot.parent.is_dir():
        raise RunError(f"--plot {plot}: there is no folder {plot.parent}; make it first.")


def find(plan: Plan, low: float, high: float, count: int, plot: Path | None, backend: str) -> dict[str, Any]:
    """Sweep over learning rates with a plan's model, data and optimizer.

    Args:
        plan: as for training; its learning rate, schedule and length do not matter.
        low: the first rate.
        high: the last.
        count: how many, at least 10.
        plot: where to draw losses over rates.
        backend: of `jit`, where the plan is compiled.

    Returns: `suggestion`, which is None where there is none, `note`, `rates`, `losses`, and `plot`.

    Raises:
        RunError: the optimizer takes no schedule.
    """
    config = plan.config
    if not plan.optimizer.follows:
        raise RunError(f"{config.optim!r} takes one learning rate for all steps, which no sweep can change.")
    compiled: Callable[..., Any] | None = partial(jit, donate=0, backend=backend) if config.compile else None
    sweep = find_rate(
        plan.task.loss,
        plan.optimizer.build,
        plan.start.params,
        plan.start.state,
        plan.start.key,
        plan.batches(),
        low=low,
        high=high,
        steps=count,
        compile=compiled,
        **step_options(config),
    )
    if plot is not None:
        with whole(plot) as new:
            draw_rates(sweep).savefig(new, dpi=120, format=plot.suffix[1:].lower())
    found = {"suggestion": sweep.suggestion, "note": sweep.note, "rates": sweep.rates.tolist()}
    told: dict[str, Any] = finite(
        found | {"losses": sweep.losses.tolist(), "plot": None if plot is None else str(plot)}
    )
    return told
