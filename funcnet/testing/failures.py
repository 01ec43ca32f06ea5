"""What a check says when it fails, and how two results are compared."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from funcnet import _compat, tree

__all__ = ["CheckError", "Difference", "NotApplicableError", "compare", "describe", "explain", "replay"]

# Relative to the largest number of the leaf, and to the largest of the whole tree: a leaf may be rounding noise only,
# as the gradient of a bias before a BatchNorm is.
_TOLERANCE = {
    torch.float64: (1e-7, 1e-9),
    torch.complex128: (1e-7, 1e-9),
    torch.float32: (1e-3, 1e-5),
    torch.complex64: (1e-3, 1e-5),
    torch.bfloat16: (5e-2, 1e-2),
    torch.float16: (1e-2, 1e-3),
}
_SHOWN = 6  # digits beyond which a printed number is noise to a reader


class CheckError(AssertionError):
    """A checked property does not hold; the message is the smallest counterexample that was found.

    Attributes:
        check: the check's name, such as `"vmap"`; `"model"` where `check_model` collects several.
        leaf: the path of the tensor that is wrong, or None.
        index: the place of the worst number in it, or None.
        submodule: the path of the submodule in which it goes wrong, or None where that is not known.
        report: the report of `check_model`, else None.
    """

    __module__ = "funcnet.testing"

    def __init__(
        self,
        message: str,
        *,
        check: str = "",
        leaf: str | None = None,
        index: tuple[int, ...] | None = None,
        submodule: str | None = None,
        report: Any = None,
    ) -> None:
        """Keep the parts beside the message."""
        super().__init__(message)
        self.check, self.leaf, self.index, self.submodule, self.report = check, leaf, index, submodule, report


class NotApplicableError(ValueError):
    """The check asks something that this function or model has not: no gradient, no formula."""

    __module__ = "funcnet.testing"


class Difference(NamedTuple):
    """The place at which two trees differ."""

    leaf: str
    place: tuple[int, ...] | None  # None: the leaves differ as a whole
    got: str
    want: str

    def __str__(self) -> str:
        """One phrase: where, what, and what instead."""
        where = f"leaf {self.leaf!r}" if self.leaf else "the result"
        at = f" at index {self.place}" if self.place else ""
        return f"{where}{at} is {self.got}, expected {self.want}"


def compare(got: Any, want: Any, *, exact: bool = False) -> Difference | None:
    """The first leaf in which two trees differ, with its worst number, or None where they agree.

    Args:
        got: a tree.
        want: what it should be. Structure, shapes and dtypes count.
        exact: whether every bit counts; else floating leaves may differ by rounding.

    >>> compare({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([1.0, 3.0])})
    Difference(leaf='w', place=(1,), got='2', want='3')
    """
    given, wanted = dict(tree.leaves_with_path(got)), dict(tree.leaves_with_path(want))
    for path in [*wanted, *given]:
        if path not in given or path not in wanted:
            return Difference(path, None, describe(given.get(path, "absent")), describe(wanted.get(path, "absent")))
    if (kinds := _other_kind(got, want, "")) is not None:
        return kinds
    largest = max((_largest(leaf) for leaf in wanted.values()), default=0.0)
    differences = (_difference(path, given[path], leaf, exact, largest) for path, leaf in wanted.items())
    return next(filter(None, differences), None)


def _other_kind(got: Any, want: Any, path: str) -> Difference | None:
    """The first node in which two trees with leaves at the same paths differ; one dict is as good as another."""
    if _node(got) is not _node(want):
        return Difference(path, None, f"a {type(got).__name__}", f"a {type(want).__name__}")
    mine, theirs = (dict(_compat.tree_children(node, t)) if (node := _compat.tree_node(t)) else {} for t in (got, want))
    if mine.keys() != theirs.keys():
        return Difference(path, None, describe(got), describe(want))
    children = (_other_kind(mine[name], child, f"{path}.{name}" if path else name) for name, child in theirs.items())
    return next(filter(None, children), None)


def _node(value: Any) -> type | None:
    """The kind of a node, or None for a leaf."""
    if _compat.tree_node(value) is None:
        return None
    return dict if isinstance(value, dict) else type(value)


def _difference(path: str, got: Any, want: Any, exact: bool, largest: float) -> Difference | None:
    whole = Difference(path, None, describe(got), describe(want))
    if not isinstance(got, Tensor) or not isinstance(want, Tensor):
        return None if type(got) is type(want) and _equal(got, want) else whole
    if got.shape != want.shape or got.dtype != want.dtype or _kind(got) is not _kind(want):
        return whole
    mine, theirs = _plain(got), _plain(want)
    if mine.numel() == 0 or torch.equal(mine, theirs):
        return None
    agree = (mine == theirs) | (mine.isnan() & theirs.isnan())
    if exact or want.dtype not in _TOLERANCE:
        error, allowed = (~agree).to(torch.float64), 0.0
    else:
        relative, absolute = _TOLERANCE[want.dtype]
        error, allowed = (mine - theirs).abs(), relative * _largest(want) + absolute * largest
        error = torch.where(agree, 0.0, error.nan_to_num(float("inf"), float("inf")))
    if error.max() <= allowed:
        return None
    place = tuple(int(i) for i in torch.unravel_index(error.argmax(), error.shape))
    return Difference(path, place, _number(got.detach()[place]), _number(want.detach()[place]))


def _equal(got: Any, want: Any) -> bool:
    """Whether two leaves of one type that are no tensors agree: as far as values of the type can be compared."""
    if isinstance(want, np.ndarray | np.generic):
        return got.dtype == want.dtype and np.array_equal(got, want, equal_nan=want.dtype.kind in "fc")
    if isinstance(want, int | float | complex | str | bytes):
        return got == want or (got != got and want != want)  # nan, which equals nothing
    return True


def _kind(value: Tensor) -> type:
    """The class, which is another for what a tracer left behind."""
    return Tensor if isinstance(value, nn.Parameter) else type(value)


def _plain(value: Tensor) -> Tensor:
    """The numbers, on the CPU, in a type that subtracts without rounding."""
    wide = torch.complex128 if value.is_complex() else torch.float64 if value.is_floating_point() else torch.int64
    return value.detach().to("cpu", wide)


def _largest(leaf: Any) -> float:
    if not isinstance(leaf, Tensor) or leaf.numel() == 0 or not (leaf.is_floating_point() or leaf.is_complex()):
        return 0.0
    return float(_plain(leaf).abs().nan_to_num(0.0, 0.0, 0.0).max())


def _number(value: Tensor) -> str:
    item = value.item()
    return f"{item:.{_SHOWN}g}" if isinstance(item, float) else str(item)


def describe(value: Any) -> str:
    """A value in a few words: a tensor by its dtype and shape.

    >>> describe(torch.ones(2, 3)), describe(5)
    ('float32 of shape (2, 3)', '5')
    """
    if isinstance(value, Tensor):
        kind = "" if _kind(value) is Tensor else f"{type(value).__name__} of "
        return f"{kind}{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def explain(error: BaseException) -> str:
    """An exception on one line, with the notes that say where it was raised.

    >>> explain(ValueError("no   such name"))
    'ValueError: no such name'
    """
    notes: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        notes += (f"({note})" for note in getattr(cause, "__notes__", ()))
        cause = cause.__cause__
    return f"{type(error).__name__}: {' '.join(' '.join([str(error), *notes]).split())}"


def replay(key: Tensor) -> str:
    """The code that makes a key.

    >>> from funcnet import random
    >>> replay(random.key(7)), replay(random.key(2**40 + 1))
    ('key=random.key(7)', 'key=random.key(1099511627777)')
    """
    high, low = (int(word) & 0xFFFFFFFF for word in key.tolist())
    return f"key=random.key({(high << 32) + low})"
