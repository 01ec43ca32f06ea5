"""One call of a function with derivatives of its own: from trees to flat tensors and back, and what its rule gave."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from funcnet import tree
from funcnet.control.closure import visible
from funcnet.control.rules import Tensors
from funcnet.tree.form import Form
from funcnet.tree.partial import partial_leaves

__all__ = ["CustomCall", "Like", "kind_of"]


class Custom(Protocol):
    """What a call needs to know of a `custom_vjp` or `custom_jvp`."""

    f: Callable[..., Any]
    name: str
    nondiff_argnums: tuple[int, ...]


@dataclass
class Like:
    """What a derivative of a tensor must look like."""

    shape: torch.Size
    dtype: torch.dtype

    @classmethod
    def of(cls, leaf: Any) -> Any:
        """That of a leaf; what is no tensor stays."""
        return cls(leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf

    @property
    def inexact(self) -> bool:
        """Whether there is a derivative at all."""
        return self.dtype.is_floating_point or self.dtype.is_complex


class CustomCall:
    """One call of a function of trees, as one of flat tensors. It holds no tensor."""

    out: Form

    def __init__(self, custom: Custom, form: Form, fixed: dict[int, Any], likes: dict[str, Any]) -> None:
        """See `opened`."""
        self.custom, self.name, self.form, self.fixed, self.likes = custom, custom.name, form, fixed, likes

    @classmethod
    def opened(cls, custom: Custom, args: tuple[Any, ...]) -> tuple["CustomCall", list[Tensor]]:
        """A call with these arguments, and its tensors."""
        count = len(args)
        fixed = {i + count if i < 0 else i: args[i] for i in custom.nondiff_argnums if -count <= i < count}
        if len(fixed) != len(custom.nondiff_argnums):
            raise TypeError(
                f"{custom!r} has nondiff_argnums={custom.nondiff_argnums}, and was called with {count} arguments."
            )
        for i, argument in fixed.items():
            if any(isinstance(leaf, Tensor) for leaf in tree.leaves(argument)):
                raise TypeError(
                    f"argument {i} of {custom.name} is in nondiff_argnums and holds a tensor; those are for functions "
                    f"and options. Leave it out of nondiff_argnums: its cotangent may be None."
                )
        positions = [i for i in range(count) if i not in fixed]
        moving = visible(tuple(args[i] for i in positions))
        likes = {f"argument {i}": tree.map(Like.of, value) for i, value in zip(positions, moving, strict=True)}
        tensors, form = Form.opened(moving)
        return cls(custom, form, fixed, likes), tensors

    def arguments(self, tensors: Tensors) -> list[Any]:
        """All arguments, in order."""
        moving = iter(self.form.filled(tensors))
        return [self.fixed[i] if i in self.fixed else next(moving) for i in range(len(self.fixed) + len(self.likes))]

    def run(self, *tensors: Tensor) -> Tensors:
        """The function itself."""
        return self.results(self.custom.f(*self.arguments(tensors)))

    def results(self, out: Any) -> list[Tensor]:
        """The tensors of what the function or its rule returned."""
        outs, self.out = Form.opened(out)
        return outs

    def pair(self, result: Any, rule: str, what: str) -> tuple[Any, Any]:
        """What a rule returned, which must be a pair."""
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(f"the {rule} of {self.name} must return {what}, and returned {kind_of(result)}.")
        return result

    def flat(self, got: Any, likes: Any, what: str, against: str) -> list[Tensor | None]:
        """A tree of derivatives as flat as the tensors of a tree; None, also for a whole subtree, is zero."""
        try:
            given = partial_leaves(got, likes, f"{what}s by the rule of {self.name}", against)
        except tree.TreeMismatchError as error:
            raise tree.TreeMismatchError(f"{error}\n(None stands for zero, also for a whole subtree.)") from None
        pairs = zip(given, tree.leaves_with_path(likes), strict=True)
        return [
            None
            if value is None or not like.inexact
            else self._fitting(value, like, f"the {what} of {path or 'its output'}")
            for value, (path, like) in pairs
            if isinstance(like, Like)
        ]

    def _fitting(self, value: Any, like: Like, where: str) -> Tensor:
        if not isinstance(value, Tensor):
            raise TypeError(
                f"the rule of {self.name} gives {kind_of(value)} as {where}. Give a tensor, or None for zero."
            )
        if value.shape != like.shape:
            raise ValueError(
                f"the rule of {self.name} gives a tensor of shape {tuple(value.shape)} as {where}, whose shape is "
                f"{tuple(like.shape)}. Sum over axes that were broadcast."
            )
        if value.is_complex() and not like.dtype.is_complex:
            raise TypeError(
                f"the rule of {self.name} gives a complex tensor as {where}, which is real. Take its .real."
            )
        return value.to(like.dtype)


def kind_of(value: Any) -> str:
    """What a rule returned, in words."""
    return f"a tuple of {len(value)}" if type(value) is tuple else f"a {type(value).__name__}"
