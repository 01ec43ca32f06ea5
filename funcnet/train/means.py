"""Means of metrics over steps, of which none waits for the device."""

from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["Means"]

_NOTHING: Mapping[str, Any] = {"count": 0, "sums": {}}
_MOST = 256  # values that are held before they are summed up


class Means:
    """Adds up what steps return, and gives the means."""

    def __init__(self, saved: Mapping[str, Any] | None = None) -> None:
        """Begin with no step, or with what was `saved`."""
        self._begin(saved or _NOTHING)

    def _begin(self, saved: Mapping[str, Any]) -> None:
        self.count: int = saved["count"]
        self._held: dict[str, list[Any]] = {name: [] for name in saved["sums"]}
        self._sums = {name: torch.tensor(value, dtype=torch.float64) for name, value in saved["sums"].items()}

    def saved(self) -> dict[str, Any]:
        """What was added up so far, fit for JSON. It waits for the device."""
        self._fold()
        return {"count": self.count, "sums": {name: value.item() for name, value in self._sums.items()}}

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Take the metrics of one more step. Raises `ValueError` where their names are not those of the first."""
        if not self.count:
            self._held = {name: [] for name in metrics}
        elif metrics.keys() != self._held.keys():
            raise ValueError(
                f"the step returned the metrics {sorted(metrics)}, and {sorted(self._held)} before: a mean needs "
                f"the same names from every step."
            )
        for name, value in metrics.items():
            self._held[name].append(value)
        self.count += 1
        if self.count % _MOST == 0:
            self._fold()

    def take(self) -> dict[str, float]:
        """The means of what was added since the last call, on the host; empty where that was nothing."""
        self._fold()
        means = {name: (value / self.count).item() for name, value in self._sums.items()}
        self._begin(_NOTHING)
        return means

    def _fold(self) -> None:
        for name, values in self._held.items():
            if values:
                total = torch.stack([torch.as_tensor(value).detach() for value in values]).double().sum(0)
                self._sums[name] = self._sums[name].to(total.device) + total if name in self._sums else total
                values.clear()
