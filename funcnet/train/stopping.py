"""When to stop: a value that no longer improves."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, NamedTuple

import torch
from torch import Tensor

__all__ = ["EarlyStopping", "StoppingState"]


class StoppingState(NamedTuple):
    """What has been seen so far; all 0-dim tensors."""

    best: Tensor
    """float64: the best value"""
    best_step: Tensor
    """int32: which value that was, the first being 0; -1 before any improved"""
    seen: Tensor
    """int32: how many values there were"""
    stop: Tensor
    """bool: whether `patience` values in a row brought no improvement. Once true it stays so"""


@dataclass(frozen=True)
class EarlyStopping:
    """Stop after `patience` values in a row that do not improve on the best.

    A pure rule: `init()` is the state before the first value, and calling it gives the next. NaN improves on nothing.
    A learning rate that falls on a plateau is `optim.contrib.reduce_on_plateau`.

    Args:
        patience: how many values without improvement; 1 stops at the first.
        min_delta: how much better than the best a value must be.
        mode: "min" for losses, "max" for accuracies.
        metric: which of its metrics `fit(early_stopping=...)` looks at, at the end of each epoch.

    Raises:
        ValueError: a patience under 1, a negative or infinite `min_delta`, another mode.

    >>> early = EarlyStopping(patience=2)
    >>> state = early.init()
    >>> for loss in (3.0, 1.0, 2.0, 1.0):
    ...     state = early(state, loss)
    >>> state.stop, state.best_step
    (tensor(True), tensor(1, dtype=torch.int32))
    """

    patience: int = 10
    min_delta: float = 0.0
    mode: Literal["min", "max"] = "min"
    metric: str = "loss"

    def __post_init__(self) -> None:
        """Check the arguments."""
        if self.patience < 1:
            raise ValueError(
                f"EarlyStopping got patience={self.patience}: it counts values without improvement, so it is at least "
                "1. To never stop, leave early stopping out."
            )
        if not 0 <= self.min_delta < math.inf:
            raise ValueError(
                f"EarlyStopping got min_delta={self.min_delta}: it is a distance, finite and not negative. mode says "
                "which way is better."
            )
        if self.mode not in ("min", "max"):
            raise ValueError(f"EarlyStopping got mode={self.mode!r}. Write 'min' for losses, 'max' for accuracies.")

    def init(self, *, device: torch.device | str | None = None) -> StoppingState:
        """The state before the first value."""
        worst = math.inf if self.mode == "min" else -math.inf
        return StoppingState(
            torch.tensor(worst, dtype=torch.float64, device=device),
            torch.tensor(-1, dtype=torch.int32, device=device),
            torch.zeros((), dtype=torch.int32, device=device),
            torch.zeros((), dtype=torch.bool, device=device),
        )

    def __call__(self, state: StoppingState, value: float | Tensor) -> StoppingState:
        """The state after one more value, a number or a 0-dim tensor."""
        # A number keeps all of its digits, which the default dtype would round.
        kept = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
        value = kept.detach().to(state.best)
        if value.ndim:
            raise ValueError(
                f"EarlyStopping looks at one value at a time, and got shape {tuple(value.shape)}. Write value.mean()."
            )
        better = value < state.best - self.min_delta if self.mode == "min" else value > state.best + self.min_delta
        best_step = torch.where(better, state.seen, state.best_step)
        # Values since the best, or since the beginning where none ever improved.
        waited = state.seen - best_step
        return StoppingState(
            torch.where(better, value, state.best), best_step, state.seen + 1, state.stop | (waited >= self.patience)
        )

    def follow(self, history: Iterable[Mapping[str, float]], state: StoppingState | None = None) -> StoppingState:
        """The state after the epochs of a history, as `fit` returns it.

        Raises:
            ValueError: an epoch has no such metric.

        >>> EarlyStopping(patience=1).follow([{"loss": 1.0}, {"loss": 2.0}]).stop
        tensor(True)
        """
        state = self.init() if state is None else state
        for entry in history:
            if self.metric not in entry:
                near = get_close_matches(self.metric, list(entry), 1, 0.5) or list(entry)[:1]
                raise ValueError(
                    f"early stopping looks at {self.metric!r}, and an epoch has {', '.join(entry)}: write "
                    f"EarlyStopping(metric={near[0] if near else 'loss'!r})."
                )
            state = self(state, entry[self.metric])
        return state
