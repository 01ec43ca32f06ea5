"""How gradients arrive at each parameter: whether they vanish on the way, explode, or never come."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text
from torch import Tensor
from torch.overrides import TorchFunctionMode

from funcnet import tree
from funcnet.counts.table import Printed
from funcnet.model import Params, State
from funcnet.train.step import Loss
from funcnet.transforms import value_and_grad

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Flow", "FlowNumbers", "FlowRow", "draw_flow", "flow_numbers", "gradient_flow"]

_FAR = 1e3  # how many times smaller, or greater, than nearer to the loss is too much
_COLORS = {"": "C0", "vanishing": "C1", "exploding": "C3", "dead": "0.6", "non-finite": "C4"}


class FlowNumbers(NamedTuple):
    """One value for each leaf, in the order of `tree.leaves(params)`: floating `(leaves,)`, counts int64."""

    norm: Tensor
    """The length of the gradient."""
    mean: Tensor
    """The mean of its absolute values."""
    maximum: Tensor
    """The greatest of them."""
    zeros: Tensor
    """How many of its elements are 0 exactly."""
    nonfinite: Tensor
    """How many are not finite."""
    parameter_norm: Tensor
    parameter_mean: Tensor
    parameter_maximum: Tensor


@dataclass(frozen=True)
class FlowRow:
    """One leaf of the parameters, and its gradient.

    Attributes:
        path: the leaf's name.
        shape: its sizes.
        norm: the length of the gradient.
        mean: the mean of its absolute values.
        maximum: the greatest of them.
        parameter_norm: the length of the parameter; `parameter_mean` and `parameter_maximum` likewise.
        zeros: the share of elements of the gradient that are 0 exactly.
        nonfinite: how many are not finite.
        verdict: "vanishing", "exploding", "dead", "non-finite" or nothing.
    """

    path: str
    shape: tuple[int, ...]
    norm: float
    mean: float
    maximum: float
    parameter_norm: float
    parameter_mean: float
    parameter_maximum: float
    zeros: float
    nonfinite: int
    verdict: str = ""

    @property
    def ratio(self) -> float:
        """The length of the gradient over that of the parameter; infinite for a parameter of zeros."""
        if self.parameter_norm:
            return self.norm / self.parameter_norm
        return math.inf if self.norm else 0.0

    @property
    def size(self) -> float:
        """The root mean square of the gradient's elements that are not 0."""
        count = round(math.prod(self.shape) * (1 - self.zeros))
        return self.norm / math.sqrt(count) if count else 0.0


@dataclass(frozen=True)
class Flow(Printed):
    """What reaches each parameter, printed as a table.

    Attributes:
        rows: one for each leaf, in the order in which the forward uses them.
        loss: the loss.
    """

    rows: tuple[FlowRow, ...]
    loss: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table and the loss."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("parameter", no_wrap=True, overflow="ellipsis")
        table.add_column("shape", no_wrap=True)
        for name in ("gradient", "mean", "max", "of param", "zeros", "not finite"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        for row in self.rows:
            numbers = (f"{number:.1e}" for number in (row.norm, row.mean, row.maximum, row.ratio))
            shape = ",".join(map(str, row.shape)) or "scalar"
            counts = (f"{row.zeros:.0%}", f"{row.nonfinite:,}" if row.nonfinite else "")
            style = "red" if row.verdict else None
            table.add_row(*map(Text, (row.path, shape, *numbers, *counts, row.verdict)), style=style)
        yield table
        yield ""
        wrong = Counter(row.verdict for row in self.rows if row.verdict)
        found = ", ".join(f"{count} {verdict}" for verdict, count in wrong.items()) or "none is amiss"
        yield Text(f"loss {self.loss:.4g}; of {len(self.rows)} leaves {found}")


def flow_numbers(loss: Loss, params: Params, state: State, batch: Any, key: Tensor) -> tuple[Tensor, FlowNumbers]:
    """The loss, and what `gradient_flow` reports as tensors: for use in a step of one's own, and under `jit`.

    Raises `ValueError` where there are no parameters.

    >>> from funcnet import random
    >>> def loss(params, state, batch, key):
    ...     return params["w"].square().sum(), (state, {})
    >>> value, numbers = flow_numbers(loss, {"w": torch.tensor([3.0, 4.0])}, {}, None, random.key(0))
    >>> value, numbers.norm, numbers.parameter_norm
    (tensor(25.), tensor([10.]), tensor([5.]))
    """
    if not tree.leaves(params):
        raise ValueError("gradient_flow needs parameters, and params has no leaf.")
    (value, _), grads = value_and_grad(loss, has_aux=True)(params, state, batch, key)
    pairs = list(zip(tree.leaves(grads), tree.leaves(params), strict=True))
    columns = zip(*(_numbers(gradient, parameter) for gradient, parameter in pairs), strict=True)
    return value, FlowNumbers(*map(torch.stack, columns))


def gradient_flow(loss: Loss, params: Params, state: State, batch: Any, key: Tensor) -> Flow:
    """How the gradient of one batch arrives at each leaf of the parameters, in forward order.

    Verdicts compare the size of a leaf's gradient, the root mean square of its elements that are not 0, with the
    median size in the last quarter of the leaves (three at least), where the gradient has come the shortest way:

    - vanishing: less than a thousandth of it;
    - exploding: more than a thousand times as large;
    - dead: all elements are 0;
    - non-finite: one is not finite.

    Args:
        loss: as `make_step` takes it.
        params: trainable tensors.
        state: the model's other tensors.
        batch: one batch.
        key: for dropout and all other randomness of the loss.

    Raises:
        ValueError: there are no parameters.

    >>> from funcnet import random
    >>> def loss(params, state, batch, key):
    ...     for name in ("a", "b", "c", "d"):
    ...         batch = batch * params[name]
    ...     return batch.sum(), (state, {})
    >>> params = {name: torch.tensor(value) for name, value in zip("dcba", (1e-1, 1e-1, 1e-1, 1e4))}
    >>> print(gradient_flow(loss, params, {}, torch.ones(2), random.key(0)))
    parameter  shape   gradient     mean      max  of param  zeros  not finite  verdict
    a          scalar   2.0e-03  2.0e-03  2.0e-03   2.0e-07     0%              vanishing
    b          scalar   2.0e+02  2.0e+02  2.0e+02   2.0e+03     0%
    c          scalar   2.0e+02  2.0e+02  2.0e+02   2.0e+03     0%
    d          scalar   2.0e+02  2.0e+02  2.0e+02   2.0e+03     0%
    <BLANKLINE>
    loss 20; of 4 leaves 1 vanishing
    """
    named = tree.leaves_with_path(params)
    value, numbers = flow_numbers(loss, params, state, batch, key)
    table = list(zip(*(column.tolist() for column in numbers), strict=True))
    rows = [_row(path, leaf, *found) for (path, leaf), found in zip(named, table, strict=True)]
    with _Uses([leaf for _, leaf in named]) as uses:
        loss(params, state, batch, key)
    ordered = [rows[i] for i in uses.order()]
    return Flow(_judged(ordered), float(value))


def draw_flow(flow: Flow) -> "Figure":
    """Draw the gradients of all leaves as bars on a logarithmic axis, the first at the top: matplotlib's Figure.

    A bar is the root mean square of the gradient's elements that are not 0, coloured by the verdict; a tick beside it
    is the greatest element. What is dead or not finite has no bar.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.

    >>> row = FlowRow("w", (2,), 2.0, 1.4, 1.5, 1.0, 0.7, 0.8, 0.0, 0)
    >>> axes = draw_flow(Flow((row,), 0.5)).axes[0]
    >>> [label.get_text() for label in axes.get_yticklabels()], axes.get_xscale()
    (['w'], 'log')
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    count = len(flow.rows)
    figure = Figure((7.0, 1.2 + 0.22 * count), layout="constrained")
    axes = figure.subplots()
    axes.set(xscale="log", xlabel="gradient: root mean square, and greatest element")
    for place, row in enumerate(flow.rows):
        if row.nonfinite == 0 and row.size > 0:
            axes.barh(place, row.size, color=_COLORS[row.verdict])
            axes.plot(row.maximum, place, "|", color="0.2")
    axes.set_yticks(range(count), [row.path for row in flow.rows])
    axes.set_ylim(count - 0.4, -0.6)
    verdicts = dict.fromkeys(row.verdict for row in flow.rows if row.verdict)
    if verdicts:
        axes.legend(handles=[Patch(color=_COLORS[verdict], label=verdict) for verdict in verdicts])
    return figure


def _numbers(gradient: Tensor, parameter: Tensor) -> list[Tensor]:
    """In the order of `FlowNumbers`, of one leaf; float32 at least."""
    sizes, own = gradient.abs(), parameter.abs()
    if sizes.dtype in (torch.float16, torch.bfloat16):
        sizes, own = sizes.float(), own.float()
    if not sizes.numel():
        zero, none = sizes.new_zeros(()), torch.zeros((), dtype=torch.int64, device=sizes.device)
        return [zero, zero, zero, none, none, zero, zero, zero]
    return [
        tree.global_norm([sizes]),
        sizes.mean(),
        sizes.amax(),
        (gradient == 0).sum(),
        (~torch.isfinite(gradient)).sum(),
        tree.global_norm([own]),
        own.mean(),
        own.amax(),
    ]


def _row(path: str, leaf: Tensor, *found: Any) -> FlowRow:
    norm, mean, maximum, zeros, nonfinite, *own = found
    share = zeros / leaf.numel() if leaf.numel() else 1.0
    return FlowRow(path, tuple(leaf.shape), norm, mean, maximum, own[0], own[1], own[2], share, nonfinite)


def _judged(rows: Sequence[FlowRow]) -> tuple[FlowRow, ...]:
    near = [row.size for row in rows[-max(len(rows) // 4, 3) :] if not row.nonfinite and row.size > 0]
    middle = sorted(near)[len(near) // 2] if near else None
    return tuple(replace(row, verdict=_verdict(row, middle)) for row in rows)


def _verdict(row: FlowRow, near: float | None) -> str:
    if row.nonfinite:
        return "non-finite"
    if row.norm == 0:
        return "dead"
    if near is None:
        return ""
    return "vanishing" if row.size < near / _FAR else "exploding" if row.size > near * _FAR else ""


class _Uses(TorchFunctionMode):
    """Notes which of some tensors a call uses first."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        self._places = {id(tensor): place for place, tensor in enumerate(tensors)}
        self._seen: dict[int, None] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Look at the arguments. What gives no tensor, such as a look at a shape, is no use."""
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) for leaf in tree.leaves(result)):
            for leaf in tree.leaves((args, kwargs)):
                if id(leaf) in self._places:
                    self._seen.setdefault(self._places[id(leaf)])
        return result

    def order(self) -> list[int]:
        """All places: those that were used as they were, and after them the rest."""
        return [*self._seen, *(place for place in self._places.values() if place not in self._seen)]
