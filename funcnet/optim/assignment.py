"""Who gets what: the linear assignment problem."""

import torch
from torch import Tensor

from ..control import fori_loop, while_loop

__all__ = ["base_hungarian_algorithm", "hungarian_algorithm"]


def hungarian_algorithm(cost_matrix: Tensor) -> tuple[Tensor, Tensor]:
    r"""Give each row a column of its own, or each column a row, at the least total cost.

    The Hungarian algorithm, by shortest augmenting paths (Crouse 2016, ieeexplore.ieee.org/document/7738348): of the
    order of $n^3$ operations, in loops that run under vmap and jit. No gradient flows through it: take the slope of
    `cost_matrix[rows, columns].sum()`. Among equally cheap assignments optax may find another.

    Args:
        cost_matrix: `(n, m)`; infinities and NaN are taken for huge costs, and avoided where that can be.

    Returns:
        `(rows, columns)`, int64 `(min(n, m),)` each, the rows ascending.

    Raises:
        ValueError: the costs have another number of axes; write `vmap(hungarian_algorithm)` for batches.

    >>> costs = torch.tensor([[8, 4, 7], [5, 2, 3], [9, 6, 7], [9, 4, 8]])
    >>> rows, columns = hungarian_algorithm(costs)
    >>> rows, columns, costs[rows, columns].sum()
    (tensor([0, 1, 3]), tensor([0, 2, 1]), tensor(15))
    """
    if cost_matrix.ndim != 2:
        raise ValueError(
            f"hungarian_algorithm got costs of shape {tuple(cost_matrix.shape)}, and needs a matrix; for a batch of "
            "them write vmap(hungarian_algorithm)(costs)."
        )
    costs = cost_matrix.detach()
    if costs.shape[0] > costs.shape[1]:
        columns, rows = hungarian_algorithm(costs.T)
        rows, order = rows.sort()
        return rows, columns[order]
    count, width = costs.shape
    places, own = (torch.arange(n, device=costs.device) for n in (width, count))
    if not count:
        return own, own
    costs = costs.to(torch.promote_types(costs.dtype, torch.float32))
    huge = torch.finfo(costs.dtype).max ** 0.5  # so that sums of them stay finite
    costs = costs.nan_to_num(huge, huge, -huge)

    def assign(row: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        of_row, of_column, u, v = state

        def extend(path: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            """Go to the nearest column that was not reached, from the row that the last belongs to."""
            _, row, length, distance, before, seen_rows, seen = path
            through = length + costs.index_select(0, row[None])[0] - _at(u, row) - v
            shorter = ~seen & (through < distance)
            distance, before = torch.where(shorter, through, distance), torch.where(shorter, row, before)
            length = torch.where(seen, torch.inf, distance).amin()
            nearest = ~seen & (distance == length)
            # Of those as near, one that is free ends the search.
            column = (nearest.int() + (nearest & (of_column < 0)).int()).argmax()
            owner = _at(of_column, column)
            sink = torch.where(owner < 0, column, -1)
            seen_rows = seen_rows | (own == row)
            return (
                sink,
                torch.where(owner < 0, row, owner),
                length,
                distance,
                before,
                seen_rows,
                seen | (places == column),
            )

        infinite, nowhere = torch.full_like(v, torch.inf), torch.full_like(places, -1)
        start: tuple[Tensor, ...] = (nowhere[0], row, torch.zeros_like(v[0]), infinite, nowhere, own < 0, places < 0)
        sink, _, length, distance, before, seen_rows, seen = while_loop(lambda path: path[0] < 0, extend, start)
        gain = torch.where(own == row, length, length - distance.gather(0, of_row.clamp(min=0)))
        u = torch.where(seen_rows, u + gain, u)
        v = torch.where(seen, v + distance - length, v)

        def swap(state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            """Give the column to the row from which it was reached, and go on with the column that the row had."""
            column, of_row, of_column = state
            owner = _at(before, column)
            had = _at(of_row, owner)
            return had, torch.where(own == owner, column, of_row), torch.where(places == column, owner, of_column)

        given: tuple[Tensor, ...] = (sink, of_row, of_column)
        _, of_row, of_column = while_loop(lambda state: state[0] >= 0, swap, given)
        return of_row, of_column, u, v

    start: tuple[Tensor, ...] = (
        torch.full_like(own, -1),
        torch.full_like(places, -1),
        torch.zeros_like(costs[:, 0]),
        torch.zeros_like(costs[0]),
    )
    return own, fori_loop(0, count, assign, start)[0]


base_hungarian_algorithm = hungarian_algorithm
"""Optax's other name for it."""


def _at(values: Tensor, place: Tensor) -> Tensor:
    # Under vmap a search that is over goes on with the others, from a place that is none.
    return values.gather(0, place.clamp(min=0)[None])[0]
