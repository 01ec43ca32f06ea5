"""Counting the work of a call, if need be on tensors without values."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor

Shape = tuple[int, ...]


@contextmanager
def fake_mode() -> Iterator[None]:
    """A context in which tensors have shapes and strides but no memory, and kernels are chosen as on the CPU.

    Torch logs a kernel's refusal of its arguments before it raises it; that is kept from the log. Checked on 2.15.0.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode  # brings sympy

    thread, log = threading.get_ident(), logging.getLogger("torch._subclasses.fake_tensor")

    def elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != thread

    log.addFilter(elsewhere)
    try:
        with FakeTensorMode():
            yield
    finally:
        log.removeFilter(elsewhere)


def storage_of(tensor: Tensor) -> tuple[int, int]:
    """The identity of a tensor's memory while that is alive, and its bytes; fake tensors have both.

    Checked on 2.15.0.
    """
    storage = tensor.untyped_storage()
    return storage._cdata, storage.nbytes()


class FlopCounter:
    """Counts FLOPs by where they arise, with torch's counter and what that leaves out or gets wrong.

    One multiplication with its addition is 2 FLOPs; elementwise work is none. Torch counts 0 for matrix times vector,
    `bilinear` and oneDNN's recurrent kernel (2.11 for the CPU's attention as well), and takes the weight gradient of a
    grouped convolution for that of a full one. `mod_tracker` is where its counter asks for the module; names of kernels
    that a version lacks are skipped. Checked on 2.11.0 and 2.15.0.
    """

    def __init__(self, where: Callable[[], tuple[str, str]]) -> None:
        """Count under what `where()` says at the time."""
        self._mode = _torch_counter()
        self._mode.mod_tracker = _Tracker(where)

    def __enter__(self) -> "FlopCounter":
        """Start to count."""
        self._mode.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        """Stop."""
        self._mode.__exit__(*exception)

    def counts(self) -> dict[tuple[str, str], int]:
        """The FLOPs of each place."""
        return {where: sum(by_kernel.values()) for where, by_kernel in self._mode.get_flop_counts().items()}


def _torch_counter() -> Any:
    from torch.utils.flop_counter import FlopCounterMode  # brings sympy

    aten = torch.ops.aten
    mapping = {getattr(aten, name): formula for name, formula in _FORMULAS.items() if hasattr(aten, name)}
    return FlopCounterMode(display=False, custom_mapping=mapping)


class _Tracker:
    def __init__(self, where: Callable[[], tuple[str, str]]) -> None:
        self._where = where

    def __enter__(self) -> None: ...

    def __exit__(self, *exception: Any) -> None: ...

    @property
    def parents(self) -> set[tuple[str, str]]:
        return {self._where()}


def _matrix_vector(matrix: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(matrix)


def _added_matrix_vector(_: Shape, matrix: Shape, *__: Any, **___: Any) -> int:
    return 2 * prod(matrix)


def _inner(a: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(a)


def _added_batches(_: Shape, a: Shape, b: Shape, *__: Any, **___: Any) -> int:
    return 2 * prod(a) * b[-1]


def _trilinear(a: Shape, b: Shape, c: Shape, *expand: Any, **_: Any) -> int:
    """Each term is a product of three, added up."""

    def full(shape: Shape, dims: list[int]) -> list[int]:
        sizes = list(shape)
        for dim in dims:
            sizes.insert(dim, 1)
        return sizes

    shapes = [full(shape, dims) for shape, dims in zip((a, b, c), expand, strict=False)]
    terms: int = prod(max(sizes) for sizes in zip(*shapes, strict=True))
    return 3 * terms


def _recurrent(x: Shape, w_ih: Shape, w_hh: Shape, *_: Any, **__: Any) -> int:
    """Both matrices meet every element of every sequence once."""
    return 2 * prod(x[:-1]) * (prod(w_ih) + prod(w_hh))


def _recurrent_backward(x: Shape, w_ih: Shape, w_hh: Shape, *_: Any, **__: Any) -> int:
    """The kernel computes the gradients of inputs and of weights, each as long as the forward."""
    return 2 * _recurrent(x, w_ih, w_hh)


def _convolution_backward(
    grad: Shape,
    x: Shape,
    weight: Shape,
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    mask: list[bool],
    **_: Any,
) -> int:
    """The gradients of input and weight take the forward's products each: every weight at every position."""
    positions = x if transposed else grad
    return (mask[0] + mask[1]) * 2 * positions[0] * prod(positions[2:]) * prod(weight)


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Scores of every query with every key, and sums of values."""
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _attention_backward(_grad: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """The scores again, and a product for the gradient of each: scores, values, queries, keys."""
    return 2 * prod(query[:-1]) * key[-2] * (3 * query[-1] + 2 * value[-1])


_FORMULAS: dict[str, Callable[..., int]] = {
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
    "mv": _matrix_vector,
    "addmv": _added_matrix_vector,
    "dot": _inner,
    "vdot": _inner,
    "addbmm": _added_batches,
    "_trilinear": _trilinear,
    "mkldnn_rnn_layer": _recurrent,
    "mkldnn_rnn_layer_backward": _recurrent_backward,
    "convolution_backward": _convolution_backward,
}
