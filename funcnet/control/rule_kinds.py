"""What the rules for reverse mode, and those for forward mode, have in common: `vmap`, and the transpose."""

from collections.abc import Sequence

import torch
from torch import Tensor

from funcnet import _compat
from funcnet._compat import interpreters
from funcnet._compat.interpreters import Level
from funcnet.control.rules import Cotangents, Recorded, Rule, Tensors, is_inexact

__all__ = ["ForwardRule", "ReverseRule"]


class ReverseRule:
    """What rules for reverse mode share: `vmap`."""

    name: str

    def mapped(self, dims: Sequence[int | None], level: Level) -> Rule:
        """See `Rule`."""
        return _MappedReverse(self, dims, level)  # type: ignore[arg-type]  # a subclass has the rest of a Rule


class _MappedReverse(ReverseRule):
    def __init__(self, rule: Rule, dims: Sequence[int | None], level: Level) -> None:
        self.name, self.rule, self.dims, self.level = rule.name, rule, dims, level

    def run(self, *args: Tensor) -> Tensors:
        return _mapped_run(self.rule, self.dims, self.level, args)

    def push(self, primals: Tensors, tangents: Cotangents) -> tuple[Tensors, Cotangents]:
        return self.rule.push(primals, tangents)

    def record(self, args: Tensors) -> Recorded:
        found: list[Recorded] = []

        def flat(*args: Tensor) -> tuple[Tensor, ...]:
            found.append(self.rule.record(args))
            return (*found[0].outs, *found[0].residuals)

        values, dims = interpreters.mapped(flat, self.dims, self.level)(*args)
        (one,) = found
        count = len(one.outs)
        outs = [self._first(out, dim) for out, dim in zip(values[:count], dims[:count], strict=True)]
        kept_dims, pull = dims[count:], one.pullback

        def pullback(residuals: Tensors, cotangents: Tensors) -> Cotangents:
            present: list[bool] = []

            def flat(*both: Tensor) -> tuple[Tensor, ...]:
                grads = pull(both[: len(kept_dims)], both[len(kept_dims) :])
                present.extend(grad is not None for grad in grads)
                return tuple(grad for grad in grads if grad is not None)

            every = (*kept_dims, *[0] * len(cotangents))
            grads, grad_dims = interpreters.mapped(flat, every, self.level)(*residuals, *cotangents)
            found = zip(grads, grad_dims, strict=True)
            return [
                self._like(*next(found), dim) if here else None for here, dim in zip(present, self.dims, strict=True)
            ]

        return Recorded(outs, values[count:], pullback)

    def _first(self, value: Tensor, dim: int | None) -> Tensor:
        return _first(value, dim, self.level.size)

    def _like(self, grad: Tensor, dim: int | None, wanted: int | None) -> Tensor:
        """A cotangent with the mapped axis where the argument has it; summed, if all examples share the argument."""
        grad = self._first(grad, dim)
        return grad.sum(0) if wanted is None else grad.movedim(0, wanted)


class ForwardRule:
    """What rules for forward mode share: reverse mode, which is the transpose of their linear map; and `vmap`."""

    name: str

    def push(self, primals: Tensors, tangents: Cotangents) -> tuple[Tensors, Cotangents]:
        """See `Rule`."""
        raise NotImplementedError

    def record(self, args: Tensors) -> Recorded:
        """See `Rule`."""
        if not _compat.transform_active():
            return self._record_plainly(args)
        # Made in the backward pass: a graph from now would hold wrappers of every transform around, and torch opens no
        # more than one that has ended.
        outs, _ = self.push(args, [None] * len(args))

        def pullback(args: Tensors, cotangents: Tensors) -> Cotangents:
            def linear(*tangents: Tensor) -> tuple[Tensor, ...]:
                return tuple(t for t in self.push(args, _spread(args, tangents))[1] if t is not None)

            return _spread(args, torch.func.vjp(linear, *_zeros(args))[1](tuple(cotangents)))

        return Recorded(outs, args, pullback)

    def _record_plainly(self, args: Tensors) -> Recorded:
        """By torch's own autograd, which is quicker, and minds tensors that are written before the backward pass."""
        with torch.enable_grad():
            tangents = [zero.requires_grad_() for zero in _zeros(args)]
            outs, moved = self.push(args, _spread(args, tangents))

        def pullback(_: Tensors, cotangents: Tensors) -> Cotangents:
            inexact = (t for t in moved if t is not None)
            pairs = [(t, ct) for t, ct in zip(inexact, cotangents, strict=True) if t.requires_grad]
            if not pairs:
                return [None] * len(args)
            grads = torch.autograd.grad(
                [t for t, _ in pairs],
                tangents,
                [ct for _, ct in pairs],
                retain_graph=True,
                create_graph=torch.is_grad_enabled(),
                allow_unused=True,
            )
            return _spread(args, grads)

        return Recorded(outs, (), pullback)

    def mapped(self, dims: Sequence[int | None], level: Level) -> Rule:
        """See `Rule`."""
        return _MappedForward(self, dims, level)  # type: ignore[arg-type]  # a subclass has the rest of a Rule


class _MappedForward(ForwardRule):
    def __init__(self, rule: Rule, dims: Sequence[int | None], level: Level) -> None:
        self.name, self.rule, self.dims, self.level = rule.name, rule, dims, level

    def run(self, *args: Tensor) -> Tensors:
        return _mapped_run(self.rule, self.dims, self.level, args)

    def push(self, primals: Tensors, tangents: Cotangents) -> tuple[Tensors, Cotangents]:
        moving = [t is not None for t in tangents]
        moved: list[bool] = []

        def flat(*both: Tensor) -> tuple[Tensor, ...]:
            given = iter(both[len(primals) :])
            outs, tangents = self.rule.push(both[: len(primals)], [next(given) if moves else None for moves in moving])
            moved.extend(t is not None for t in tangents)
            return (*outs, *(t for t in tangents if t is not None))

        dims = (*self.dims, *(dim for dim, moves in zip(self.dims, moving, strict=True) if moves))
        values, found = interpreters.mapped(flat, dims, self.level)(*primals, *(t for t in tangents if t is not None))
        first = [_first(value, dim, self.level.size) for value, dim in zip(values, found, strict=True)]
        given = iter(first[len(moved) :])
        return first[: len(moved)], [next(given) if moves else None for moves in moved]


def _mapped_run(rule: Rule, dims: Sequence[int | None], level: Level, args: Tensors) -> Tensors:
    def flat(*args: Tensor) -> tuple[Tensor, ...]:
        return tuple(rule.run(*args))

    values, found = interpreters.mapped(flat, dims, level)(*args)
    return [_first(value, dim, level.size) for value, dim in zip(values, found, strict=True)]


def _first(value: Tensor, dim: int | None, size: int) -> Tensor:
    """The value with the mapped axis first, repeated along it if all examples share the value."""
    return value.expand(size, *value.shape) if dim is None else value.movedim(dim, 0)


def _zeros(args: Tensors) -> list[Tensor]:
    return [torch.zeros_like(a, requires_grad=False) for a in args if is_inexact(a)]


def _spread(args: Tensors, derivatives: Cotangents) -> Cotangents:
    """Derivatives by the inexact arguments, with None for the others."""
    given = iter(derivatives)
    return [next(given) if is_inexact(a) else None for a in args]
