"""What is told where a loss is no longer finite."""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import tree
from funcnet.train.feed import Feed

__all__ = ["NonFiniteError", "Watch"]

_APART = 32  # steps between looks at a loss that lies on a device


class NonFiniteError(ArithmeticError):
    """The loss of a training step is not finite."""

    __module__ = "funcnet.train"


class Place(NamedTuple):
    """Where a loss belongs to."""

    step: int
    epoch: int
    batch: int


class Watch:
    """Looks at losses: on the host at each, on a device every so often, since a look waits for it."""

    def __init__(self) -> None:
        """Begin with no loss."""
        self._waiting: deque[tuple[Place, Tensor]] = deque()

    def add(self, place: Place, metrics: Mapping[str, Any]) -> tuple[Place, float] | None:
        """The first loss that is not finite, if one is found."""
        loss = metrics.get("loss")
        if not isinstance(loss, Tensor) or loss.ndim:
            return None
        if loss.device.type == "cpu":
            value = loss.item()
            return None if math.isfinite(value) else (place, value)
        self._waiting.append((place, loss))
        return self.look() if len(self._waiting) == _APART else None

    def look(self) -> tuple[Place, float] | None:
        """The same for the losses that wait for a look."""
        waiting = list(self._waiting)
        self._waiting.clear()
        if waiting:
            for (place, _), value in zip(waiting, torch.stack([loss for _, loss in waiting]).tolist(), strict=True):
                if not math.isfinite(value):
                    return place, value
        return None


def failure(place: Place, loss: float, feed: Feed, batch: Any, ts: Any) -> NonFiniteError:
    """The error for a loss; `batch` and `ts` are the last ones, in which the first leaf that is not finite is named."""
    known = feed.rows(place.epoch, place.batch)
    rows = "" if known is None else f", rows {known.tolist()}"
    where = _first({"batch": batch}) or _first({"ts": ts})
    leaf = f" The first leaf that is not finite is {where}." if where else ""
    return NonFiniteError(
        f"the loss of step {place.step} is {loss} (epoch {place.epoch}, batch {place.batch}{rows}).{leaf} What was "
        "saved before is as it was. Look at the batch and the gradient norms before it (make_step(..., "
        'metrics=["grad_norms"])), lower the learning rate, clip (clip=1.0), or leave such steps out '
        "(skip_nonfinite=True, and check_finite=False here)."
    )


def _first(leaves: Any) -> str:
    for path, leaf in tree.leaves_with_path(leaves):
        if isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex()):
            bad = int((~torch.isfinite(leaf)).sum())
            if bad:
                return f"{path} ({bad:,} of its {leaf.numel():,} numbers)"
    return ""
