"""Which operation made the first value that is not finite."""

import functools
from bisect import bisect_right
from collections.abc import Callable, Collection
from threading import get_ident
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from funcnet import _compat, tree
from funcnet.diagnostics.places import Place, here
from funcnet.jit.signature import argument_names

__all__ = ["AnomalyError", "anomaly"]

P = ParamSpec("P")
R = TypeVar("R")

# What makes no new values: it creates, fills, copies, moves and selects. An infinity or a NaN in its result was given.
_MOVES = frozenset(
    {
        "_efficientzerotensor", "_index_put_impl", "_reshape_alias", "_unsafe_view", "alias", "as_strided_scatter",
        "cat", "clone", "constant_pad_nd", "detach", "diag_embed", "diagonal_scatter", "embedding", "empty",
        "empty_like", "empty_permuted", "empty_strided", "fill", "flip", "full", "full_like", "gather", "index",
        "index_copy", "index_fill", "index_put", "index_select", "lift_fresh", "masked_fill", "masked_scatter",
        "masked_select", "new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros", "ones", "ones_like",
        "pad", "repeat", "repeat_interleave", "resize", "roll", "scalar_tensor", "scatter", "select_backward",
        "select_scatter", "set", "slice_backward", "slice_scatter", "stack", "take", "tril", "triu",
        "unfold", "where", "zero", "zeros", "zeros_like",
    }
)  # fmt: skip
_COPIES = frozenset({"_to_copy", "copy"})  # likewise, but for numbers too large for the dtype


class AnomalyError(ArithmeticError):
    """An operation gave a value that is not finite.

    Attributes:
        operation: its name in torch.
        place: where it was called in the forward; None where no line outside of torch and funcnet led there.
        backward: the name of autograd's node where it belongs to the backward pass, else None.
    """

    __module__ = "funcnet.diagnostics"
    operation: str
    place: Place | None
    backward: str | None


def anomaly(function: Callable[P, R], *, allow: Collection[str] = ()) -> Callable[P, R]:
    """The same function, which raises at the first operation whose result is not finite, and tells where it is.

    `anomaly(step)(ts, batch)`: the error names the torch function, the submodule's path where it lies in a `Model`,
    the line of your code, the shapes and ranges of its inputs, and whether it belongs to the forward or to the
    backward pass; of a backward, where the forward of it was called.

    Every operation is looked at as it runs, under `grad`, `vmap` and all other transforms too, where shapes have the
    batch axes. A step takes several times as long: it is for one batch that is known to fail. Results are those of the
    function, and what is jitted inside runs uncompiled.

    An alarm is a NaN in the result of any operation that computes, and an infinity where all inputs were finite, be it
    by overflow, by `log` of 0 or by a division by 0. No alarm is what creates, fills, selects or moves values, so that
    a mask of `-inf` passes, as does all that is computed from it until it becomes NaN.

    Args:
        function: any function of tensors, such as a step that `make_step` made.
        allow: names of operations that may give anything, such as `("log",)` for masks that are made by `mask.log()`.

    Raises:
        AnomalyError: when called, at the first such operation.
        TypeError: when called inside `jit`, where there are no values.

    >>> from funcnet import grad
    >>> anomaly(grad(torch.sqrt))(torch.tensor(4.0))
    tensor(0.2500)
    >>> try:
    ...     anomaly(grad(torch.sqrt))(torch.tensor(0.0))
    ... except AnomalyError as error:
    ...     error.operation, error.backward
    ('div', 'SqrtBackward0')
    """

    @functools.wraps(function)
    def watched(*args: P.args, **kwargs: P.kwargs) -> R:
        if _compat.tracing():
            raise TypeError(
                "anomaly looks at values, and was called inside jit, where there are none. Write anomaly(step)(ts, "
                "batch) with the step that is not jitted: of a jitted one that is step.eager."
            )
        names = argument_names(function)
        given = {names[i] if i < len(names) else f"argument {i}": arg for i, arg in enumerate(args)} | kwargs
        with _compat.Watch(_Look(given, frozenset(allow))):
            return function(*args, **kwargs)

    return watched


class _Look:
    """Runs each operation of a call, and looks at what comes out."""

    def __init__(self, given: dict[str, Any], allow: frozenset[str]) -> None:
        self._allow = allow
        self._given = {
            _compat.storage_of(leaf)[0]: path
            for path, leaf in tree.leaves_with_path(given)
            if isinstance(leaf, Tensor) and leaf.layout == torch.strided and not _compat.level_of(leaf) > 0
        }
        # Autograd numbers its nodes, in each thread: those below `_numbers[i]`, and not below the one before, are of
        # `_places[i]`. Nodes that a backward makes, for the next, are of the place of the node it goes through.
        self._thread = get_ident()
        self._numbers: list[int] = []
        self._places: list[Place | None] = []

    def __call__(self, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        node = _compat.backward_node()
        place = here() if node is None else self._place_of(node[1])
        if get_ident() == self._thread:
            self._numbers.append(_compat.sequence())
            self._places.append(place)
        name = operation.overloadpacket.__name__.rstrip("_")
        moves = name in _MOVES or operation.is_view or name in self._allow
        # What it writes over is looked at before.
        before = _ranges(self._given, args, kwargs) if operation._schema.is_mutable and not moves else None
        result = operation(*args, **kwargs)
        if not moves:
            found = _not_finite(_results(operation, result, args, kwargs))
            if found is not None:
                before = before or _ranges(self._given, args, kwargs)
                arises = found[1] == "nan" and name not in _COPIES
                if arises or all(one.finite for one in before):
                    raise _error(name, place, node[0] if node else None, found, before)
        return result

    def _place_of(self, number: int) -> Place | None:
        """Where what made a node of autograd was called."""
        i = bisect_right(self._numbers, number)
        return self._places[i] if i < len(self._places) else None


def _error(
    name: str, place: Place | None, backward: str | None, found: tuple[Tensor, str], inputs: "list[_Range]"
) -> AnomalyError:
    bad, kind = found
    called = f" in {place.function}" if place is not None and place.function and backward is None else ""
    count = int((~torch.isfinite(bad)).sum())
    phase = "" if backward is None else f" in the backward pass ({backward}) of what was called"
    where = f" {place}" if place is not None else ""
    lines = [f"{name}{called} gave {kind} ({count:,} of its {bad.numel():,} numbers){phase}{where}"]
    lines += [f"  input {i}: {one}" for i, one in enumerate(inputs)]
    already = [one for one in inputs if one.path and not one.finite]
    if already:
        lines.append(f"{already[0].path} was given so: look at the data or the parameters.")
    error = AnomalyError("\n".join(lines))
    error.operation, error.place, error.backward = name, place, backward
    return error


class _Range:
    """What an operation was given at one place."""

    def __init__(self, value: Tensor | float, path: str) -> None:
        self.path = path
        self.finite = _kind(value if isinstance(value, Tensor) else torch.tensor(value)) is None
        if not isinstance(value, Tensor):
            self.text = f"the number {value}"
            return
        self.text = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
        if path:
            self.text = f"{path}, {self.text}"
        if value.numel() and not value.is_complex():
            low, high = (end.item() for end in torch.aminmax(value.detach().float()))
            if not self.finite:
                self.text += f", {int((~torch.isfinite(value)).sum()):,} not finite"
                rest = value[torch.isfinite(value)].float()
                low, high = (end.item() for end in torch.aminmax(rest)) if rest.numel() else (low, high)
            self.text += f", from {low:.4g} to {high:.4g}"

    def __str__(self) -> str:
        return self.text


def _ranges(given: dict[int, str], args: Any, kwargs: Any) -> list[_Range]:
    """Tensors of numbers, and numbers that are not finite: the masks that a scalar makes are no overflow."""
    found = []
    for leaf in tree.leaves((args, kwargs)):
        if isinstance(leaf, Tensor) and leaf.dtype != torch.bool:
            strided = leaf.layout == torch.strided
            found.append(_Range(leaf, given.get(_compat.storage_of(leaf)[0], "") if strided else ""))
        elif isinstance(leaf, float) and not -torch.inf < leaf < torch.inf:
            found.append(_Range(leaf, ""))
    return found


def _results(operation: Any, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """What came out, and what was written over."""
    if not operation._schema.is_mutable:
        return tree.leaves(result)
    written = []
    for i, argument in enumerate(operation._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            written.append(args[i] if i < len(args) else kwargs.get(argument.name))
    return tree.leaves((result, written))


def _not_finite(values: list[Any]) -> tuple[Tensor, str] | None:
    for value in values:
        if isinstance(value, Tensor):
            kind = _kind(value)
            if kind is not None:
                return value, kind
    return None


def _kind(value: Tensor) -> str | None:
    """What a tensor holds that is not finite: "nan", "inf" or "-inf"; None where there is nothing."""
    if not (value.is_floating_point() or value.is_complex()) or not value.numel():
        return None
    if value.is_meta or value.layout != torch.strided:  # torch's own Python computes dtypes on meta tensors
        return None
    if bool(torch.isfinite(value).all()):
        return None
    if bool(torch.isnan(value).any()):
        return "nan"
    return "inf" if value.is_complex() or bool((value == torch.inf).any()) else "-inf"
