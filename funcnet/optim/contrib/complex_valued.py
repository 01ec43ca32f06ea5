"""Complex parameters as pairs of real ones."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...tree import PyTree, flatten, map, unflatten
from ...tree.mismatch import match
from ..arguments import stateful
from ..base import GradientTransformation, with_extra_args_support

__all__ = ["SplitRealAndImaginaryArrays", "SplitRealAndImaginaryState", "split_real_and_imaginary"]


class SplitRealAndImaginaryArrays(NamedTuple):
    """What the inner transformation sees in the place of a complex leaf."""

    real: Tensor
    imaginary: Tensor


class SplitRealAndImaginaryState(NamedTuple):
    """The state of the inner transformation."""

    inner_state: Any


def split_real_and_imaginary(inner: GradientTransformation) -> GradientTransformation:
    """Show a transformation each complex leaf as two real ones; real leaves stay as they are.

    torch's gradient of a real loss already points uphill in both parts; jax's has to be conjugated first.

    >>> from funcnet.optim import scale_by_adam
    >>> params = {"w": torch.tensor([3.0 + 0.1j])}
    >>> for rule in (scale_by_adam(), split_real_and_imaginary(scale_by_adam())):
    ...     print(rule.update(params, rule.init(params), params)[0]["w"])
    tensor([0.9994+0.0333j])
    tensor([1.+1.0000j])
    """
    link = with_extra_args_support(inner)

    def init(params: PyTree) -> SplitRealAndImaginaryState:
        return SplitRealAndImaginaryState(inner_state=link.init(map(_split, params)))

    def update(
        updates: PyTree, state: SplitRealAndImaginaryState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, SplitRealAndImaginaryState]:
        values, treedef = flatten(updates)
        given = map(_split, updates)
        weights = None if params is None else map(_split, params)
        new, inner_state = link.update(given, state.inner_state, weights, **extra)
        parts = iter(match(new, given, "the inner updates", "updates"))
        merged = [torch.complex(next(parts), next(parts)) if v.is_complex() else next(parts) for v in values]
        return unflatten(treedef, merged), SplitRealAndImaginaryState(inner_state=inner_state)

    return stateful(SplitRealAndImaginaryState, init, update)


def _split(leaf: Tensor) -> Any:
    return SplitRealAndImaginaryArrays(leaf.real, leaf.imag) if leaf.is_complex() else leaf
