"""Transformations of one vector."""

from typing import Any

from ...tree import PyTree, ravel, structure, unflatten
from ...tree.mismatch import check_like, match
from ..base import GradientTransformation, with_extra_args_support

__all__ = ["flatten"]


def flatten(inner: GradientTransformation) -> GradientTransformation:
    """Apply a transformation to all parameters as one vector: a few large operations in the place of many small ones.

    The transformation sees one leaf, of the widest dtype among the parameters', so rules that look at single leaves
    (trust ratios, factored moments) become others. Raises `TreeMismatchError` where updates do not match parameters.

    >>> from funcnet.optim import adam
    >>> rule = flatten(adam(0.1))
    >>> params = {"w": torch.ones(2), "b": torch.ones(())}
    >>> state = rule.init(params)
    >>> state[0].mu.shape, rule.update(params, state, params)[0]["b"]
    (torch.Size([3]), tensor(-0.1000))
    """
    link = with_extra_args_support(inner)

    def init(params: PyTree) -> Any:
        return link.init(ravel(params)[0])

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]:
        if params is not None:
            check_like(params, updates, "params", "updates")
            # In the order of the parameters, which is that of the state.
            updates = unflatten(structure(params), match(updates, params, "updates", "params"))
            params = ravel(params)[0]
        vector, unravel = ravel(updates)
        moved, state = link.update(vector, state, params, **extra)
        return unravel(moved), state

    return GradientTransformation(init, update)
