"""Fused kernels whose gradient torch cannot differentiate: here it can, by a formula."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

__all__ = ["differentiable_again"]


def differentiable_again(node: Node, formula: Callable[..., Tensor], *tensors: Tensor) -> None:
    """Make the gradient of a kernel differentiable, at no cost where only the gradient is wanted.

    Under `create_graph` the gradients are those of the formula, which go on to be differentiated.

    Args:
        node: the `grad_fn` of a kernel's first result, the only one that is differentiated, outside all transforms.
        formula: that result in plain operations.
        tensors: the first inputs of the node, in order, and whatever else the formula takes.
    """
    # Weak, so that the hook keeps no memory that the node itself would have let go.
    references = [weakref.ref(tensor) for tensor in tensors]

    def hook(grads: tuple[Tensor | None, ...], cotangents: tuple[Tensor | None, ...]) -> Any:
        if not torch.is_grad_enabled() or cotangents[0] is None:
            return None
        alive = [reference() for reference in references]
        if any(tensor is None for tensor in alive):
            return None  # a graph that is not retained
        wanted = [i for i, grad in enumerate(grads) if grad is not None]
        pull = torch.func.vjp(_restricted(formula, alive, wanted), *(alive[i] for i in wanted))[1]
        exact = dict(zip(wanted, pull(cotangents[0]), strict=True))
        return tuple(exact.get(i) for i in range(len(grads)))

    node.register_hook(hook)


def _restricted(formula: Callable[..., Any], values: Sequence[Any], positions: Sequence[int]) -> Callable[..., Any]:
    """The formula as a function of the values at some positions."""

    def of(*chosen: Tensor) -> Any:
        given = dict(zip(positions, chosen, strict=True))
        return formula(*(given.get(i, value) for i, value in enumerate(values)))

    return of
