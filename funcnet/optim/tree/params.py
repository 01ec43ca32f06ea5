"""The leaves of a state that belong to parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ... import _compat
from ...tree import PyTree, TreeMismatchError, map, register_dataclass
from .paths import Path, listed, opened, rebuilt

__all__ = ["map_params"]


def map_params(
    initable: Any,
    f: Callable[..., Any],
    state: PyTree,
    /,
    *rest: PyTree,
    transform_non_params: Callable[[Any], Any] | None = None,
    is_leaf: Callable[[Any], bool] | None = None,
) -> PyTree:
    """Apply a function to every leaf of a state that belongs to a parameter, such as a moment.

    Args:
        initable: the optimizer that made the state, or its `init`. That is called with a tree without leaves, which
            comes back wherever a tree like the parameters belongs.
        f: `f(leaf, *leaves_of_rest)`.
        state: the state.
        rest: trees like the parameters.
        transform_non_params: what to make of the other leaves, which else stay as they are.
        is_leaf: what within the parameters' trees to hand to `f` whole, such as `MaskedNode()`.

    Raises:
        TreeMismatchError: the optimizer did not make this state, or `rest` are no trees like the parameters.

    >>> from funcnet import optim
    >>> optimizer = optim.adam(0.1)
    >>> state = optimizer.init({"w": torch.ones(1)})
    >>> map_params(optimizer, lambda leaf, spec: spec, state, {"w": "sharded"}, transform_non_params=lambda _: "whole")
    (ScaleByAdamState(count='whole', mu={'w': 'sharded'}, nu={'w': 'sharded'}), EmptyState())
    """

    def mapped(marked: Any, value: Any, path: Path) -> Any:
        if isinstance(marked, _Params):
            return _map(f, value, rest, is_leaf)
        if marked is not None and _compat.tree_node(marked) is None:
            return value if transform_non_params is None else transform_non_params(value)
        expected, children = dict(opened(marked)), dict(opened(value))
        if _kind(value) is not _kind(marked) or children.keys() != expected.keys():
            raise TreeMismatchError(
                f"map_params got a state that this optimizer does not make: at {listed([path])} it has "
                f"{_described(value)}, not {_described(marked)}. Give the optimizer whose init made the state."
            )
        return rebuilt(value, [mapped(expected[step], child, (*path, step)) for step, child in children.items()])

    return mapped(getattr(initable, "init", initable)(_Params()), state, ())


@register_dataclass
@dataclass(frozen=True)
class _Params:
    """Stands for the parameters: a tree without leaves, of which `init` makes others in the state."""


@dataclass(frozen=True)
class _Whole:
    """What is to be a leaf though it is a tree."""

    value: Any


def _map(
    f: Callable[..., Any], tree: PyTree, rest: tuple[PyTree, ...], is_leaf: Callable[[Any], bool] | None
) -> PyTree:
    if is_leaf is None:
        return map(f, tree, *rest)

    def closed(node: Any) -> Any:
        return _Whole(node) if is_leaf(node) else rebuilt(node, [closed(child) for _, child in opened(node)])

    return map(lambda leaf, *others: f(leaf.value if isinstance(leaf, _Whole) else leaf, *others), closed(tree), *rest)


def _kind(node: Any) -> type:
    return dict if isinstance(node, dict) else type(node)


def _described(node: Any) -> str:
    names = ", ".join(str(step) for step, _ in opened(node))
    return f"a {type(node).__name__}" + (f" with {names}" if names else "")
