"""`check_gradients`: derivatives in every mode against differences, and against each other."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from funcnet import random, tree
from funcnet.random.seeded import KeyedMode
from funcnet.testing.directions import WrongDerivativeError, check_directions, near
from funcnet.testing.failures import CheckError, NotApplicableError, explain
from funcnet.testing.scalars import Scalar, precise, scalar
from funcnet.testing.subjects import Call, Subject, cases, distinct, examine

__all__ = ["check_gradients"]

_SMALL = 32  # numbers: up to here the whole Jacobian is compared
_LONGEST = 300  # characters of gradcheck's message


def check_gradients(
    subject: Subject,
    *example: Any,
    key: Tensor | None = None,
    order: int = 2,
    forward: bool = True,
    batched: bool = True,
) -> str:
    """Hold that derivatives are right: in float64, of first and second order, in reverse, forward and batched mode.

    The derivative of a weighted sum of all outputs along one random direction, with respect to parameters and floating
    arguments at once, is compared with central differences, `(f(x + h v) - f(x - h v)) / 2h`. Where all arguments are
    32 numbers at most, `torch.autograd.gradcheck` and `gradgradcheck` compare the whole Jacobian as well.

    Args:
        subject: a function, a `Model`, a built module or a module's class.
        *example: what it is called with; floating tensors are cast to float64.
        key: what parameters, directions and weights are drawn from. Default `random.key(0)`.
        order: 1 for gradients only, 2 for their derivatives as well.
        forward: whether forward mode is checked (an `autograd.Function` needs a `jvp` for it).
        batched: whether `vmap` over cotangents is checked.

    Returns:
        What was compared, in a phrase.

    Raises:
        CheckError: naming the leaf, the index of the number whose derivative is wrong, both values and the mode.
        NotApplicableError: no floating argument, or no floating output.

    >>> check_gradients(torch.tanh, torch.tensor([0.5, -1.0]))
    '1 leaf, order 2, with gradcheck'
    """

    def body(subject: Subject, example: tuple[Any, ...], key: Tensor) -> str:
        said = ""
        for call in distinct(cases(subject, example, key)):
            function = scalar(_float64(call), key)
            small = tree.size(function.point) <= _SMALL
            try:
                check_directions(function, key, order, forward, batched)
                if small:
                    _check_jacobian(function, key, order, forward, batched)
            except WrongDerivativeError as wrong:
                raise _error(call, wrong) from None
            except NotApplicableError:
                raise
            except CheckError as error:
                raise CheckError(f"{call.title} cannot be differentiated: {error}.") from error
            except Exception as error:
                raise CheckError(
                    f"{call.title} cannot be differentiated: {explain(error)}. If this derivative is not needed, pass "
                    f"order=1, forward=False or batched=False."
                ) from error
            leaves = len(function.point)
            said = f"{leaves} {'leaf' if leaves == 1 else 'leaves'}, order {order}{', with gradcheck' if small else ''}"
        return said

    return examine("gradients", body, subject, example, key)


def _float64(call: Call) -> Call:
    wide = precise(call)
    narrow = [path for path, leaf in scalar(wide, random.key(0)).point.items() if leaf.dtype != torch.float64]
    if narrow:
        try:
            call.f(*(tree.cast(arg, torch.float64) for arg in call.args))
        except Exception as error:
            raise CheckError(f"{call.title} does not run in float64: it raises {explain(error)}.") from error
    return wide


def _error(call: Call, wrong: WrongDerivativeError) -> CheckError:
    owner = wrong.leaf.removeprefix("params.").rpartition(".")[0] if wrong.leaf.startswith("params.") else None
    at = f" at index {wrong.index}" if wrong.index else ""
    return CheckError(
        f"{call.title} has a wrong derivative ({wrong.mode}): that of leaf {wrong.leaf!r}{at} {wrong.how}.",
        leaf=wrong.leaf,
        index=wrong.index,
        submodule=owner,
    )


class _Draws(KeyedMode):
    """gradcheck's draws from the global generator, from a key; those from a generator of its own as they are."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if kwargs and kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        return super().__torch_function__(func, types, args, kwargs)


def _check_jacobian(function: Scalar, key: Tensor, order: int, forward: bool, batched: bool) -> None:
    paths = list(function.point)

    def flat(*leaves: Tensor) -> tuple[Tensor, ...]:
        return tuple(function.outputs(dict(zip(paths, leaves, strict=True))))

    failures = []
    for point in (function.point, near(function.point, key)):
        leaves = tuple(point[path].detach().clone().requires_grad_() for path in paths)
        try:
            with _Draws(key):
                for run in _gradchecks(order, forward, batched):
                    run(flat, leaves)
            return
        except GradcheckError as error:
            failures.append(error)
    found = re.search(r"with respect to input (\d+)", str(failures[0]))
    how = " ".join(str(failures[0]).split())[:_LONGEST]  # it goes on with advice for torch's own tests
    leaf = paths[int(found[1])] if found else paths[0]
    raise WrongDerivativeError("torch.autograd.gradcheck", leaf, None, f"is refused: {how}")


def _gradchecks(order: int, forward: bool, batched: bool) -> Iterator[Callable[..., Any]]:
    # A batch of tangents is compared along directions: gradcheck's own needs batching rules that torch.func does not.
    yield lambda f, x: torch.autograd.gradcheck(f, x, check_forward_ad=forward, check_batched_grad=batched)
    if order > 1:
        yield lambda f, x: torch.autograd.gradgradcheck(f, x, check_fwd_over_rev=forward, check_batched_grad=batched)
