"""Gradients of scalar functions, by two engines with one meaning.

`torch.func` is always right, and is the one that runs inside another transform. At the outermost level the same
derivative comes from `torch.autograd.grad` on detached leaves, which in eager mode costs a fraction of the Python and
dispatcher time. A property test holds them equal.
"""

import threading
from operator import methodcaller
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from funcnet import _compat, tree
from funcnet.control.closure import visible
from funcnet.transforms._arguments import Argnums, Function, as_positions, check_arguments, describe, name
from funcnet.tree.form import Form

_is_inference = methodcaller("is_inference")


class _Outermost(threading.local):
    """Whether the autograd engine is already at work in this thread: then a gradient inside it is an inner one."""

    busy = False


_outermost = _Outermost()


def differentiating() -> bool:
    """Whether the autograd engine is at work around this call, as `transform_active` asks of torch.func."""
    return _outermost.busy


def value_and_grad(f: Function, argnums: Argnums = 0, *, has_aux: bool = False) -> Function:
    """The value of a scalar function and its gradient, `(f(x), df/dx)`.

    Args:
        f: a pure function whose first result is a 0-dim floating tensor.
        argnums: the position, or the positions, of the arguments to differentiate: pytrees of floating tensors.
        has_aux: whether `f` returns `(value, aux)`, where `aux` is any pytree that is not differentiated.

    Returns:
        A function of the same arguments that returns `(value, grad)`, or `((value, aux), grad)` with `has_aux`.
        `grad` has the structure, shapes and dtypes of the argument (a tuple of such trees for several `argnums`).

    Raises:
        TypeError: a leaf of a differentiated argument is no floating tensor, or the value is no floating 0-dim tensor.

    >>> params = {"w": torch.tensor([1.0, 2.0]), "b": torch.tensor(3.0)}
    >>> value_and_grad(lambda p: (p["w"] ** 2).sum() + p["b"])(params)
    (tensor(8.), {'w': tensor([2., 4.]), 'b': tensor(1.)})
    """
    positions = as_positions(argnums)

    def value_and_grad_of(*args: Any, **kwargs: Any) -> Any:
        check_arguments(f, "value_and_grad", args, positions)
        if torch.is_inference_mode_enabled():
            # Nothing is recorded there, and every gradient would be zero.
            with torch.inference_mode(False):
                return value_and_grad_of(*tree.map(_recordable, args), **tree.map(_recordable, kwargs))
        around = _compat.transform_active() or _compat.forward_mode() or _outermost.busy
        inner = around or _needs_outer_graph(args, kwargs)
        engine = _func_engine if inner else _autograd_engine
        value, aux, grads = engine(f, positions, has_aux, args, kwargs)
        grads = grads[0] if isinstance(argnums, int) else grads
        return ((value, aux), grads) if has_aux else (value, grads)

    return value_and_grad_of


def grad(f: Function, argnums: Argnums = 0, *, has_aux: bool = False) -> Function:
    """The gradient of a scalar function; with `has_aux`, `(grad, aux)`. Arguments and errors as `value_and_grad`.

    >>> grad(lambda x: x**2 + 2 * x)(torch.tensor(3.0))
    tensor(8.)
    >>> grad(grad(lambda x: x**3))(torch.tensor(2.0))
    tensor(12.)
    """
    both = value_and_grad(f, argnums, has_aux=has_aux)

    def grad_of(*args: Any, **kwargs: Any) -> Any:
        value, grads = both(*args, **kwargs)
        return (grads, value[1]) if has_aux else grads

    return grad_of


def _recordable(leaf: Any) -> Any:
    """A tensor made in inference mode takes no part in autograd, but a copy of it does."""
    return leaf.clone() if isinstance(leaf, Tensor) and leaf.is_inference() else leaf


def _func_engine(f: Function, positions: tuple[int, ...], has_aux: bool, args: Any, kwargs: Any) -> Any:
    # torch.func takes and returns nothing but tensors, so trees (which may hold None) are opened on the way.
    opened = [tree.flatten(visible(args[i])) for i in positions]
    form: Any = None

    def scalar(*flat: list[Tensor]) -> Any:
        nonlocal form
        arguments = list(args)
        for i, leaves, (_, treedef) in zip(positions, flat, opened, strict=True):
            arguments[i] = tree.unflatten(treedef, leaves)
        value, aux = _value_and_aux(f, f(*arguments, **kwargs), has_aux)
        tensors, form = Form.opened(aux)
        return value, (value, tensors)

    every = tuple(range(len(positions)))
    flat_grads, (value, tensors) = torch.func.grad(scalar, argnums=every, has_aux=True)(*(flat for flat, _ in opened))
    grads = tuple(tree.unflatten(treedef, leaves) for leaves, (_, treedef) in zip(flat_grads, opened, strict=True))
    return value, form.filled(tensors), grads


def _autograd_engine(f: Function, positions: tuple[int, ...], has_aux: bool, args: Any, kwargs: Any) -> Any:
    arguments = list(args)
    leaves: list[Tensor] = []
    layouts = []
    outer = torch.is_grad_enabled()
    for i in positions:
        flat, treedef = tree.flatten(arguments[i])
        if any(map(_is_inference, flat)):
            flat = [_recordable(leaf) for leaf in flat]
        fresh = [leaf.detach().requires_grad_() for leaf in flat]
        layouts.append((treedef, len(fresh)))
        leaves += fresh
        arguments[i] = tree.unflatten(treedef, fresh)
    _outermost.busy = True
    try:
        with torch.enable_grad():
            value, aux = _value_and_aux(f, f(*arguments, **kwargs), has_aux)
        recorded = _recorded(aux) if has_aux else []
        # What `f` closed over may be part of the caller's own graph, which then goes on through the result.
        beyond = _reach_beyond([value, *recorded], leaves) if outer else set()
        outer = id(value) in beyond
        if value.requires_grad and leaves:
            flat_grads = torch.autograd.grad(
                value,
                leaves,
                retain_graph=bool(beyond),
                create_graph=outer,
                allow_unused=True,
                materialize_grads=True,
            )
        else:
            flat_grads = tuple(torch.zeros_like(leaf) for leaf in leaves)
    finally:
        _outermost.busy = False
    grads, start = [], 0
    for treedef, count in layouts:
        grads.append(tree.unflatten(treedef, list(flat_grads[start : start + count])))
        start += count
    if beyond:
        aux = tree.map(lambda leaf: leaf if id(leaf) in beyond else stop_gradient(leaf), aux)
    elif recorded:
        aux = stop_gradient(aux)
    return value if outer else value.detach(), aux, tuple(grads)


def _recorded(x: Any) -> list[Tensor]:
    return [leaf for leaf in tree.leaves(x) if isinstance(leaf, Tensor) and leaf.requires_grad]


def _reach_beyond(tensors: list[Tensor], leaves: list[Tensor]) -> set[int]:
    """The `id` of those whose graph of autograd ends in other tensors than these leaves."""
    own = set(map(id, leaves))
    # Most often there is none, which one walk through all that they share tells.
    return {id(t) for t in tensors if _ends_beyond([t], own)} if _ends_beyond(tensors, own) else set()


def _ends_beyond(tensors: list[Tensor], own: set[int]) -> bool:
    """Whether a graph of autograd ends in other tensors than its own; 0.4 us a node, at worst 5 % of a gradient."""
    if any(t.requires_grad and t.grad_fn is None and id(t) not in own for t in tensors):
        return True
    seen = {t.grad_fn for t in tensors if t.grad_fn is not None}
    met: list[Node] = list(seen)
    for node in met:  # which grows
        if edges := node.next_functions:
            for following, _ in edges:
                if following is not None and following not in seen:
                    seen.add(following)
                    met.append(following)
        elif isinstance(variable := getattr(node, "variable", None), Tensor) and id(variable) not in own:
            return True
    return False


def _value_and_aux(f: Function, output: Any, has_aux: bool) -> tuple[Tensor, Any]:
    if has_aux and not (isinstance(output, tuple) and len(output) == 2):
        raise TypeError(f"{name(f)} must return (value, aux) under has_aux=True; it returned {describe(output)}.")
    value, aux = output if has_aux else (output, None)
    if isinstance(value, tuple) and not has_aux:
        raise TypeError(
            f"{name(f)} returned {describe(value)}, but a gradient needs one scalar. If the rest are metrics or new "
            f"state, write has_aux=True and return (loss, aux)."
        )
    if not isinstance(value, Tensor) or value.ndim != 0 or not value.is_floating_point():
        raise TypeError(
            f"a gradient needs a 0-dim floating tensor, and {name(f)} returned {describe(value)}. Reduce it with "
            f".sum() or .mean(), or use jacrev or per_example_grad for one gradient a row."
        )
    return value, aux


def stop_gradient(x: Any) -> Any:
    """The same tree, through which no derivative flows; leaves that are no tensors pass unchanged.

    >>> grad(lambda x: x * stop_gradient(x))(torch.tensor(3.0))
    tensor(3.)
    """
    return tree.map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, x)


def _needs_outer_graph(args: Any, kwargs: Any) -> bool:
    """Whether a caller outside uses torch.autograd through these arguments: then the graph must not be cut."""
    return torch.is_grad_enabled() and _any_requires_grad((args, kwargs) if kwargs else args)


def _any_requires_grad(x: Any) -> bool:
    for leaf in tree.leaves(x):  # noqa: SIM110 - a generator in any() takes longer, in every call of a gradient
        if isinstance(leaf, Tensor) and leaf.requires_grad:
            return True
    return False
