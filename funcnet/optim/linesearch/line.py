"""A function along a direction, and what one search leaves for the next step."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...control import cond
from ...transforms import value_and_grad
from ...tree import PyTree, map
from ..base import extra_argument, needed
from ..leafwise import inner
from ..values import precise

__all__ = ["Line", "value_and_grad_from_state"]


class Line:
    """The function to minimize on the line through the parameters, and the value and slope at its start."""

    def __init__(self, updates: PyTree, params: PyTree, extra: dict[str, Any], rule: str) -> None:
        """Take what `update` was given."""
        self._params, self._updates = needed(params, rule), updates
        value, self.grad = (extra_argument(extra, name, rule, name) for name in ("value", "grad"))
        f = extra_argument(extra, "value_fn", rule, "f")
        rest = {k: v for k, v in extra.items() if k not in ("value", "grad", "value_fn")}
        names = inspect.signature(f).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in names.values()) and (unknown := sorted(rest.keys() - names)):
            raise TypeError(
                f"{rule} got the keyword {unknown[0]!r}, which value_fn does not take: every further keyword of update "
                "is an argument of value_fn."
            )
        self._f = partial(f, **rest)
        self.dtype = precise(self._params)
        self.value = torch.as_tensor(value).to(self.dtype)
        self.slope = inner(self.grad, updates).to(self.dtype)

    def _at(self, rate: Tensor) -> PyTree:
        return map(lambda p, u: (p + rate * u).to(p.dtype), self._params, self._updates)

    def value_at(self, rate: Tensor) -> Tensor:
        """The value where the step has this length."""
        value: Tensor = self._f(self._at(rate))
        return value.to(self.dtype)

    def everything_at(self, rate: Tensor) -> tuple[Tensor, PyTree, Tensor]:
        """Value, gradient and slope there."""
        value, grad = value_and_grad(self._f)(self._at(rate))
        return value.to(self.dtype), grad, inner(grad, self._updates).to(self.dtype)

    def number(self, value: float) -> Tensor:
        """A 0-dim tensor like the values."""
        return torch.full_like(self.value, value)


def violation(error: Tensor) -> Tensor:
    """How far a condition is from holding: 0 where it does, infinite where it cannot be told."""
    positive = torch.clamp(error, min=0.0)
    return torch.where(torch.isnan(error), torch.inf, positive)


def value_and_grad_from_state(value_fn: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, PyTree]]:
    """`value_and_grad(value_fn)`, which first looks whether a line search left both in the state.

    The result is called as `value_and_grad(params, *args, state=state, **kwargs)`; where the value in the state is not
    finite, as after `init`, it computes both. Right only where the function is the same at every step.

    Raises `ValueError` where the state holds no value and gradient, or several: that of a backtracking search has a
    gradient with `store_grad=True` alone.

    >>> from funcnet.optim import chain, scale_by_zoom_linesearch, sgd
    >>> optimizer = chain(sgd(1.0), scale_by_zoom_linesearch(15))
    >>> params = torch.tensor([1.0, 2.0])
    >>> value_and_grad_from_state(lambda x: (x**2).sum())(params, state=optimizer.init(params))
    (tensor(5.), tensor([2., 4.]))
    """

    def found_or_computed(params: PyTree, *args: Any, state: Any, **kwargs: Any) -> tuple[Tensor, PyTree]:
        places = [(node.value, node.grad) for node in _nodes(state) if node.grad is not None]
        if len(places) != 1:
            raise ValueError(
                f"value_and_grad_from_state found {len(places)} values with gradients in the state, and needs one: "
                "that of scale_by_zoom_linesearch, or of scale_by_backtracking_linesearch(..., store_grad=True)."
            )
        value, grad = places[0]

        def computed(value: Tensor, grad: PyTree, params: PyTree) -> tuple[Tensor, PyTree]:
            new, slope = value_and_grad(value_fn)(params, *args, **kwargs)
            return new.to(value.dtype), map(lambda g, old: g.to(old.dtype), slope, grad)

        def known(value: Tensor, grad: PyTree, params: PyTree) -> tuple[Tensor, PyTree]:
            return value, grad

        result: tuple[Tensor, PyTree] = cond(torch.isfinite(value), known, computed, value, grad, params)
        return result

    return found_or_computed


def _nodes(state: Any) -> Iterator[Any]:
    """What has a value and a gradient, in a state."""
    if hasattr(state, "_fields") and {"value", "grad"} <= set(state._fields):
        yield state
    elif isinstance(state, dict):
        for child in state.values():
            yield from _nodes(child)
    elif isinstance(state, list | tuple):
        for child in state:
            yield from _nodes(child)
