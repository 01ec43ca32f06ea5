"""A call as a scalar function of its floating leaves: what every check of a derivative differentiates."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import random, tree, value_and_grad
from funcnet.testing.failures import NotApplicableError
from funcnet.testing.subjects import Call

__all__ = ["Point", "Scalar", "gradient", "precise", "scalar", "with_gradient"]

Point = dict[str, Tensor]
"""The floating leaves that are differentiated, by path."""


class Scalar(NamedTuple):
    """A function of a point, with the call that it stands for."""

    value: Callable[[Point], Tensor]
    outputs: Callable[[Point], list[Tensor]]
    point: Point


def precise(call: Call) -> Call:
    """The call in float64, where rounding hides nothing; as it is, if it does not run in float64."""
    args = tuple(tree.cast(arg, torch.float64) for arg in call.args)
    wide = call._replace(args=args)
    try:
        wide.f(*args)
    except Exception:
        return call
    return wide


def scalar(call: Call, key: Tensor) -> Scalar:
    """The sum of all floating outputs, each number with a weight of its own drawn from `key`.

    The derivative is taken with respect to every floating leaf but the state.

    Raises:
        NotApplicableError: no argument is floating; the function raises it where no output is.
    """
    named = call.named()
    paths, leaves = zip(*tree.leaves_with_path(named), strict=True) if tree.leaves(named) else ((), ())
    point = {
        path: leaf
        for path, leaf in zip(paths, leaves, strict=True)
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and path.partition(".")[0] != "state"
    }
    treedef = tree.structure(named)

    def outputs(point: Point) -> list[Tensor]:
        whole = tree.unflatten(treedef, [point.get(path, leaf) for path, leaf in zip(paths, leaves, strict=True)])
        result = call.f(*whole.values())
        found = [leaf for leaf in tree.leaves(result["output"] if call.train else result) if isinstance(leaf, Tensor)]
        floating = [leaf for leaf in found if leaf.is_floating_point()]
        if not floating:
            raise NotApplicableError(f"{call.title} has no floating output to differentiate.")
        return floating

    def value(point: Point) -> Tensor:
        total = torch.zeros(())
        for i, leaf in enumerate(outputs(point)):
            weights = random.normal(random.fold_in(key, i), leaf.shape).to(leaf)
            total = total + (leaf * weights).sum()
        return total

    if not point:
        raise NotApplicableError(f"{call.title} has no floating argument to differentiate.")
    return Scalar(value, outputs, point)


def gradient(f: Callable[..., Any], call: Call, key: Tensor) -> Callable[..., Any]:
    """The weighted sum of the outputs and its gradient by path, as a function of the call's arguments."""

    def of(*args: Any) -> Any:
        function = scalar(call._replace(f=f, args=args), key)
        value, grads = value_and_grad(function.value)(function.point)
        return {"value": value, "gradient": grads}

    return of


def with_gradient(f: Callable[..., Any], call: Call, key: Tensor) -> Callable[..., Any]:
    """The function's result and its gradient, as a function of the call's arguments."""
    differentiated = gradient(f, call, key)
    try:
        differentiated(*call.args)
    except NotApplicableError:
        return lambda *args: {"result": f(*args)}
    return lambda *args: {"result": f(*args), **differentiated(*args)}
