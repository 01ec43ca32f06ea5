"""The torch function mode that puts tensors in the place of others, by identity."""

import inspect
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

from funcnet import _compat, tree
from funcnet.random.seeded import KeyedMode

__all__ = ["MissedError", "Swap", "swaps", "visible"]


class MissedError(Exception):
    """A body met a tensor of its surroundings that is not among those it reads."""


class Swap(TorchFunctionMode):
    """Puts other tensors in the place of those that calls are made with."""

    def __init__(
        self,
        reads: Sequence[Tensor],
        values: Sequence[Tensor],
        mode: KeyedMode | None,
        fork: KeyedMode | None,
        foreign: Callable[[Tensor], bool] | None,
        own: Sequence[Tensor],
    ) -> None:
        """See `Body.run`; `fork` is the keyed mode of the run, `mode` the one that it was forked from."""
        super().__init__()
        self.mode, self.fork, self.foreign = mode, fork, foreign
        self.own = {id(t): t for t in own}
        self.level = _compat.level()
        self.places: dict[int, int] = {}
        self.values: list[Tensor] = []
        self.used: set[int] = set()
        self.written: dict[int, Tensor] = {}
        self.met: list[Tensor] = []
        for tensor, value in zip(reads, values, strict=True):
            self._place(tensor, value)

    def _place(self, tensor: Tensor, value: Tensor) -> int:
        place = self.places[id(tensor)] = len(self.values)
        self.values.append(value)
        if self.fork is not None:
            self.fork.stand_in(value, tensor)
        return place

    def _find(self, tensor: Tensor) -> int | None:
        """The place of a tensor of the surroundings."""
        place = self.places.get(id(tensor))
        if place is None:
            self._look_inside(tensor)
        if place is not None or self.foreign is None or id(tensor) in self.own:
            return place
        current = tensor if self.mode is None else self.mode.current(tensor)
        return self.meet(tensor) if self.foreign(current) else None

    def _look_inside(self, wrapper: Tensor) -> None:
        """Refuse what a transform of this run has wrapped that takes its arguments past the mode."""
        for tensor in _compat.within(wrapper, self.level):
            place = self.places.get(id(tensor))
            if place is None:
                continue
            if self.values[place] is tensor:
                self.used.add(place)  # right in this run, and to be refused in one of other values
            elif not any(value is tensor for value in self.values):
                # No TypeError, which torch's operators take for an operand of the wrong kind.
                raise RuntimeError(_compat.hidden(tensor.shape, "remat, scan, while_loop or cond"))

    def meet(self, tensor: Tensor) -> int | None:
        """The place of a tensor that is known to be of the surroundings."""
        place = self.places.get(id(tensor))
        if place is None and self.foreign is not None:
            self.met.append(tensor)
            place = self._place(tensor, tensor if self.mode is None else self.mode.current(tensor))
        return place

    def swapped(self, value: Any) -> Any:
        """What stands in the place of an argument: a tensor, or a list or tuple of them."""
        if isinstance(value, Tensor):
            place = self._find(value)
            if place is None:
                return value
            if place not in self.used:
                self.used.add(place)
                _refuse_hidden(value)
            return self.values[place]
        kind = type(value)
        if kind is list or kind is tuple:
            return kind([self.swapped(v) for v in value])
        return value

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call with what stands in the place of the arguments."""
        if func in _FACTS and id(args[0]) not in self.places:
            return func(*args, **(kwargs or {}))  # no reading: a model asks for the shapes of tensors without values
        written = args[0] if args and _writes(getattr(func, "__name__", "")) else (kwargs or {}).get("out")
        for target in written if isinstance(written, (list, tuple)) else (written,):
            if isinstance(target, Tensor):
                self._protect(target)
        args = tuple([self.swapped(v) for v in args])
        result = func(*args, **{k: self.swapped(v) for k, v in kwargs.items()}) if kwargs else func(*args)
        if self.foreign is not None:
            for leaf in tree.leaves(result):
                if isinstance(leaf, Tensor) and (leaf.requires_grad or self.foreign(leaf)):
                    self.own.setdefault(id(leaf), leaf)
        return result

    def _protect(self, target: Tensor) -> None:
        """Before a tensor of the surroundings is written, put a copy in its place."""
        place = self._find(target)
        if place is None and self.mode is not None and self.mode.holds(target):
            place = self.meet(target)
        if place is not None and place not in self.written:
            copy = self.written[place] = self.values[place] = self.values[place].clone()
            if self.fork is not None:
                self.fork.stand_in(copy, target)


_FACTS = {
    *(getattr(Tensor, name).__get__ for name in ("shape", "ndim", "dtype", "device", "layout")),
    *(getattr(Tensor, name) for name in ("size", "dim", "numel", "is_floating_point", "is_complex")),
}
_AUGMENTED = {f"__i{op}__" for op in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")}


def _writes(name: str) -> bool:
    return (name.endswith("_") and not name.endswith("__")) or name == "__setitem__" or name in _AUGMENTED


def _refuse_hidden(tensor: Tensor) -> None:
    """A tensor that is first met inside an autograd.Function went into it unseen, and would get no derivative."""
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_qualname != "Body.run":
        if _in_function(frame):
            # No TypeError, which torch's operators take for an operand of the wrong kind.
            raise RuntimeError(
                f"{frame.f_code.co_qualname} was given a tensor of shape {tuple(tensor.shape)} that a function under "
                f"remat, scan, cond or another of their kind closes over, and an autograd.Function cannot be looked "
                f"into. Make the tensor an argument of the function."
            )
        frame = frame.f_back


def _in_function(frame: types.FrameType) -> bool:
    """Whether this is the forward of an autograd.Function."""
    code = frame.f_code
    return code.co_name == "forward" and any(
        getattr(inspect.unwrap(function.forward), "__code__", None) is code for function in _below(Function)
    )


def _below(cls: type[Any]) -> Iterator[type[Any]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _below(sub)


def visible(value: Any) -> Any:
    """A tree as calls inside the bodies around see it: for code that takes tensors past torch's function modes."""
    for swap in swaps():
        value = tree.map(swap.swapped, value)
    return value


def swaps() -> list[Swap]:
    """The bodies that are running, the innermost first."""
    return [mode for mode in reversed(_compat.function_modes()) if isinstance(mode, Swap)]
