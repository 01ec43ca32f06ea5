"""A function with derivative rules of its own, at every level of the transforms around it.

As in jax, the innermost transform that differentiates an argument applies the rule, and everything further out sees
the operations that the rule is made of. An `autograd.Function` would apply its rule at all levels at once.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from funcnet import _compat
from funcnet._compat import interpreters
from funcnet._compat.interpreters import Level

__all__ = ["Cotangents", "Recorded", "Rule", "Tensors", "apply", "is_inexact"]

Tensors = Sequence[Tensor]
Cotangents = Sequence[Tensor | None]


class Recorded(NamedTuple):
    """A run that can be differentiated: the results, what is kept, and from both the cotangents of the arguments."""

    outs: Tensors
    residuals: Tensors
    pullback: Callable[[Tensors, Tensors], Cotangents]  # (residuals, one cotangent for each inexact result)


class Rule(Protocol):
    """A function of flat tensors with its derivatives. A cotangent or tangent of None is zero, or of an integer."""

    name: str

    def run(self, *args: Tensor) -> Tensors:
        """The function where nothing is differentiated."""

    def record(self, args: Tensors) -> Recorded:
        """For reverse mode."""

    def push(self, primals: Tensors, tangents: Cotangents) -> tuple[Tensors, Cotangents]:
        """For forward mode: the results and their tangents."""

    def mapped(self, dims: Sequence[int | None], level: Level) -> "Rule":
        """The rule of the function under `vmap`, whose results have the mapped axis first."""


def is_inexact(tensor: Tensor) -> bool:
    """Whether a derivative with respect to this tensor makes sense."""
    return tensor.is_floating_point() or tensor.is_complex()


def apply(rule: Rule, args: Tensors) -> Tensors:
    """Call a function by its rule."""
    levels = interpreters.levels()
    return _Call(rule.name, {level.number: level.kind for level in levels}).descend(
        rule, [interpreters.alive(a) for a in args], levels
    )


class _Call:
    """One call, with the transforms around it."""

    def __init__(self, name: str, kinds: dict[int, str]) -> None:
        self.name, self.kinds = name, kinds

    def descend(self, rule: Rule, args: Tensors, levels: Sequence[Level]) -> Tensors:
        """Apply the rule at the first of some levels, the innermost first, that has a part in the arguments."""
        level, *rest = levels
        number = level.number
        if level.kind == "Vmap":
            laid_open = [interpreters.mapped_axis(a, number) for a in args]
            dims = [dim for _, dim in laid_open]
            if all(dim is None for dim in dims):
                return self.descend(rule, args, rest)
            outs = self.descend(rule.mapped(dims, level), [a for a, _ in laid_open], rest)
            return [interpreters.hide_axis(out, number) for out in outs]
        if level.kind == "Jvp" or number == 0:
            duals = [interpreters.split_dual(a, number) for a in args]
            if any(tangent is not None for _, tangent in duals):
                return self.pushed(rule, duals, level)
        if level.kind == "Grad" and level.records and any(self.marked(a, number) for a in args):
            return self.recorded(rule, args, number)
        if rest:
            return self.descend(rule, [interpreters.inner(a, number) for a in args], rest)
        return self.settled(rule.run(*args), 0, level.records)

    def marked(self, tensor: Tensor, number: int) -> bool:
        """Whether reverse mode at a level differentiates with respect to a tensor."""
        return tensor.requires_grad and max(_compat.level_of(tensor), 0) == number

    def recorded(self, rule: Rule, args: Tensors, number: int) -> Tensors:
        """Apply a rule for reverse mode at one level."""
        autocast = _compat.autocast_state()
        with torch.enable_grad():
            outs, residuals, pullback = rule.record([interpreters.inner(a, number) for a in args])
            outs, residuals = self.settled(outs, number), self.settled(residuals, number)
            # Torch may differentiate its own graph twice, and says so only then.
            again = rule if number == 0 else None
            results = [interpreters.outer(out, number) for out in outs]
            tape = _Tape(again, pullback, residuals, [out for out in results if is_inexact(out)], autocast)
            attached = iter(interpreters.attach(_Attached, tape, *args))
        return [next(attached) if is_inexact(out) else out for out in results]

    def pushed(self, rule: Rule, duals: Sequence[tuple[Tensor, Tensor | None]], level: Level) -> Tensors:
        """Apply a rule for forward mode at one level."""
        number = level.number
        if number == 0 and level.records and any(self.marked(primal, 0) for primal, _ in duals):
            raise TypeError(
                f"{self.name} has derivatives of its own, and meets torch.autograd in reverse and forward mode at "
                f"once, which cannot be told apart. Write funcnet.hvp, or jvp of grad."
            )
        outs, moved = rule.push([primal for primal, _ in duals], [tangent for _, tangent in duals])
        outs = self.settled(outs, number)
        moved = [t if t is None else self.settled([t], number)[0] for t in moved]
        return [
            out if t is None else interpreters.join_dual(out, t, number) for out, t in zip(outs, moved, strict=True)
        ]

    def settled(self, tensors: Tensors, number: int, records: bool = True) -> Tensors:
        """Tensors made from arguments without the wrappers of a level and those inside it, without these wrappers."""
        return [self._settled(tensor, number, records) for tensor in tensors]

    def _settled(self, tensor: Tensor, number: int, records: bool) -> Tensor:
        tensor = interpreters.alive(tensor)
        while (wrapper := _compat.level_of(tensor)) >= max(number, 1):
            kind = self.kinds[wrapper]
            if kind == "Vmap":
                raise TypeError(
                    f"{self.name} has derivatives of its own, and reads a tensor around it that vmap maps over. Make "
                    f"that tensor an argument of {self.name}."
                )
            if tensor.requires_grad if kind == "Grad" else interpreters.split_dual(tensor, wrapper)[1] is not None:
                raise self.reads("is being differentiated")
            tensor = interpreters.alive(interpreters.inner(tensor, wrapper))
        if number == 0 and records and tensor.requires_grad:
            raise self.reads("requires grad")
        return tensor

    def reads(self, what: str) -> TypeError:
        return TypeError(
            f"{self.name} has derivatives of its own, and reads a tensor around it that {what}: its rule says nothing "
            f"of that tensor, whose derivative would be left out without a word. Make it an argument of {self.name}, "
            f"or use stop_gradient (.detach()) if it is meant as a constant."
        )


class _Tape:
    """What is kept between a forward and a backward pass."""

    def __init__(
        self,
        rule: Rule | None,
        pullback: Callable[[Tensors, Tensors], Cotangents],
        residuals: Tensors,
        outs: Tensors,
        autocast: tuple[Any, ...],
    ) -> None:
        self.rule, self.pullback, self.autocast = rule, pullback, autocast
        self.residuals, self.outs = residuals, outs
        self.kept = len(residuals)


class _Attached(interpreters.SingleLevelFunction):  # type: ignore[misc]  # torch's Function is untyped
    """Results that were computed already, as a function of the arguments at one level."""

    @staticmethod
    def forward(ctx: Any, tape: _Tape, *args: Tensor) -> tuple[Tensor, ...]:
        outs = tuple(tape.outs)
        ctx.save_for_backward(*tape.residuals, *(args if tape.rule is not None else ()))
        tape.residuals = tape.outs = ()  # the graph holds them in a way that makes no cycle
        ctx.tape = tape
        return outs

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        tape: _Tape = ctx.tape
        residuals, args = ctx.saved_tensors[: tape.kept], ctx.saved_tensors[tape.kept :]
        pullback = tape.pullback
        with ExitStack() as stack:
            if _compat.autocast_state() != tape.autocast:
                _compat.enter_autocast(stack, tape.autocast)
            if tape.rule is not None and torch.is_grad_enabled():
                # Made again as part of the graph, so that the residuals' own derivatives count.
                _, residuals, pullback = tape.rule.record(args)
            return (None, *pullback(residuals, cotangents))
