"""A loop or a branch as one node of a traced graph, with derivatives that are such nodes again."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import torch
from torch import Tensor

from funcnet import _compat
from funcnet._compat import interpreters
from funcnet._compat.interpreters import Level

__all__ = [
    "Flat",
    "Node",
    "Some",
    "apply",
    "filled",
    "inexact",
    "mapped_in_front",
    "parts",
    "pull",
    "push",
    "reached",
    "zeros_for",
]

T = TypeVar("T")
Flat = Callable[..., Sequence[Tensor]]
Some = Sequence[Tensor | None]


class Node(Protocol):
    """A function of flat tensors, with a rule for each transform. A tangent or cotangent of None is zero."""

    @property
    def kept(self) -> int:
        """How many of the results, the last, the backward pass reads."""

    def idle(self, tensors: Sequence[Tensor], needed: Sequence[bool], count: int) -> set[int]:
        """Which of the `count` results depend on no input that is needed, as far as the node can tell."""

    def run(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The results, where no transform is left."""

    def pulled(self, tensors: Sequence[Tensor], kept: Sequence[Tensor], needed: Sequence[bool], given: Some) -> Some:
        """The cotangents of the inputs that are needed, from those of the results."""

    def pushed(self, tensors: Sequence[Tensor], tangents: Some) -> Sequence[Tensor]:
        """The tangents of the inexact results."""

    def mapped(self, info: Any, dims: Sequence[int | None], tensors: Sequence[Tensor]) -> Any:
        """The results under `vmap`, and their mapped axes."""


def apply(node: Node, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The results of a node under the transforms around."""
    return list(_Primitive.apply(node, *tensors))


class _Primitive(torch.autograd.Function):
    """Each rule takes one transform away, and applies a node of the transformed body."""

    @staticmethod
    def forward(node: Node, *tensors: Tensor) -> tuple[Tensor, ...]:
        # An input may not be returned as it is.
        return tuple(t.clone() if any(t is given for given in tensors) else t for t in node.run(tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.node, *tensors = inputs
        ctx.save_for_backward(*tensors, *output[len(output) - ctx.node.kept :])
        ctx.save_for_forward(*tensors)
        _, *needed = ctx.needs_input_grad
        ctx.inexact = set(inexact(output)) - (ctx.node.idle(tensors, needed, len(output)) if any(needed) else set())
        ctx.mark_non_differentiable(*(t for n, t in enumerate(output) if n not in ctx.inexact))
        ctx.set_materialize_grads(False)
        ctx.strides = [t.stride() for t in output]

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        _, *needed = ctx.needs_input_grad
        tensors, kept = ctx.saved_tensors[: len(needed)], ctx.saved_tensors[len(needed) :]
        given = [ct if n in ctx.inexact else None for n, ct in enumerate(cotangents)]
        return (None, *ctx.node.pulled(tensors, kept, needed, given))

    @staticmethod
    def jvp(ctx: Any, _node: None, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        moved = iter(ctx.node.pushed(ctx.saved_tensors, tangents))
        return tuple(
            _laid_out(next(moved), strides) if n in ctx.inexact else None for n, strides in enumerate(ctx.strides)
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], node: Node, *tensors: Tensor) -> Any:
        results, dims = node.mapped(info, in_dims[1:], tensors)
        return tuple(results), tuple(dims)


def _laid_out(tangent: Tensor, strides: Sequence[int]) -> Tensor:
    """A tangent in the layout of its primal. Torch copies one that differs, which fails while `vmap` is traced."""
    if tangent.stride() == tuple(strides):
        return tangent
    order = sorted(range(tangent.ndim), key=lambda dim: -strides[dim])
    inverse = sorted(range(tangent.ndim), key=order.__getitem__)
    return tangent.permute(order).clone(memory_format=torch.contiguous_format).permute(inverse)


def parts(flat: Sequence[T], *counts: int) -> list[list[T]]:
    """Take a list apart into lists of so many."""
    given = iter(flat)
    return [[next(given) for _ in range(count)] for count in counts]


def filled(flat: Sequence[Any], places: Sequence[int], values: Sequence[Any]) -> list[Any]:
    """The list with these values at these places."""
    full = list(flat)
    for place, value in zip(places, values, strict=True):
        full[place] = value
    return full


def inexact(tensors: Sequence[Tensor]) -> list[int]:
    """The places of the tensors that a derivative makes sense of."""
    return [n for n, t in enumerate(tensors) if t.is_floating_point() or t.is_complex()]


def zeros_for(given: Some, like: Sequence[Tensor]) -> list[Tensor]:
    """Tangents or cotangents with zeros for those that are missing."""
    return [torch.zeros_like(primal) if t is None else t for t, primal in zip(given, like, strict=True)]


def pull(
    body: Flat, inputs: Sequence[Tensor], places: Sequence[int], outs: Sequence[int], given: Sequence[Tensor]
) -> list[Tensor]:
    """The cotangents of the inputs at some places, from those of some results."""

    def part(*some: Tensor) -> tuple[Tensor, ...]:
        results = body(*filled(inputs, places, some))
        return tuple(results[n] for n in outs)

    return list(torch.func.vjp(part, *(inputs[n] for n in places))[1](tuple(given)))


def push(
    body: Flat, inputs: Sequence[Tensor], places: Sequence[int], tangents: Sequence[Tensor]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The results, and the tangents of the inexact ones."""

    def part(*some: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        results = tuple(body(*filled(inputs, places, some)))
        return tuple(results[n] for n in inexact(results)), results

    # Copies, since torch gives a view that carries an outer tangent no inner one of another layout, which a trace may
    # have.
    primals = tuple(inputs[n].clone() for n in places)
    # With has_aux torch returns three, which its annotation leaves out.
    with _compat.forward_alone():
        _, moved, results = cast(Any, torch.func.jvp)(part, primals, tuple(tangents), has_aux=True)
    return results, moved


class InFront(NamedTuple):
    """A function under `vmap`."""

    f: Flat
    batched: list[bool]  # which of its results have the mapped axis, which is their first


def mapped_in_front(
    info: Any, f: Flat, dims: Sequence[int | None], example: Sequence[Tensor], wanted: Sequence[bool] = ()
) -> InFront:
    """The function under `vmap`: results that depend on the mapped arguments, or are `wanted` so, get its axis."""
    level = Level(0, "Vmap", False, info.batch_size, info.randomness)
    step = interpreters.mapped(lambda *args: tuple(f(*args)), dims, level)
    with _compat.sketch():
        _, found = step(*example)
    batched = [dim is not None for dim in found]
    for n, want in enumerate(wanted):
        batched[n] = batched[n] or want

    def in_front(*args: Tensor) -> list[Tensor]:
        results = zip(*step(*args), batched, strict=True)
        return [first(t, dim, info.batch_size) if b else t for t, dim, b in results]

    return InFront(in_front, batched)


def first(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """The tensor with its mapped axis first, repeated along one if it has none."""
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def reached(body: Flat, carry: Sequence[Tensor], rest: Sequence[Tensor], sources: Sequence[bool]) -> list[int]:
    """The places in the carry that a derivative goes through: inexact, and dependent on the inputs at True.

    Torch has no derivative for some inputs, such as the class weights of a loss, not even a zero one.
    """
    active, others = parts(sources, len(carry), len(rest))
    while not all(active):
        found = _compat.dependent(body, [*carry, *rest], [*active, *others])
        grown = [a or b for a, b in zip(active, found[: len(carry)], strict=True)]
        if grown == active:
            break
        active = grown
    return [n for n in inexact(carry) if active[n]]


class Spread(NamedTuple):
    """A carry under `vmap`, and the step that it goes through."""

    body: Flat
    carry: list[Tensor]
    batched: list[bool]  # which parts of the carry have the mapped axis, which is their first
    others: list[bool]  # which other results have it


def spread_through(
    info: Any,
    body: Flat,
    carry: Sequence[Tensor],
    carry_dims: Sequence[int | None],
    rest: Sequence[Tensor],
    rest_dims: Sequence[int | None],
    every: bool = False,
) -> Spread:
    """Follow a mapped axis through `body(*carry, *rest)` until all of the carry that may get it has it.

    With `every`, all of the carry has it.
    """
    size, batched = info.batch_size, [every or dim is not None for dim in carry_dims]
    while True:
        start = [first(t, d, size) if b else t for t, d, b in zip(carry, carry_dims, batched, strict=True)]
        dims = (*(0 if b else None for b in batched), *rest_dims)
        step = mapped_in_front(info, body, dims, [*start, *rest], batched)
        grown, others = parts(step.batched, len(batched), len(step.batched) - len(batched))
        if grown == batched:
            return Spread(step.f, start, batched, others)
        batched = grown
