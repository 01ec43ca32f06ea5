"""What a function reads from its surroundings and writes to them, made arguments and results.

A body that runs again later, or at another level of transforms, must not reach for tensors around it: there they would
be constants, and their derivative zero. A torch function mode puts others in their place, by identity.
"""

import functools
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from funcnet import _compat, tree
from funcnet.control.swap import MissedError, Swap, swaps, visible
from funcnet.random.seeded import KeyedMode

__all__ = ["Body", "Closed", "MissedError", "Outcome", "ambient", "close", "rekeyed", "tensors_around", "visible"]


def ambient() -> KeyedMode | None:
    """The innermost mode around this call that draws from a key: that of `Model.apply`, or of `random.seeded`."""
    return next((mode for mode in reversed(_compat.function_modes()) if isinstance(mode, KeyedMode)), None)


@contextmanager
def rekeyed(mode: KeyedMode, key: Tensor | None) -> Iterator[None]:
    """Let a mode draw from another key inside the block."""
    before = mode.key, mode.draws
    mode.key, mode.draws = key, 0
    try:
        yield
    finally:
        mode.key, mode.draws = before


def tensors_around(f: Callable[..., Any]) -> list[Tensor]:
    """The tensors that a function holds: in its closure, its defaults, globals, a partial, what it is a method of."""
    found: dict[int, Tensor] = {}
    seen: set[int] = set()

    def visit(value: Any) -> None:
        if isinstance(value, Tensor):
            found[id(value)] = value
        elif id(value) in seen or isinstance(value, (str, int, float, type, types.ModuleType)):
            return
        else:
            seen.add(id(value))
            for member in _members(value):
                visit(member)

    visit(f)
    return list(found.values())


def _members(value: Any) -> Iterator[Any]:
    if isinstance(value, nn.Module):
        yield from value.parameters()
        yield from value.buffers()
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, types.MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, types.FunctionType):
        yield from value.__defaults__ or ()
        yield from (value.__kwdefaults__ or {}).values()
        for cell in value.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # a name that is not bound yet
                continue
        yield from _tensors(value.__globals__.get(name) for name in value.__code__.co_names)
    elif _compat.tree_node(value) is not None:
        yield from tree.leaves(value)
    else:
        yield from _tensors(getattr(value, "__dict__", {}).values())


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among some values, and in trees of them: not in further objects, of which there may be any number."""
    for value in values:
        if isinstance(value, Tensor) or _compat.tree_node(value) is not None:
            yield from (leaf for leaf in tree.leaves(value) if isinstance(leaf, Tensor))


@dataclass
class Outcome:
    """What one run of a body gave."""

    result: Any
    updates: dict[str, Tensor]  # new running statistics, by name
    written: dict[int, Tensor]  # new values of tensors that were written in place or by assignment, by position
    used: set[int]  # the positions of the tensors that were read
    draws: int  # how many keys the mode has given by now
    foreign: list[Tensor]  # tensors of the surroundings that were met and are not among those read


class Body:
    """A function to be run with other tensors in the place of those that it reads from its surroundings."""

    def __init__(self, f: Callable[..., Any], reads: Sequence[Tensor], mode: KeyedMode | None) -> None:
        """Take the function, the tensors around it that it may read, and the keyed mode that it is called under."""
        self.f, self.reads, self.mode = f, list(reads), mode
        # As they are now: by the time that it runs again, other calls may have updated and assigned others.
        self.entry = mode.fork(mode.key, mode.draws) if mode is not None else None
        self._held = mode.held() if mode is not None else []

    def current(self) -> list[Tensor]:
        """What the tensors that are read hold by now."""
        return list(self.reads) if self.mode is None else [self.mode.current(t) for t in self.reads]

    def attribute(self, place: int) -> bool:
        """Whether a tensor that is read is an attribute of the module, whose new value is simply put there."""
        return any(t is self.reads[place] for t in self._held)

    def commit(self, updates: dict[str, Tensor], written: dict[int, Tensor]) -> None:
        """Put what a run wrote into the surroundings."""
        mode = self.mode
        if mode is not None:
            mode.updates.update(updates)
        for place, value in written.items():
            old = self.reads[place]
            if mode is not None and self.attribute(place):
                mode.stand_in(value, old)
                mode.put([value if t is old else t for t in mode.held()])
            else:
                old.copy_(value)

    def run(
        self,
        values: Sequence[Tensor],
        key: Tensor | None,
        draws: int,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        foreign: Callable[[Tensor], bool] | None = None,
        own: Sequence[Tensor] = (),
        strict: bool = True,
    ) -> Outcome:
        """Run with `values` in the place of `reads`, drawing from `key` as if `draws` keys had been given before.

        `foreign` tells which tensors may be of the surroundings: those are, if neither among `own` nor made by the run.
        To meet one that is not read is a `MissedError`; if not `strict`, it is met as if it were.
        """
        mode = self.entry
        fork = mode.fork(key, draws) if mode is not None else None
        before = dict(fork.updates) if fork is not None else {}
        swap = Swap(self.reads, values, mode, fork, foreign, own)
        now = mode.held() if mode is not None else []
        try:
            if mode is not None:
                mode.put(self._held)
            with fork or nullcontext(), swap:
                # What is returned as it is was met by no call.
                result = tree.map(swap.swapped, self.f(*args, **kwargs))
            self._take_assigned(swap)
        except Exception as error:
            if swap.met and strict:
                raise MissedError from error
            raise
        finally:
            if mode is not None:
                mode.put(now)
        if swap.met and strict:
            raise MissedError(swap.met)
        after = fork.updates if fork is not None else {}
        updates = {name: t for name, t in after.items() if t is not before.get(name)}
        return Outcome(result, updates, swap.written, swap.used, fork.draws if fork else 0, swap.met)

    def _take_assigned(self, swap: "Swap") -> None:
        """Take attributes that the run assigned for tensors that it wrote."""
        for before, after in zip(self._held, self.mode.held() if self.mode is not None else [], strict=True):
            if after is not before and isinstance(before, Tensor) and isinstance(after, Tensor):
                place = swap.meet(before)
                if place is not None:
                    swap.written[place] = after


class Closed:
    """A function as a pure one of explicit tensors. Made by `close`."""

    def __init__(self, body: Body, outcome: Outcome) -> None:
        """Take a body that lists everything it reads, and what one run of it gave."""
        self.body = body
        self.reads = body.current()
        self.draws = outcome.draws > 0
        names = [body.mode.name_of(t) for t in body.reads] if body.mode is not None else []
        self._names = list(outcome.updates)
        self._places = [names.index(name) for name in self._names] + list(outcome.written)
        self.written = [self.reads[place] for place in self._places]

    def __call__(self, values: Sequence[Tensor], key: Tensor | None, *args: Any) -> tuple[Any, list[Tensor]]:
        """The function's result, and the new value of each tensor of `written`."""
        outcome = self.body.run(values, key, 0, args, {})
        new = [outcome.updates.get(name) for name in self._names] + [None] * (len(self._places) - len(self._names))
        return outcome.result, [
            outcome.written.get(place, values[place]) if value is None else value
            for place, value in zip(self._places, new, strict=True)
        ]

    def replaced(self, values: Sequence[Tensor], writes: Sequence[Tensor]) -> list[Tensor]:
        """`values` with new ones for those that are written: what the next run reads."""
        after = list(values)
        for place, value in zip(self._places, writes, strict=True):
            after[place] = value
        return after

    def commit(self, writes: Sequence[Tensor]) -> None:
        """Put the final values of `written` into the surroundings."""
        names = len(self._names)
        self.body.commit(
            dict(zip(self._names, writes[:names], strict=True)),
            dict(zip(self._places[names:], writes[names:], strict=True)),
        )


def close(f: Callable[..., Any], *args: Any, **kwargs: Any) -> Closed:
    """Run `f` once to see what it reads from its surroundings, and what it writes and draws there.

    The run leaves no trace there. Every tensor made in it is held until it ends, which costs memory where values are
    computed, and nothing where they are traced.
    """
    entry = _compat.level()
    own = [leaf for leaf in tree.leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    mode = ambient()
    # Above the level of entry are the wrappers of transforms inside f.
    key = None if mode is None else mode.key

    outside, sketched = swaps(), _compat.sketched()

    def around(tensor: Tensor) -> bool:
        for swap in outside:
            tensor = swap.swapped(tensor)
        return _compat.level_of(tensor) <= entry and not sketched(tensor)

    outcome = Body(f, [], mode).run([], key, 0, args, kwargs, around, own, strict=False)
    return Closed(Body(f, outcome.foreign, mode), outcome)
