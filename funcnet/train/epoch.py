"""A whole epoch as one pure function."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from funcnet import tree
from funcnet.control.scan import scan
from funcnet.train.state import TrainState

__all__ = ["make_epoch"]


def make_epoch(step: Callable[[TrainState, Any], Any]) -> Callable[[TrainState, Any, Tensor], Any]:
    """The steps of an epoch over data that lie on the device, as one function `(ts, data, order) -> (ts, metrics)`.

    It is a scan: `jit(make_epoch(step), donate=0)` compiles one step, and runs the epoch as one call. `data` is a tree
    of tensors with one row an example, and `order` the rows of each batch, integers of shape (batches, batch size).
    Every metric comes back with one value a batch, in their order.

    >>> import torch
    >>> epoch = make_epoch(lambda total, batch: (total + batch.sum(), {"loss": batch.sum()}))
    >>> epoch(torch.tensor(0), torch.arange(4), torch.tensor([[3, 0], [1, 2]]))
    (tensor(6), {'loss': tensor([3, 3])})
    """

    def epoch(ts: TrainState, data: Any, order: Tensor) -> Any:
        return scan(lambda ts, rows: step(ts, tree.map(lambda leaf: leaf[rows], data)), ts, order)

    return epoch
