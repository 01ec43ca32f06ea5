"""`check_dtype`: nothing is silently made wider or narrower."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet import grad, tree
from funcnet.testing.agreement import inside, raised_in
from funcnet.testing.failures import CheckError, NotApplicableError, explain
from funcnet.testing.scalars import scalar
from funcnet.testing.subjects import Call, Subject, cases, examine

__all__ = ["check_dtype"]


def check_dtype(
    subject: Subject,
    *example: Any,
    key: Tensor | None = None,
    dtypes: Sequence[torch.dtype] = (torch.float64, torch.bfloat16),
) -> str:
    """Hold that floating results have the dtype of the arguments, and nothing is silently made wider or narrower.

    For a model: outputs in evaluation and in training have the dtype of parameters and example, the new state that of
    the state, gradients that of their parameters.

    Args:
        subject: a function, a `Model`, a built module or a module's class.
        *example: what it is called with; floating tensors are cast to each dtype.
        key: what parameters and draws are made from. Default `random.key(0)`.
        dtypes: what is tried.

    Returns:
        What was tried, in a phrase.

    Raises:
        CheckError: naming the leaf and the submodule whose output is the first of another dtype.

    >>> check_dtype(torch.nn.Linear(3, 2), torch.ones(4, 3))
    'float64, bfloat16'
    """

    def body(subject: Subject, example: tuple[Any, ...], key: Tensor) -> str:
        for call in cases(subject, example, key):
            for dtype in dtypes:
                _check_dtype(call, dtype, key)
        return ", ".join(map(_name, dtypes))

    return examine("dtype", body, subject, example, key)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _check_dtype(call: Call, dtype: torch.dtype, key: Tensor) -> None:
    args = tuple(tree.cast(arg, dtype) for arg in call.args)
    cast = call._replace(args=args)
    title = f"{call.title} in {_name(dtype)}"
    try:
        result = call.f(*args)
        gradients = _gradients(cast, key)
    except Exception as error:
        raise CheckError(f"{title} raises {explain(error)}", submodule=raised_in(error)) from error
    output, state = (result["output"], result["state"]) if call.train else (result, {})
    _expect(title, "output", output, dtype, cast)
    for name, leaf in state.items():
        was = args[1][name].dtype
        if leaf.dtype != was:
            raise CheckError(
                f"{title} returns state leaf {name!r} as {_name(leaf.dtype)}, and was given {_name(was)}.",
                leaf=f"state.{name}",
                submodule=name.rpartition(".")[0] or None,
            )
    _expect(title, "gradient", gradients, dtype, cast)


def _gradients(call: Call, key: Tensor) -> Any:
    try:
        function = scalar(call, key)
        return grad(function.value)(function.point)
    except NotApplicableError:
        return {}


def _expect(title: str, what: str, value: Any, dtype: torch.dtype, call: Call) -> None:
    for path, leaf in tree.leaves_with_path(value):
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dtype != dtype:
            submodule = _first_other(call, dtype) if what == "output" else None
            raise CheckError(
                f"{title} gives {what}{f' leaf {path!r}' if path else ''} as {_name(leaf.dtype)}{inside(submodule)}. "
                f"Make new tensors with dtype=x.dtype, or cast the result with .to(x.dtype).",
                leaf=path,
                submodule=submodule,
            )


def _first_other(call: Call, dtype: torch.dtype) -> str | None:
    """The submodule whose output is the first floating one of another dtype."""
    if not call.submodules():
        return None
    for name, output in call.f(*call.args, capture=("*",))[-1].items():
        leaves = [leaf for leaf in tree.leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        if any(leaf.dtype != dtype for leaf in leaves):
            return str(name).partition(":")[0]
    return None
