"""What rules are given: a state of their own, floating leaves, counts, pairs of numbers."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..tree import PyTree, leaves_with_path
from .base import GradientTransformation, TransformInit, TransformUpdate, extra_argument
from .values import Scalar, scalar

__all__ = ["check_floating", "function", "loss_value", "mapping", "nonnegative", "pair", "stateful", "whole"]


def stateful(kind: type, init: TransformInit, update: TransformUpdate) -> GradientTransformation:
    """The transformation of a rule whose state is of a class of its own; another state raises `TypeError`.

    >>> rule = stateful(float, lambda params: 0.0, lambda updates, state, params=None: (updates, state + 1.0))
    >>> rule.update({"w": 1.0}, rule.init(None))
    ({'w': 1.0}, 1.0)
    """

    def checked(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]:
        if not isinstance(state, kind):
            raise TypeError(
                f"update got a {type(state).__name__} as state, and needs a {kind.__name__}: pass what init(params) or "
                "the last update of this optimizer returned; the order is update(updates, state, params)."
            )
        return update(updates, state, params, **extra)

    return GradientTransformation(init, checked)


def check_floating(values: Sequence[Any], tree: PyTree, what: str) -> None:
    """Raise `TypeError` unless the leaves `values` of a tree are floating or complex tensors.

    >>> check_floating([torch.ones(1)], {"w": torch.ones(1)}, "params")
    """
    if all(isinstance(v, Tensor) and (v.is_floating_point() or v.is_complex()) for v in values):
        return
    for path, leaf in leaves_with_path(tree):
        name = f"{what}[{path!r}]" if path else what
        kind = leaf.dtype if isinstance(leaf, Tensor) else f"a {type(leaf).__name__}"
        if isinstance(leaf, torch.nn.Module):
            advice = "a module is no tree: write `model, params, state = Model.from_module(module)`."
        elif isinstance(leaf, Tensor) and not (leaf.is_floating_point() or leaf.is_complex()):
            advice = "whole numbers have no gradient: write leaf.float(), or take it out with tree.split(params, name)."
        elif isinstance(leaf, Tensor):
            continue
        elif hasattr(leaf, "__next__"):
            advice = "a tree is wanted: write dict(module.named_parameters())."
        else:
            advice = "every leaf must be a floating tensor: write torch.tensor(leaf)."
        raise TypeError(f"{name} is {kind}: {advice}")


def whole(value: Any, name: str, counts: str = "steps", least: int = 1) -> Any:
    """Check a count, an integer or a 0-dim integer tensor, of which numbers below `least` raise `ValueError`."""
    if isinstance(value, Tensor) and not (value.ndim or value.is_floating_point() or value.is_complex()):
        return value
    try:
        number = operator.index(None if isinstance(value, bool | Tensor) else value)  # type: ignore[arg-type]  # tried
    except TypeError:
        raise TypeError(
            f"{name} is a {type(value).__name__}, and must be an int: it counts {counts}, as in {name}=10."
        ) from None
    if number < least:
        raise ValueError(f"{name} is {value}, and must be at least {least}: it counts {counts}.")
    return value


def nonnegative(value: Scalar, name: str) -> Scalar:
    """Check a scalar that, where it is a number, must not be negative or NaN."""
    if not isinstance(scalar(value, name), Tensor) and not value >= 0:
        raise ValueError(f"{name} is {value}, and must be 0 or more.")
    return value


def pair(values: Any, name: str, example: str) -> tuple[Any, Any]:
    """Check a hyperparameter of two values."""
    if not isinstance(values, tuple | list) or len(values) != 2:
        raise ValueError(f"{name} is {values!r}, where two values are taken: write {name}={example}.")
    first, second = values
    return first, second


def loss_value(extra: dict[str, Any], rule: str) -> Scalar:
    """The keyword `value` of `update`: the loss, one number."""
    return scalar(extra_argument(extra, "value", rule, "loss"), "value")


def function(value: Any, name: str, example: str) -> Any:
    """Raise `TypeError` unless a value can be called."""
    if not callable(value):
        raise TypeError(f"{name} is a {type(value).__name__}, and must be a function: write {name}={example}.")
    return value


def mapping(value: Any, name: str, example: str) -> None:
    """Raise `TypeError` unless a value is a dict or the like."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is a {type(value).__name__}, and must be a dict: write {name}={example}.")
