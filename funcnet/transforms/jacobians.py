"""Products with the Jacobian and the Hessian, and the matrices themselves."""

import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from funcnet import _compat, tree
from funcnet.control.closure import Body, ambient
from funcnet.transforms._arguments import Argnums, Function, as_positions, check_arguments
from funcnet.transforms._flat import Flat
from funcnet.transforms.gradients import grad
from funcnet.tree.mismatch import match

_vjp: Any = torch.func.vjp  # its annotation leaves out aux
_jvp: Any = torch.func.jvp  # likewise


def vjp(f: Function, *primals: Any, has_aux: bool = False) -> Any:
    """The output and the vector-Jacobian product: `(f(*primals), pullback)`, then `aux` with `has_aux`.

    `pullback(cotangent)` takes a tree like the output, and returns a tuple with one tree for each primal.

    >>> out, pullback = vjp(torch.sin, torch.tensor(0.0))
    >>> pullback(torch.tensor(2.0))
    (tensor(2.),)
    """
    check_arguments(f, "vjp", primals, tuple(range(len(primals))))
    flat = Flat(f, "vjp", primals, has_aux=has_aux)
    then = _asked_of(flat.leaves)
    again = _again(flat)
    outputs, pull, aux = _vjp(flat, *flat.leaves, has_aux=True)
    output = flat.output(outputs)

    def pullback(cotangent: Any) -> Any:
        cotangents = match(cotangent, output, "cotangent", "the output")
        now = _asked_of(cotangents)
        pulled = pull
        if now.levels - then.levels or (now.forward and not then.forward):
            # The backward of a fused kernel has no derivative, and nothing told `f` that one would be wanted.
            with _compat.differentiated_again():
                _, pulled, _ = _vjp(again, *flat.leaves, has_aux=True)
        return tree.unflatten(flat.treedef, pulled(tuple(cotangents)))

    return (output, pullback, flat.aux(aux)) if has_aux else (output, pullback)


def _again(flat: Flat) -> Callable[..., Any]:
    """The function for another run: with the draws and the state of the first, which is to come, and leaving none."""
    mode = ambient()
    if mode is None:
        return flat
    body, key, draws = Body(flat, [], mode), mode.key, mode.draws
    return lambda *leaves: body.run([], key, draws, leaves, {}).result


def _asked_of(values: Any) -> _compat.Asked:
    return _compat.asked_of(*(leaf for leaf in values if isinstance(leaf, Tensor)))


def jvp(f: Function, primals: tuple[Any, ...], tangents: tuple[Any, ...], *, has_aux: bool = False) -> Any:
    """The output and the Jacobian-vector product in forward mode: `(f(*primals), J @ tangents)`.

    Args:
        f: a pure function.
        primals: the arguments at which to differentiate, a tuple of pytrees.
        tangents: the direction: the structure, shapes and dtypes of `primals`.
        has_aux: whether `f` returns `(output, aux)`; the result is then `(output, tangent, aux)`.

    >>> jvp(lambda x: x**3, (torch.tensor(2.0),), (torch.tensor(1.0),))
    (tensor(8.), tensor(12.))
    """
    check_arguments(f, "jvp", primals, tuple(range(len(primals))))
    directions = match(tangents, primals, "tangents", "primals")
    flat = Flat(f, "jvp", primals, has_aux=has_aux, integers=True)
    if flat.leaves:
        with _compat.forward_alone():
            outputs, moved, aux = _jvp(flat, tuple(flat.leaves), tuple(directions), has_aux=True)
    else:
        outputs, aux = flat()
        moved = map(torch.zeros_like, outputs)
    results = flat.output(outputs), flat.output(moved)
    return (*results, flat.aux(aux)) if has_aux else results


def linearize(f: Function, *primals: Any) -> tuple[Any, Function]:
    """The output and the linear map `tangents -> J @ tangents` at a point, which does not run `f` again.

    The map is the transpose of the pullback, itself a pullback since the first is linear.

    >>> out, linear = linearize(torch.sin, torch.tensor(0.0))
    >>> linear(torch.tensor(3.0))
    tensor(3.)
    """
    check_arguments(f, "linearize", primals, tuple(range(len(primals))))
    flat = Flat(f, "linearize", primals)
    if not flat.leaves:
        outputs, _ = flat()
        return flat.output(outputs), lambda *tangents: flat.output(list(map(torch.zeros_like, outputs)))
    with _compat.differentiated_again():
        outputs, pullback, _ = _vjp(flat, *flat.leaves, has_aux=True)
    _, transpose = _vjp(pullback, tuple(torch.zeros_like(out) for out in outputs))

    def linear(*tangents: Any) -> Any:
        return flat.output(transpose(tuple(match(tangents, primals, "tangents", "primals")))[0])

    return flat.output(outputs), linear


def jacfwd(f: Function, argnums: Argnums = 0, *, has_aux: bool = False) -> Function:
    """The Jacobian by forward mode, one pass a column: for functions with more outputs than inputs.

    Each leaf has the shape of the output followed by that of the input; a tree of outputs gives a tree of trees like
    the argument (tuples of such for several `argnums`). With `has_aux`, `(jacobian, aux)`.

    >>> jacfwd(lambda x: x**2)(torch.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    return _jacobian("jacfwd", torch.func.jacfwd, f, argnums, has_aux)


def jacrev(f: Function, argnums: Argnums = 0, *, has_aux: bool = False) -> Function:
    """The Jacobian by reverse mode, one pass a row: for functions with more inputs than outputs. As `jacfwd`.

    >>> jacrev(lambda x: (x**2).sum())(torch.tensor([1.0, 2.0]))
    tensor([2., 4.])
    """
    return _jacobian("jacrev", torch.func.jacrev, f, argnums, has_aux)


def _jacobian(verb: str, torchs: Function, f: Function, argnums: Argnums, has_aux: bool) -> Function:
    positions = as_positions(argnums)

    def jacobian_of(*args: Any, **kwargs: Any) -> Any:
        check_arguments(f, verb, args, positions)

        def of_chosen(*chosen: Any) -> Any:
            arguments = list(args)
            for i, value in zip(positions, chosen, strict=True):
                arguments[i] = value
            return f(*arguments, **kwargs)

        flat = Flat(functools.wraps(f)(of_chosen), verb, tuple(args[i] for i in positions), has_aux=has_aux)
        if flat.leaves:
            every = tuple(range(len(flat.leaves)))
            with _compat.forward_alone() if torchs is torch.func.jacfwd else nullcontext():
                rows, aux = torchs(flat, argnums=every, has_aux=True)(*flat.leaves)
        else:
            outputs, aux = flat()
            rows = [()] * len(outputs)
        trees = [tree.unflatten(flat.treedef, row) for row in rows]
        jacobian = flat.output([chosen[0] for chosen in trees] if isinstance(argnums, int) else trees)
        return (jacobian, flat.aux(aux)) if has_aux else jacobian

    return jacobian_of


def hessian(f: Function, argnums: Argnums = 0) -> Function:
    """The matrix of second derivatives of a scalar function, forward over reverse.

    >>> hessian(lambda x: (x**3).sum())(torch.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """

    def hessian_of(*args: Any, **kwargs: Any) -> Any:
        check_arguments(f, "hessian", args, as_positions(argnums))
        return jacfwd(functools.wraps(f)(jacrev(f, argnums)), argnums)(*args, **kwargs)

    return hessian_of


def hvp(f: Function, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    """The product of the Hessian of a scalar function with a vector, without the matrix: `d/de grad f(x + e v)`.

    Forward over reverse (Pearlmutter 1994): the cost of about two gradients.

    Args:
        f: a pure function whose result is a 0-dim floating tensor.
        primals: `(x,)`, or more arguments, whose joint Hessian is meant.
        tangents: the vector, like `primals`.

    Returns:
        A tree like `x`, or a tuple of trees for several primals.

    >>> hvp(lambda x: (x**3).sum(), (torch.tensor([1.0, 2.0]),), (torch.tensor([1.0, 10.0]),))
    tensor([  6., 120.])
    """
    every: Argnums = 0 if len(primals) == 1 else tuple(range(len(primals)))
    return jvp(grad(f, argnums=every), primals, tangents)[1]
