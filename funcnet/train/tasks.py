"""Losses of several terms."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from funcnet.optim.values import Scalar

__all__ = ["weighted"]


def weighted(terms: Callable[..., Any], weights: Mapping[str, Scalar]) -> Callable[..., Any]:
    r"""One loss of several, $\sum_i w_i L_i$, for `make_step`.

    Args:
        terms: `terms(params, state, batch, key) -> ({name: loss}, (state, metrics))`, a loss that returns a dict.
        weights: a number or a 0-dim tensor for every name; the number 0 leaves a term out of the sum, and in the
            metrics.

    Returns:
        A loss whose metrics hold every term, unweighted, beside what `terms` tells.

    Raises:
        ValueError: every weight is 0; the names of the terms are not those of the weights, or one is that of a metric.

    >>> def terms(params, state, batch, key):
    ...     return {"fit": (params["w"] - batch).square().sum(), "size": params["w"].abs().sum()}, (state, {})
    >>> loss = weighted(terms, {"fit": 1.0, "size": 0.5})
    >>> loss({"w": torch.tensor([4.0])}, {}, torch.tensor([3.0]), None)
    (tensor(3.), ({}, {'fit': tensor(1.), 'size': tensor(4.)}))
    """
    summed = {name: weight for name, weight in weights.items() if isinstance(weight, Tensor) or weight != 0}
    if not summed:
        raise ValueError("weighted needs a weight other than 0 for at least one term.")

    def loss(params: Any, state: Any, batch: Any, key: Tensor) -> Any:
        found, (state, metrics) = terms(params, state, batch, key)
        if not isinstance(found, dict) or found.keys() != weights.keys():
            names = sorted(found) if isinstance(found, dict) else f"a {type(found).__name__}"
            raise ValueError(f"weighted has weights for {sorted(weights)}, and the loss returned {names}.")
        if both := sorted(found.keys() & metrics.keys()):
            raise ValueError(f"{both[0]!r} is the name of a term and of a metric: rename one.")
        total = torch.stack([weight * found[name] for name, weight in summed.items()]).sum()
        return total, (state, found | metrics)

    return loss
