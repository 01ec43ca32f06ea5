"""Recomputation: a function whose intermediates are not kept for its derivative, but made again."""

import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from funcnet import _compat, tree
from funcnet.control.closure import Body, MissedError, Outcome, ambient, close, tensors_around, visible
from funcnet.control.swap import swaps

__all__ = ["remat"]

P = ParamSpec("P")
R = TypeVar("R")
Flat = Callable[..., tuple[Tensor, ...]]


def remat(f: Callable[P, R]) -> Callable[P, R]:
    """The same function, which keeps only its inputs for the derivative, and computes the rest again when it is wanted.

    It trades a forward pass for memory (Chen et al. 2016, "Training deep nets with sublinear memory cost"): what `f`
    holds between its inputs and outputs is gone when it returns. Wrap each block of a deep model, not the whole. It
    works under every transform, nested, and under `jit`, where the compiler is kept from merging the second
    computation with the first.

    Tensors that `f` closes over are followed. Inside a module, draws are made again from the same keys, and BatchNorm
    statistics are updated once.

    Args:
        f: a pure function of pytrees, or a submodule inside a module's forward.

    Returns:
        A function with the values and derivatives of `f`.

    Raises:
        RuntimeError: `f` hands a tensor that it closes over to an `autograd.Function`, or to `torch.func` instead of
            funcnet's transforms: make it an argument.

    >>> block = remat(lambda w, x: torch.tanh(torch.tanh(x @ w) @ w))
    >>> w, x = torch.eye(2) / 2, torch.ones(2)
    >>> torch.func.grad(lambda w: block(w, x).sum())(w)
    tensor([[0.8113, 0.8113],
            [0.8113, 0.8113]])
    """

    @functools.wraps(f)
    def remat_of(*args: P.args, **kwargs: P.kwargs) -> R:
        mode = ambient()
        around, inside = tensors_around(f), bool(swaps())
        # Inside another such function, what stands in the place of a tensor is seen only by calls that are made there.
        reads = [t for t in around if inside or _matters(t if mode is None else mode.current(t))]
        if mode is not None and not inside:
            reads += [t for t in around if mode.holds(t) and not _matters(mode.current(t))]
        try:
            call = _Call(Body(f, reads, mode), args, kwargs, watched=True)
            return call.result()  # type: ignore[no-any-return]  # that of f
        except MissedError:
            # What the function reads may be in none of the places looked at: one run that watches it finds everything.
            call = _Call(close(f, *args, **kwargs).body, args, kwargs, watched=False)
            return call.result()  # type: ignore[no-any-return]  # as above

    return remat_of


def _matters(tensor: Tensor) -> bool:
    return tensor.requires_grad or _compat.level_of(tensor) > 0 or _compat.has_tangent(tensor)


@dataclass
class _Places:
    """What the first run showed of the flat inputs."""

    idle: set[int] = field(default_factory=set)  # those that are not read
    copied: set[int] = field(default_factory=set)  # those that are overwritten afterwards


class _Call:
    """One call, as a function of a flat list of tensors: those of the arguments, those that are read, and the key."""

    def __init__(self, body: Body, args: Any, kwargs: Any, *, watched: bool) -> None:
        self.body, self.watched = body, watched
        self.level = _compat.level()
        leaves, self.treedef = tree.flatten(visible((args, kwargs)))
        self.rest = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self.given = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        mode = body.mode
        self.draws = mode.draws if mode is not None else 0
        self.key = [mode.key] if mode is not None and mode.key is not None else []
        self.autocast = _compat.autocast_state()
        self.places = _Places()
        self.first: Outcome | None = None  # with None in the place of the result's tensors

    def result(self) -> Any:
        """Apply the function, and put what it wrote into the surroundings."""
        outputs = list(_recomputed(self.flat, self.places, [*self.given, *visible(self.body.current()), *self.key]))
        first = self.first
        assert first is not None  # it has run
        leaves, treedef = first.result
        filled = [outputs.pop(0) if leaf is None else leaf for leaf in leaves]
        for name in first.updates:
            first.updates[name] = outputs.pop(0).detach()  # statistics have no derivative
        for place in first.written:
            first.written[place] = outputs.pop(0)
        self.body.commit(first.updates, first.written)
        if self.body.mode is not None:
            self.body.mode.draws = first.draws
        return tree.unflatten(treedef, filled)

    def flat(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given, reads, key = self._split(tensors)
        leaves = [next(given) if leaf is None else leaf for leaf in self.rest]
        args, kwargs = tree.unflatten(self.treedef, leaves)
        with ExitStack() as stack:
            if _compat.autocast_state() != self.autocast:
                _compat.enter_autocast(stack, self.autocast)
            watch = self._may_be_around if self.watched and self.first is None else None
            outcome = self.body.run(reads, key, self.draws, args, kwargs, watch, tensors)
        results, treedef = tree.flatten(outcome.result)
        outputs = [leaf for leaf in results if isinstance(leaf, Tensor)]
        outputs += [*outcome.updates.values(), *outcome.written.values()]
        if self.first is None:
            outcome.result = [None if isinstance(leaf, Tensor) else leaf for leaf in results], treedef
            self.first = outcome
            start = len(self.given)
            self.places.idle |= {start + place for place in range(len(reads)) if place not in outcome.used}
            self.places.copied |= {start + n for n in outcome.written if not self.body.attribute(n)}
        # autograd takes an output that is an input for something written in place.
        return tuple(t.view_as(t) if any(t is own for own in tensors) else t for t in outputs)

    def _may_be_around(self, tensor: Tensor) -> bool:
        """Whether a tensor that was neither given nor made by a call may be of the surroundings, and matter there.

        The function runs below its transforms, so that those it opens have the numbers of theirs: a wrapper of such a
        number may be of either.
        """
        return _compat.level_of(tensor) <= self.level and _matters(tensor)

    def _split(self, tensors: Sequence[Tensor]) -> Any:
        a, b = len(self.given), len(self.given) + len(self.body.reads)
        return iter(tensors[:a]), tensors[a:b], (tensors[b] if self.key else None)


def _recomputed(flat: Flat, places: _Places, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return _Recomputed.apply(flat, places, *tensors)  # type: ignore[no-any-return]  # Function.apply is untyped


def _floating(outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(t for t in outputs if t.is_floating_point() or t.is_complex())


class _Recomputed(torch.autograd.Function):
    """A pure function of tensors alone, whose every rule is made of itself."""

    @staticmethod
    def forward(flat: Flat, places: _Places, *tensors: Tensor) -> tuple[Tensor, ...]:
        return flat(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.flat, ctx.places, *tensors = inputs
        kept = [t.clone() if n in ctx.places.copied else t for n, t in enumerate(tensors)]
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)
        ctx.mark_non_differentiable(*(t for t in output if not (t.is_floating_point() or t.is_complex())))
        ctx.set_materialize_grads(False)
        ctx.differentiable = [t.is_floating_point() or t.is_complex() for t in output]

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        tensors = [_compat.unwrap_dead(t) for t in ctx.saved_tensors]
        pulled = {n: ct for n, ct in enumerate(cotangents) if ct is not None and ctx.differentiable[n]}
        wanted = [n for n, need in enumerate(ctx.needs_input_grad[2:]) if need and n not in ctx.places.idle]
        grads: list[Tensor | None] = [None] * len(tensors)
        if not pulled:
            return (None, None, *grads)
        if _compat.tracing():
            after = next(iter(pulled.values()))
            tensors = [_Later.apply(t, after) for t in tensors]

        def part(*some: Tensor) -> tuple[Tensor, ...]:
            full = list(tensors)
            for n, t in zip(wanted, some, strict=True):
                full[n] = t
            outputs = ctx.flat(*full)
            return tuple(outputs[n] for n in pulled)

        for n, grad in zip(wanted, _pull(part, [tensors[n] for n in wanted], list(pulled.values())), strict=True):
            grads[n] = grad
        return (None, None, *grads)

    @staticmethod
    def jvp(ctx: Any, _flat: None, _places: None, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        count = len(tensors)
        moving = [n for n, t in enumerate(tangents) if t is not None]

        def pushed(*both: Tensor) -> tuple[Tensor, ...]:
            def part(*some: Tensor) -> tuple[Tensor, ...]:
                full = list(both[:count])
                for n, t in zip(moving, some, strict=True):
                    full[n] = t
                return _floating(ctx.flat(*full))

            return _push(part, [both[n] for n in moving], both[count:])

        # A _Places of its own: the tangents follow the inputs.
        out = iter(_recomputed(pushed, _Places(ctx.places.idle), [*tensors, *(t for t in tangents if t is not None)]))
        return tuple(next(out) if kind else None for kind in ctx.differentiable)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], flat: Flat, places: _Places, *tensors: Tensor) -> Any:
        batched = torch.func.vmap(flat, in_dims=in_dims[2:], randomness=info.randomness)
        outputs = _recomputed(batched, places, tensors)
        return outputs, (0,) * len(outputs)


def _pull(f: Flat, primals: Sequence[Tensor], cotangents: Sequence[Tensor]) -> Sequence[Tensor | None]:
    if torch.is_grad_enabled() or _compat.transform_active():
        return torch.func.vjp(f, *primals)[1](tuple(cotangents))  # type: ignore[no-any-return]  # torch.func is untyped
    # Nobody differentiates this pass: torch's own autograd does it with less ado.
    with torch.enable_grad():
        fresh = [t.detach().requires_grad_() for t in primals]
        outputs = f(*fresh)
    pairs = [(out, ct) for out, ct in zip(outputs, cotangents, strict=True) if out.requires_grad]
    if not pairs:
        return [None] * len(fresh)
    return torch.autograd.grad([out for out, _ in pairs], fresh, [ct for _, ct in pairs], allow_unused=True)


def _push(f: Flat, primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
    if not _compat.bare_forward_mode():
        with _compat.forward_alone():
            return torch.func.jvp(f, tuple(primals), tuple(tangents))[1]  # type: ignore[no-any-return]  # untyped
    # torch.autograd.forward_ad, which does not nest: the pullback is linear, and its own pullback the pushforward.
    outputs, pullback = torch.func.vjp(f, *primals)[:2]
    zeros = tuple(torch.zeros_like(t) for t in outputs)
    return torch.func.vjp(pullback, zeros)[1](tuple(tangents))[0]  # type: ignore[no-any-return]  # untyped


class _Later(torch.autograd.Function):
    """The identity, which the compiler does not look through, and computes after something else.

    Else it would find that it has computed all this before, and keep it.
    """

    @staticmethod
    def forward(x: Tensor, after: Tensor) -> Tensor:
        later: Tensor = _compat.LATER(x, after)
        return later

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        return cotangent, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor | None, _: Tensor | None) -> Tensor | None:
        return None if tangent is None else tangent.view_as(tangent)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], x: Tensor, after: Tensor) -> Any:
        return _Later.apply(x, after), in_dims[0]
