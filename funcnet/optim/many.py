"""Many leaves as one value, so that a rule written for one leaf runs on all of them, an operation at a time.

In eager steps a tree of small leaves costs what its operations cost to launch. `Many` launches each once for the whole
tree, through torch's `_foreach_` kernels where it has one, and leaf by leaf where it has none: the rule stays the same.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from .. import _compat

__all__ = ["Many"]


def _operator(name: str) -> Callable[["Many", Any], "Many"]:
    def method(many: "Many", other: Any) -> "Many":
        return many._with(other, name)

    return method


class Many:
    """Tensors of one dtype, with the arithmetic of one tensor. Made by `each` alone."""

    __slots__ = ("leaves",)

    def __init__(self, leaves: Sequence[Tensor]) -> None:
        """Take the leaves."""
        self.leaves = leaves

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> "Many":
        """Any function of torch: its kernel for many tensors, else leaf by leaf."""
        kernel = _compat.foreach(getattr(func, "__name__", "")) if not kwargs and len(args) == 1 else None
        if kernel is not None:
            return cls(kernel(args[0].leaves))
        length = next(len(arg.leaves) for arg in args if isinstance(arg, cls))
        columns = [arg.leaves if isinstance(arg, cls) else [arg] * length for arg in args]
        return cls([func(*row, **(kwargs or {})) for row in zip(*columns, strict=True)])

    def _with(self, other: Any, name: str) -> "Many":
        right = other.leaves if isinstance(other, Many) else other
        if isinstance(right, Tensor) and right.device.type == "cpu" and not right.requires_grad:
            right = right.item()  # which costs nothing here, and kernels take numbers
        kernel = _compat.foreach("div" if name == "truediv" else name)
        if kernel is not None and not isinstance(right, Tensor):
            return Many(kernel(self.leaves, right))
        function = getattr(operator, name)
        rights = right if isinstance(other, Many) else [right] * len(self.leaves)
        return Many([function(a, b) for a, b in zip(self.leaves, rights, strict=True)])

    __add__ = __radd__ = _operator("add")
    __mul__ = __rmul__ = _operator("mul")
    __sub__ = _operator("sub")
    __truediv__ = _operator("truediv")
    __pow__ = _operator("pow")
    __lt__ = _operator("lt")
    __le__ = _operator("le")
    __gt__ = _operator("gt")
    __ge__ = _operator("ge")

    def __rsub__(self, other: Any) -> "Many":
        """`other - self`."""
        return self._with(-1, "mul")._with(other, "add")

    def __rtruediv__(self, other: Any) -> "Many":
        """`other / self`."""
        return Many([other / leaf for leaf in self.leaves])

    def __neg__(self) -> "Many":
        """Minus every leaf."""
        return self._with(-1, "mul")
