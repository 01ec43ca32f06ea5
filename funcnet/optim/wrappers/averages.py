"""Parameters that follow others: averages over a run, and target networks."""

import torch
from torch import Tensor

from ...tree import PyTree, flatten, unflatten
from ...tree.mismatch import match
from ..arguments import check_floating, whole
from ..leafwise import wide
from ..values import Scalar, scalar

__all__ = ["incremental_update", "periodic_update"]


def incremental_update(new_tensors: PyTree, old_tensors: PyTree, step_size: Scalar) -> PyTree:
    r"""Move one tree towards another, $s \cdot \mathrm{new} + (1 - s) \cdot \mathrm{old}$, in the dtypes of the old.

    For averages of parameters over a run (Polyak and Juditsky 1992, doi:10.1137/0330046), and target networks.

    Raises `TreeMismatchError` where the trees do not match.

    >>> incremental_update({"w": torch.tensor([4.0])}, {"w": torch.tensor([0.0])}, 0.25)
    {'w': tensor([1.])}
    """
    scalar(step_size, "step_size")
    values, treedef = flatten(old_tensors)
    given = match(new_tensors, old_tensors, "new_tensors", "old_tensors")
    check_floating(values, old_tensors, "old_tensors")

    def moved(new: Tensor, old: Tensor) -> Tensor:
        dtype = wide(old.dtype)
        return (step_size * new.to(dtype) + (1 - step_size) * old.to(dtype)).to(old.dtype)

    return unflatten(treedef, [moved(new, old) for new, old in zip(given, values, strict=True)])


def periodic_update(
    new_tensors: PyTree, old_tensors: PyTree, steps: Tensor | int, update_period: Tensor | int
) -> PyTree:
    """The new tree where `steps` is a multiple of `update_period`, else the old: for target networks.

    Raises `TreeMismatchError` where the trees do not match, and `ValueError` where `update_period` is less than 1.

    >>> periodic_update({"w": torch.tensor([4.0])}, {"w": torch.tensor([0.0])}, torch.tensor(6), 3)
    {'w': tensor([4.])}
    """
    whole(update_period, "update_period"), whole(steps, "steps", least=0)
    values, treedef = flatten(old_tensors)
    given = match(new_tensors, old_tensors, "new_tensors", "old_tensors", dtype=True)
    now = torch.as_tensor(steps % update_period == 0)
    return unflatten(treedef, [torch.where(now, new, old) for new, old in zip(given, values, strict=True)])
