"""Metrics over data, exact whatever the batches."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.control.scan import scan
from funcnet.model import Params, State
from funcnet.train.state import TrainState

__all__ = ["make_eval"]

Measure = Callable[[Params, State, Any], dict[str, Tensor]]


def make_eval(measure: Measure, batch_size: int) -> Callable[[TrainState, Any], dict[str, Tensor]]:
    """A pure `(ts, data) -> {name: mean over all rows}`, batch after batch.

    The last batch is filled up with rows that do not count, so that every batch has one shape: under `jit` it is one
    loop. Where the state keeps an average of the parameters, that is what is evaluated.

    Args:
        measure: `measure(params, state, batch) -> {name: values}`, one value a row: `(n,)`, floating or bool.
        batch_size: rows at a time.

    Raises:
        ValueError: there are no rows, or what `measure` returns has not one value a row.

    >>> evaluate = make_eval(lambda params, state, x: {"error": (x - params["mean"]).abs()}, batch_size=2)
    >>> ts = TrainState({"mean": torch.tensor(2.0)}, {}, None, None, None)
    >>> evaluate(ts, torch.tensor([1.0, 2.0, 6.0]))
    {'error': tensor(1.6667)}
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it counts rows and must be positive.")

    def evaluate(ts: TrainState, data: Any) -> dict[str, Tensor]:
        params = ts.averaged
        leaves = tree.leaves(data)
        count = leaves[0].shape[0] if leaves and leaves[0].ndim else 0
        if not count:
            raise ValueError("evaluation needs at least one row; the data have none.")
        size = min(batch_size, count)
        rows = torch.arange(-(-count // size) * size, device=leaves[0].device).reshape(-1, size)

        def one(_: None, places: Tensor) -> tuple[None, dict[str, Tensor]]:
            counts = places < count
            batch = tree.map(lambda leaf: leaf[torch.where(counts, places, 0)], data)
            found = measure(params, ts.state, batch)
            return None, {name: _summed(name, values, counts) for name, values in found.items()}

        _, sums = scan(one, None, rows)
        return {name: values.sum() / count for name, values in sums.items()}

    return evaluate


def _summed(name: str, values: Tensor, counts: Tensor) -> Tensor:
    if not isinstance(values, Tensor) or values.shape != counts.shape:
        shape = tuple(values.shape) if isinstance(values, Tensor) else f"a {type(values).__name__}"
        raise ValueError(
            f"measure returns one value for each of the {len(counts)} rows, and {name!r} is {shape}: leave the mean to "
            "the evaluation, which weighs the last, shorter batch rightly."
        )
    values = values.to(torch.promote_types(values.dtype, torch.float32))  # halves overflow, or stop counting
    return torch.where(counts, values, torch.zeros_like(values)).sum()
