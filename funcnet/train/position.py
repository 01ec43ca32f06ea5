"""Where a run is: what `fit` saves beside the state, and goes on from."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Position"]


class Position(NamedTuple):
    """A place in a run, of plain values alone: `_asdict()` goes into JSON, and `of` reads it back."""

    epoch: int = 0
    """Epochs that are behind."""
    batch: int = 0
    """Batches of this epoch that are behind."""
    history: Sequence[Mapping[str, float]] = ()
    """The epochs behind."""
    means: Mapping[str, Any] | None = None
    """What the batches of this epoch add up to, as `Means.saved`."""
    recent: Mapping[str, Any] | None = None
    """The same of the steps since the last row of the log."""
    step: int = 0
    """Steps behind in all, for a state that does not count them."""

    @classmethod
    def of(cls, start: Sequence[int] | Mapping[str, Any]) -> "Position":
        """Read what `fit` was told to start from."""
        try:
            at = cls(**start) if isinstance(start, Mapping) else cls._make((*start, *cls()[2:]))
            if all(type(count) is int and count >= 0 for count in at[:2]):
                return at
        except TypeError:
            pass
        raise ValueError(
            f"start={start!r} is no position: give the epoch and how many of its batches are done, as (2, 0), or what "
            "was saved, as manifest.position."
        )
