"""Where distributed tensors lie."""

from collections.abc import Sequence
from typing import Any

__all__ = ["placed"]


def placed(values: Sequence[Any], like: Sequence[Any]) -> list[Any]:
    """Values where others lie: DTensors of another placement than their partners are redistributed to it.

    Gradients need it. Those of replicated parameters for a batch in shards are sums that are still due (`Partial`), and
    those of sharded ones may be sharded along another axis; moments and parameters would take that on.
    """
    return [_placed(value, other) for value, other in zip(values, like, strict=True)]


def _placed(value: Any, like: Any) -> Any:
    # By its method, since torch.distributed is slow to import and absent from some builds.
    if not hasattr(value, "redistribute") or not hasattr(like, "placements") or value.placements == like.placements:
        return value
    return value.redistribute(placements=like.placements)
