"""The gradient of a batch as the mean over its parts, one after the other."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.control.scan import scan
from funcnet.optim.leafwise import wide

__all__ = ["Gradient", "accumulated"]

Gradient = Callable[[Any, Any, Any, Tensor, Any], Any]
"""`(params, state, batch, key, scale) -> ((loss, (state, metrics)), grads)`."""


def accumulated(gradient: Gradient, parts: int) -> Gradient:
    """The same gradient, with the memory of a batch of which only one part is worked on at a time.

    The parts are equal stretches of the rows. What the loss returns is a mean over them, and so are the metrics: for a
    loss that is a mean over rows they equal those of the whole batch. State goes from part to part, and each part has
    a key of its own. Compiled, the parts are one loop. Raises `ValueError` where the rows do not divide.
    """
    if parts == 1:
        return gradient

    def mean_of_parts(params: Any, state: Any, batch: Any, key: Tensor, scale: Any) -> Any:
        leaves, treedef = tree.flatten(batch)
        rows = tree.unflatten(treedef, [_parted(leaf, parts, n, batch) for n, leaf in enumerate(leaves)])

        def one(carry: Any, x: Any) -> Any:
            total, state = carry
            part, number = x
            (value, (after, metrics)), grads = gradient(params, state, part, random.fold_in(key, number), scale)
            total = tree.map(lambda sum, g: sum + g, total, grads)
            return (total, after), (value, metrics)

        zeros = tree.map(lambda leaf: torch.zeros_like(leaf, dtype=wide(leaf.dtype)), params)
        numbers = torch.arange(parts, device=key.device)
        (total, state), (values, metrics) = scan(one, (zeros, state), (rows, numbers))
        grads = tree.map(lambda sum, leaf: (sum / parts).to(leaf.dtype), total, params)
        return (_mean(values), (state, tree.map(_mean, metrics))), grads

    return mean_of_parts


def _mean(values: Tensor) -> Tensor:
    return values.mean(0) if values.is_floating_point() else values.to(torch.float32).mean(0)


def _parted(leaf: Any, parts: int, place: int, batch: Any) -> Tensor:
    if not isinstance(leaf, Tensor) or leaf.ndim == 0 or leaf.shape[0] % parts:
        path = tree.paths(batch)[place]
        size = f"{leaf.shape[0]} rows" if isinstance(leaf, Tensor) and leaf.ndim else "no rows"
        raise ValueError(
            f"accumulate={parts} parts a batch into as many equal stretches of rows, and batch{path and '.' + path} "
            f"has {size}. Take a batch size that {parts} divides; what has no rows belongs into the loss."
        )
    return leaf.reshape(parts, leaf.shape[0] // parts, *leaf.shape[1:])
