"""Parameters that stay nonnegative, updates without NaNs."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..tree import PyTree, map
from .base import EmptyState, GradientTransformation, needed, stateless
from .leafwise import each

__all__ = ["NonNegativeParamsState", "ZeroNansState", "keep_params_nonnegative", "zero_nans"]

NonNegativeParamsState = EmptyState


def keep_params_nonnegative() -> GradientTransformation:
    r"""Stop at zero, $u \leftarrow \max(u, -\theta)$, so that $\theta + u \ge 0$: for the end of a chain.

    >>> rule = keep_params_nonnegative()
    >>> rule.update({"w": torch.tensor([-3.0, 1.0])}, rule.init(None), {"w": torch.tensor([2.0, 2.0])})[0]
    {'w': tensor([-2.,  1.])}
    """

    def leaf(u: Tensor, p: Tensor) -> Tensor:
        return torch.where(p + u < 0, -p, u)

    return stateless(lambda updates, params: each(leaf, updates, needed(params, "keep_params_nonnegative"))[0])


class ZeroNansState(NamedTuple):
    """Whether the last update held a NaN, for each leaf."""

    found_nan: PyTree
    """a boolean 0-dim tensor for each parameter"""


def zero_nans() -> GradientTransformation:
    """Put 0 where an update is NaN. Infinities stay.

    >>> rule = zero_nans()
    >>> params = {"w": torch.ones(2)}
    >>> rule.update({"w": torch.tensor([1.0, float("nan")])}, rule.init(params), params)
    ({'w': tensor([1., 0.])}, ZeroNansState(found_nan={'w': tensor(True)}))
    """

    def init(params: PyTree) -> ZeroNansState:
        return ZeroNansState(found_nan=map(lambda p: p.new_zeros((), dtype=torch.bool), params))

    def update(
        updates: PyTree, state: ZeroNansState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ZeroNansState]:
        found = map(lambda u: torch.any(torch.isnan(u)), updates)
        return map(lambda u: torch.where(torch.isnan(u), 0.0, u), updates), ZeroNansState(found_nan=found)

    return GradientTransformation(init, update)
