"""`parameters` and `summary`: what a model holds, and what one call of it costs, as rows and as a table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text
from torch import Tensor, nn

from funcnet import _compat, random, tree
from funcnet.counts.measure import measure
from funcnet.counts.rows import Cost, Row, collapse, rows_of
from funcnet.counts.table import Printed, scaled, table_of
from funcnet.model import Model
from funcnet.pure import Skeleton
from funcnet.specs import Input, example

__all__ = ["Summary", "parameters", "summary"]


@dataclass(frozen=True)
class Summary(Printed):
    """What a model holds, and what a call of it costs. Printed, it is a table whose columns add up to its last lines.

    Attributes:
        rows: one for each submodule, without what its submodules hold. Attention has its output projection in its row.
        parameter_bytes: the memory of the parameters.
        train: whether the call was one of training, with its backward.
        depth: how deep the table goes; None for all of it.
    """

    rows: tuple[Row, ...]
    parameter_bytes: int
    train: bool = False
    depth: int | None = None

    @property
    def count(self) -> int:
        """All parameters, tied ones once."""
        return self.trainable + self.frozen

    @property
    def trainable(self) -> int:
        """The parameters that are trained."""
        return sum(row.trainable for row in self.rows)

    @property
    def frozen(self) -> int:
        """The parameters with `requires_grad=False`."""
        return sum(row.frozen for row in self.rows)

    @property
    def buffers(self) -> int:
        """The elements of buffers and plain tensors."""
        return sum(row.buffers for row in self.rows)

    @property
    def forward(self) -> int:
        """FLOPs of the call: 2 for a multiplication with its addition, none for elementwise work."""
        return sum(row.cost.forward for row in self.rows if row.cost)

    @property
    def backward(self) -> int:
        """FLOPs of the backward to the trainable parameters; 0 unless `train`."""
        return sum(row.cost.backward for row in self.rows if row.cost)

    @property
    def kept(self) -> int:
        """Bytes that the forward keeps for the backward, without parameters, buffers and inputs; 0 unless `train`."""
        return sum(row.cost.kept for row in self.rows if row.cost)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table and its totals."""
        yield table_of(collapse(self.rows, self.depth), self.train, options.max_width)
        yield ""
        for line in self._totals():
            yield Text(line)

    def _totals(self) -> list[str]:
        parts = f"trainable {self.trainable:,}, frozen {self.frozen:,}"
        lines = [
            f"parameters   {self.count:,} ({parts}), {scaled(self.parameter_bytes, 'B') or '0 B'}",
            f"buffers      {self.buffers:,}",
        ]
        if any(row.cost for row in self.rows):
            lines.append(f"FLOPs        {scaled(self.forward) or 0} forward")
            if self.train:
                lines[-1] += f", {scaled(self.backward) or 0} backward"
                lines.append(f"activations  {scaled(self.kept, 'B') or '0 B'} kept for the backward")
        return lines


def parameters(model: Model | nn.Module) -> Summary:
    """What a model holds: each submodule's parameters with their formula, and buffers. Nothing is allocated or run.

    Args:
        model: a `Model`, or a built module.

    Raises:
        TypeError: it is neither, or a lazy module whose sizes are not known yet.

    >>> counts = parameters(nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)))
    >>> [(row.path, row.count, row.formula) for row in counts.rows]
    [('', 0, ''), ('0', 448, '(3*3*3 + 1)*16'), ('1', 32, '2*16')]
    >>> counts.count, counts.buffers
    (480, 33)
    """
    return _summary(_skeleton(model), None)


def summary(
    model: Model | nn.Module, *args: Any, train: bool = False, depth: int | None = None, **kwargs: Any
) -> Summary:
    """What a model holds, and what a call of it costs: shapes, FLOPs, and in training the memory for the backward.

    The call runs on tensors without memory, as on the CPU, so that a model of any size can be summarized. A model that
    reads values (`if x.sum() > 0`) runs on real ones: a module's own, or those of `model.init(random.key(0))`.

    FLOPs are 2 for a multiplication with its addition, as in matrix products, convolutions, attention and recurrent
    layers; elementwise work (activations, norms, biases, pooling) counts none, and kernels from outside torch none.
    Not seen are the workspace of oneDNN's LSTM and the dropout masks between recurrent layers.

    Args:
        model: a `Model`, or a built module, which is left as it is.
        *args: what it is called with: tensors, of which only shape and dtype matter unless it reads values, a tuple of
            sizes for a float32 tensor, `specs.parse_input(...)`, or anything else as it is. None: as `parameters`.
        train: measure a step of training: train mode, the backward, and what is kept for it.
        depth: how deep the printed table goes; what lies below is summed. Default: all of it.
        **kwargs: what it is called with by name.

    Raises:
        TypeError: as `parameters`.
        Exception: whatever the model raises on this input.

    >>> print(summary(nn.Sequential(nn.Linear(64, 10), nn.ReLU()), (8, 64)))
    module       output  parameters  formula       FLOPs
    Sequential   8,10
      0: Linear  8,10           650  (64 + 1)*10  10.2 k
      1: ReLU    8,10
    <BLANKLINE>
    parameters   650 (trainable 650, frozen 0), 2.60 kB
    buffers      0
    FLOPs        10.2 k forward
    """
    skeleton = _skeleton(model)
    if not args and not kwargs:
        return _summary(skeleton, None, depth=depth)
    args, kwargs = tuple(map(_described, args)), {name: _described(value) for name, value in kwargs.items()}
    try:
        with _compat.fake_mode(), torch.device("cpu"):
            values = {name: _empty(leaf.like) for name, leaf in skeleton.leaves.items()}
            costs = _measured(skeleton, values, args, kwargs, _fake, train)
    except Exception as error:  # for want of values, or the caller's mistake, which the real call repeats
        costs = _measured(skeleton, _values(model, skeleton, error), args, kwargs, _real, train)
    return _summary(skeleton, costs, train, depth)


def _measured(
    skeleton: Skeleton,
    values: Mapping[str, Tensor],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    given: Callable[[Any], Any],
    train: bool,
) -> dict[str, Cost]:
    module = skeleton.build(values).train(train)
    for layer in module.modules():
        if isinstance(layer, nn.RNNBase):
            layer.dropout = 0.0  # it would draw from the global generator, out of the seed's reach
    # Seeded as in `Model.apply`: the same dropout, the global generator at rest, and no fused inference of attention.
    with random.seeded(random.key(0)):
        return measure(module, [given(x) for x in args], {name: given(x) for name, x in kwargs.items()}, train)


def _skeleton(model: Model | nn.Module) -> Skeleton:
    if isinstance(model, Model):
        return model._skeleton_of(None)
    if isinstance(model, nn.Module):
        return Skeleton(model)
    raise TypeError(
        f"counts are taken of a Model or of a built nn.Module, not of a {type(model).__name__}. Write "
        f"Model(constructor, ...) or constructor(...)."
    )


def _summary(
    skeleton: Skeleton, costs: Mapping[str, Cost] | None, train: bool = False, depth: int | None = None
) -> Summary:
    likes = [leaf.like for leaf in skeleton.leaves.values() if leaf.parameter]
    size = sum(like.numel() * like.element_size() for like in likes)
    return Summary(rows_of(skeleton, costs), size, train, depth)


def _values(model: Model | nn.Module, skeleton: Skeleton, error: Exception) -> dict[str, Tensor]:
    if isinstance(model, nn.Module):
        params, state = skeleton.take(model)
    elif model._constructor is None:
        raise TypeError(
            f"{model!r} cannot be summarized without its values ({error}). Write "
            f"summary(model.bind(params, state), ...)."
        ) from error
    else:
        params, state = model.init(random.key(0))
    return params | state


def _described(value: Any) -> Any:
    is_shape = type(value) is tuple and value and all(type(size) is int for size in value)
    return Input(value, torch.float32, None) if is_shape else value


def _fake(value: Any) -> Any:
    if isinstance(value, Input):
        return torch.empty(value.shape, dtype=value.dtype)
    return tree.map(lambda leaf: _empty(leaf) if isinstance(leaf, Tensor) else leaf, value)


def _empty(like: Tensor) -> Tensor:
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype)


def _real(value: Any) -> Any:
    return example(value, random.key(0)) if isinstance(value, Input) else tree.map(_detached, value)


def _detached(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf  # the model may write into its inputs
