"""Keys, shapes, dtypes, tensors and trees of them."""

from typing import Any, Literal

import torch
from hypothesis import strategies as st
from torch import Tensor

from funcnet import random

__all__ = ["dtypes", "keys", "shapes", "tensors", "trees"]

Shape = tuple[int, ...]
Kind = Literal["floating", "complex", "integer", "boolean"]

_DTYPES: dict[str, tuple[torch.dtype, ...]] = {
    "floating": (torch.float32, torch.float64, torch.bfloat16, torch.float16),
    "complex": (torch.complex64, torch.complex128),
    "integer": (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
    "boolean": (torch.bool,),
}
_INTEGERS = 10  # whole numbers are drawn below it: small enough to be an index or a token


def keys() -> st.SearchStrategy[Tensor]:
    """Keys; they shrink to `random.key(0)`.

    >>> from hypothesis import find
    >>> find(keys(), lambda key: True)
    tensor([0, 0], dtype=torch.int32)
    """
    return st.integers(0, 2**64 - 1).map(random.key)


def shapes(*, min_dims: int = 0, max_dims: int = 3, min_side: int = 1, max_side: int = 4) -> st.SearchStrategy[Shape]:
    """Shapes; `min_side=0` draws tensors without elements too."""
    return st.lists(st.integers(min_side, max_side), min_size=min_dims, max_size=max_dims).map(tuple)


def dtypes(*kinds: Kind) -> st.SearchStrategy[torch.dtype]:
    """Dtypes of the given kinds; default `"floating"`, of which float32 is the simplest."""
    return st.sampled_from([dtype for kind in kinds or ("floating",) for dtype in _DTYPES[kind]])


@st.composite
def tensors(
    draw: st.DrawFn,
    shape: Shape | st.SearchStrategy[Shape] | None = None,
    dtype: torch.dtype | st.SearchStrategy[torch.dtype] = torch.float32,
    *,
    values: Literal["finite", "extreme", "special"] = "finite",
    contiguous: bool = False,
) -> Tensor:
    """Tensors whose numbers come from a drawn key.

    Args:
        draw: Hypothesis's own; not to be passed.
        shape: a shape, or a strategy of shapes. Default `shapes()`.
        dtype: a dtype, or a strategy of dtypes.
        values: `"finite"` draws standard normal numbers (whole numbers from 0 to 9); `"extreme"` mixes in zeros of both
            signs, the largest, the smallest and subnormal numbers of the dtype; `"special"` infinities and NaN as well.
        contiguous: whether to draw contiguous tensors only; else there are transposed and strided ones, and some with
            an offset.

    >>> from hypothesis import find
    >>> find(tensors((3,)), lambda x: True)
    tensor([ 1.6226,  2.0253, -0.4336])
    """
    size: Shape = draw(shape) if isinstance(shape, st.SearchStrategy) else draw(shapes()) if shape is None else shape
    kind = draw(dtype) if isinstance(dtype, st.SearchStrategy) else dtype
    key = draw(keys())
    layout = "contiguous" if contiguous else draw(st.sampled_from(["contiguous", "transposed", "strided", "offset"]))
    value = _numbers(key, size, kind)
    if values != "finite" and (kind.is_floating_point or kind.is_complex):
        value = _with_extremes(key, value, special=values == "special")
    return _laid_out(value, layout)


def _numbers(key: Tensor, shape: Shape, dtype: torch.dtype) -> Tensor:
    if dtype == torch.bool:
        return random.bernoulli(key, 0.5, shape)
    if dtype.is_complex:
        return torch.complex(*(random.normal(part, shape, torch.float64) for part in random.split(key))).to(dtype)
    if dtype.is_floating_point:
        return random.normal(key, shape).to(dtype)
    return random.randint(key, shape, 0, _INTEGERS).to(dtype)


def _with_extremes(key: Tensor, value: Tensor, special: bool) -> Tensor:
    """Half of the numbers replaced."""
    info = torch.finfo(value.dtype)
    extremes = [0.0, -0.0, info.max, info.min, info.tiny, info.tiny / 4, info.eps, 1.0, -1.0]
    if special:
        extremes += [float("inf"), float("-inf"), float("nan")]
    where, which = random.split(random.fold_in(key, 1))
    table = torch.tensor(extremes, dtype=torch.float64).to(value.dtype)
    chosen = table[random.randint(which, value.shape, 0, len(extremes)).to(torch.int64)]
    return torch.where(random.bernoulli(where, 0.5, value.shape), chosen, value)


def _laid_out(value: Tensor, layout: str) -> Tensor:
    """The same numbers in another order of memory."""
    if value.ndim == 0 or layout == "contiguous":
        return value
    if layout == "transposed":
        axes = tuple(reversed(range(value.ndim)))
        return value.permute(axes).contiguous().permute(axes)
    if layout == "strided":
        return torch.stack([value, torch.zeros_like(value)], -1)[..., 0]
    return torch.cat([torch.zeros_like(value[:1]), value])[1:] if value.shape[0] else value


def trees(leaves: st.SearchStrategy[Any] | None = None, *, max_leaves: int = 6) -> st.SearchStrategy[Any]:
    """Pytrees: dicts by name, lists, tuples and None around leaves.

    Args:
        leaves: what the leaves are. Default `tensors()`.
        max_leaves: roughly how many there are at most.
    """
    names = st.sampled_from(["weight", "bias", "a", "b", "layer"])
    return st.recursive(
        tensors() if leaves is None else leaves,
        lambda inner: st.one_of(
            st.dictionaries(names, inner | st.none(), max_size=3),
            st.lists(inner, max_size=3),
            st.tuples(inner, inner),
        ),
        max_leaves=max_leaves,
    )
