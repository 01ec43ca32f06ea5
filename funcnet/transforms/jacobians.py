"""Products with the Jacobian and the Hessian, and the matrices themselves."""

from typing import Any, cast

import torch

from funcnet import tree
from funcnet.transforms._arguments import Argnums, Function, as_positions, check_arguments
from funcnet.transforms.gradients import grad


def vjp(f: Function, *primals: Any, has_aux: bool = False) -> Any:
    """The output and the vector-Jacobian product: `(f(*primals), pullback)`, then `aux` with `has_aux`.

    `pullback(cotangent)` returns a tuple with one tree for each primal.

    >>> out, pullback = vjp(torch.sin, torch.tensor(0.0))
    >>> pullback(torch.tensor(2.0))
    (tensor(2.),)
    """
    check_arguments(f, "vjp", primals, tuple(range(len(primals))))
    return torch.func.vjp(f, *primals, has_aux=has_aux)


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
    tree.check_like(tangents, primals, what="tangents", against="primals")
    return torch.func.jvp(f, primals, tangents, has_aux=has_aux)


def linearize(f: Function, *primals: Any) -> tuple[Any, Function]:
    """The output and the linear map `tangents -> J @ tangents` at a point, which does not run `f` again.

    The map is the transpose of the pullback, itself a pullback since the first is linear.

    >>> out, linear = linearize(torch.sin, torch.tensor(0.0))
    >>> linear(torch.tensor(3.0))
    tensor(3.)
    """
    check_arguments(f, "linearize", primals, tuple(range(len(primals))))
    # Without has_aux torch returns two, which its annotation leaves open.
    output, pullback = cast(tuple[Any, Function], torch.func.vjp(f, *primals))
    _, transpose = cast(tuple[Any, Function], torch.func.vjp(pullback, tree.zeros_like(output)))

    def linear(*tangents: Any) -> Any:
        tree.check_like(tangents, primals, what="tangents", against="primals")
        return transpose(tangents)[0]

    return output, linear


def jacfwd(f: Function, argnums: Argnums = 0, *, has_aux: bool = False) -> Function:
    """The Jacobian by forward mode, one pass a column: for functions with more outputs than inputs.

    Each leaf has the shape of the output followed by that of the input. With `has_aux`, `(jacobian, aux)`.

    >>> jacfwd(lambda x: x**2)(torch.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    return _checked("jacfwd", f, argnums, torch.func.jacfwd(f, argnums=_argnums(argnums), has_aux=has_aux))


def jacrev(f: Function, argnums: Argnums = 0, *, has_aux: bool = False) -> Function:
    """The Jacobian by reverse mode, one pass a row: for functions with more inputs than outputs. As `jacfwd`.

    >>> jacrev(lambda x: (x**2).sum())(torch.tensor([1.0, 2.0]))
    tensor([2., 4.])
    """
    return _checked("jacrev", f, argnums, torch.func.jacrev(f, argnums=_argnums(argnums), has_aux=has_aux))


def hessian(f: Function, argnums: Argnums = 0) -> Function:
    """The matrix of second derivatives of a scalar function, forward over reverse.

    >>> hessian(lambda x: (x**3).sum())(torch.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    return _checked("hessian", f, argnums, torch.func.hessian(f, argnums=_argnums(argnums)))


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


def _argnums(argnums: Argnums) -> int | tuple[int, ...]:
    return argnums if isinstance(argnums, int) else tuple(argnums)


def _checked(verb: str, f: Function, argnums: Argnums, transformed: Function) -> Function:
    def checked(*args: Any, **kwargs: Any) -> Any:
        check_arguments(f, verb, args, as_positions(argnums))
        return transformed(*args, **kwargs)

    return checked
