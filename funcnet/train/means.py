"""Means of metrics over steps, which wait for the device once in many."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["Means"]

_NOTHING: Mapping[str, Any] = {"count": 0, "skipped": 0, "sums": {}}
_MOST = 256  # values that are held before they are summed up


class Means:
    """Adds up what steps return, and gives the means."""

    def __init__(self, saved: Mapping[str, Any] | None = None) -> None:
        """Begin with no step, or with what was `saved`."""
        self._begin(saved or _NOTHING)

    def _begin(self, saved: Mapping[str, Any]) -> None:
        self.count: int = saved["count"]
        self._skipped: int = saved["skipped"]
        self._taken: list[Tensor] = []
        self._held: dict[str, list[Any]] = {name: [] for name in saved["sums"]}
        self._sums = {
            name: torch.tensor(value, dtype=torch.float64, device="cpu") for name, value in saved["sums"].items()
        }

    def saved(self) -> dict[str, Any]:
        """What was added up so far, fit for JSON. It waits for the device."""
        self._fold()
        sums = {name: value.item() for name, value in self._sums.items()}
        return {"count": self.count, "skipped": self._skipped, "sums": sums}

    def add(self, metrics: Mapping[str, Any], taken: Tensor | None = None) -> None:
        """Take the metrics of one more step. Raises `ValueError` where their names are not those of the first.

        Where `taken` is False (bool, 0-dim) the step was left out, and its metrics, which may not be finite, are too.
        """
        if not self.count:
            self._held = {name: [] for name in metrics}
        elif metrics.keys() != self._held.keys():
            raise ValueError(
                f"the step returned the metrics {sorted(metrics)}, and {sorted(self._held)} before: a mean needs "
                f"the same names from every step."
            )
        for name, value in metrics.items():
            self._held[name].append(value)
        if taken is not None:
            self._taken.append(taken)
        self.count += 1
        if self.count % _MOST == 0:
            self._fold()

    def take(self) -> dict[str, float]:
        """The means of what was added since the last call, on the host; empty where that was nothing.

        They are NaN where all steps were left out.
        """
        self._fold()
        means = {name: (value / (self.count - self._skipped)).item() for name, value in self._sums.items()}
        self._begin(_NOTHING)
        return means

    def _fold(self) -> None:
        taken = torch.stack(self._taken).cpu() if self._taken else None
        if taken is not None:
            self._skipped += int((~taken).sum())
            self._taken.clear()
        for name, values in self._held.items():
            if values:
                # On the host, since not every device has float64.
                column = torch.stack([_tensor(value) for value in values]).cpu().double()
                total = (column if taken is None else torch.where(taken, column, 0)).sum(0)
                self._sums[name] = self._sums[name] + total if name in self._sums else total
                values.clear()


def _tensor(value: Any) -> Tensor:
    """A number keeps all of its digits, whatever the default dtype, and lies on the host."""
    return value.detach() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64, device="cpu")
