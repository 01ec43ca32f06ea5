"""Arguments of one's own, for functions that may consume them, and how a step is called again and again."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from funcnet import tree

__all__ = ["Repeated", "copied"]


def copied(value: Any) -> Any:
    """The same tree with copies of its tensors.

    >>> import torch
    >>> copied({"w": torch.ones(1), "name": "a"})
    {'w': tensor([1.]), 'name': 'a'}
    """
    return tree.map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, value)


class Repeated:
    """Calls of one function on copies of arguments.

    Where it returns a tuple whose first entry is like the first argument, as a step returns `(ts, metrics)`, the next
    call takes that: what donates its first argument can be called again.
    """

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """Take the function, and copies of its arguments."""
        self._function = function
        self._args = list(copied(args))
        self._like = _form(self._args[0]) if args else None

    def __call__(self) -> None:
        """Call it once more."""
        result = self._function(*self._args)
        if isinstance(result, tuple) and result and self._like and self._like == _form(result[0]):
            self._args[0] = result[0]


def _form(value: Any) -> Any:
    """The structure, shapes and dtypes of a tree; None where it has no tensor."""
    leaves, treedef = tree.flatten(value)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    return (treedef, [(leaf.shape, leaf.dtype) for leaf in tensors]) if tensors else None
