"""What each submodule of a model holds and costs, as rows of numbers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from funcnet.counts.count import Count, product
from funcnet.counts.known import formula_of, includes_children
from funcnet.pure import Skeleton

__all__ = ["Cost", "Row", "collapse", "rows_of"]


class Cost(NamedTuple):
    """What a submodule did in one call of the model, without what its submodules did."""

    calls: int
    shapes: tuple[tuple[int, ...], ...]  # of the tensors that its first call returned
    output_bytes: int  # of all its calls
    forward: int  # FLOPs: a multiplication with its addition is two, elementwise work none
    backward: int
    kept: int  # bytes that the backward needs, counted where they are first kept


@dataclass(frozen=True)
class Row:
    """One submodule, without what its submodules hold.

    Attributes:
        path: the submodule's name; empty for the model itself.
        kind: the name of its class.
        trainable: how many parameter elements it holds that are trained.
        frozen: how many it holds with `requires_grad=False`.
        buffers: how many elements of buffers and plain tensors it holds.
        formula: how the parameters come about: a formula that evaluates to `count`, or each tensor's name and sizes.
        expected: the count by torch's hyperparameters; None for what is no torch layer. It differs from `count` where a
            parameter was added, replaced, tied or reparametrized.
        cost: what it did; None where nothing was measured.
    """

    path: str
    kind: str
    trainable: int
    frozen: int
    buffers: int
    formula: str
    expected: Count | None
    cost: Cost | None = None

    @property
    def count(self) -> int:
        """All its parameter elements."""
        return self.trainable + self.frozen

    @property
    def depth(self) -> int:
        """How many submodules it lies in."""
        return self.path.count(".") + 1 if self.path else 0


def rows_of(skeleton: Skeleton, costs: Mapping[str, Cost] | None = None) -> tuple[Row, ...]:
    """A row for each submodule, in the order of `named_modules`."""
    own: dict[str, dict[str, Tensor]] = {}
    tied: dict[str, dict[str, str]] = {}
    placed: set[str] = set()
    for place in skeleton.places:
        for name in place.names:
            if name is not None and name not in placed:
                placed.add(name)
                own.setdefault(place.owner, {})[name] = skeleton.leaves[name].like
            elif name is not None and place.kind == "_parameters":
                tied.setdefault(place.owner, {})[place.key] = name
    rows: list[Row] = []
    covered = ""
    for path, module in skeleton.template.named_modules():
        if covered and path.startswith(covered):
            continue
        covered = ""
        paths = [path]
        if includes_children(module):
            covered = f"{path}." if path else "."
            paths = [".".join(filter(None, (path, child))) for child, _ in module.named_modules()]
        mine = {name: like for each in paths for name, like in own.get(each, {}).items()}
        links = {key: name for each in paths for key, name in tied.get(each, {}).items()}
        rows.append(_row(skeleton, path, module, mine, links, [(costs or {}).get(each) for each in paths]))
        if covered == ".":
            break
    return tuple(rows)


def collapse(rows: Iterable[Row], depth: int | None) -> list[Row]:
    """The rows down to a depth, with the sums of what lies below in the deepest.

    A row that such a sum went into has no formula.
    """
    shown: list[Row] = []
    for row in rows:
        if depth is None or row.depth <= depth:
            shown.append(row)
        elif row.count or row.buffers or row.cost:
            shown[-1] = _sum(shown[-1], row)
    return shown


def _row(
    skeleton: Skeleton,
    path: str,
    module: nn.Module,
    own: Mapping[str, Tensor],
    tied: Mapping[str, str],
    costs: list[Cost | None],
) -> Row:
    parameters = {name: like for name, like in own.items() if skeleton.leaves[name].parameter}
    trainable = sum(like.numel() for name, like in parameters.items() if skeleton.leaves[name].trainable)
    count = sum(like.numel() for like in parameters.values())
    expected = formula_of(module)
    if expected is not None and expected == count:
        formula = expected.formula if count else ""
    else:
        prefix = f"{path}." if path else ""
        terms = [f"{name.removeprefix(prefix)}: {product(like.shape).formula}" for name, like in parameters.items()]
        formula = ", ".join([*terms, *(f"{key} is {name}" for key, name in tied.items())])
    cost = None
    for other in costs:
        cost = _sum_costs(cost, other)
    return Row(
        path,
        type(module).__name__,
        trainable=trainable,
        frozen=count - trainable,
        buffers=sum(like.numel() for name, like in own.items() if name not in parameters),
        formula=formula,
        expected=expected,
        cost=cost,
    )


def _sum(row: Row, below: Row) -> Row:
    return Row(
        row.path,
        row.kind,
        trainable=row.trainable + below.trainable,
        frozen=row.frozen + below.frozen,
        buffers=row.buffers + below.buffers,
        formula="" if below.count else row.formula,
        expected=None,
        cost=_sum_costs(row.cost, below.cost),
    )


def _sum_costs(cost: Cost | None, below: Cost | None) -> Cost | None:
    """The outer module's calls and shapes, and what both did."""
    if cost is None or below is None:
        return cost or below
    summed = {name: getattr(cost, name) + getattr(below, name) for name in ("forward", "backward", "kept")}
    return cost._replace(**summed)
