"""Layers and losses as functions of a dict of arrays by torch's names, with kernels in jax's layout."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

__all__ = [
    "Arrays",
    "Given",
    "Net",
    "attention",
    "batch_norm",
    "bce_with_logits",
    "conv",
    "cross_entropy",
    "gelu",
    "laid_out",
    "layer_norm",
    "linear",
    "moved",
    "platform",
    "prepared",
    "product",
    "widened",
    "written_for",
]

Arrays: TypeAlias = dict[str, Array]
Given: TypeAlias = Mapping[str, "np.ndarray[Any, Any]"]


class Net(NamedTuple):
    """A network in jax."""

    prepare: Callable[[Given, Given, tuple[Any, ...]], tuple[Arrays, Arrays, tuple[Array, ...]]]
    """Torch's parameters, state and inputs in jax's layouts: done once, outside the step. Linear in the parameters,
    so that it lays out gradients as well."""
    apply: Callable[..., tuple[Array, Arrays]]
    """`(params, state, *inputs, train)` to the output and the new state."""


def laid_out(values: Given, keep: Collection[str] = ()) -> Arrays:
    """Kernels transposed: `(out, in)` to `(in, out)`, and OIHW to HWIO.

    Args:
        values: arrays by torch's names.
        keep: names of matrices that stay as they are (embeddings).
    """
    arrays = {}
    for name, value in values.items():
        if value.ndim == 4:
            value = value.transpose(2, 3, 1, 0)
        elif value.ndim == 2 and name not in keep:
            value = value.T
        arrays[name] = moved(value)
    return arrays


def moved(value: "np.ndarray[Any, Any]") -> Array:
    """An array of jax's own, never torch's memory (which a donating step would write); int64 becomes int32."""
    value = np.asarray(value, order="C")
    return jnp.array(value.astype(np.int32) if value.dtype == np.int64 else value)


def widened(x: Array) -> Array:
    """Float32 at least."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


_platform: ContextVar[str | None] = ContextVar("_platform", default=None)


@contextmanager
def written_for(platform: str) -> Iterator[None]:
    """A context in which functions are traced for a platform, "cpu" or "gpu".

    `jax.default_device` would not do: a function that is called outside of that context is traced once more.
    """
    before = _platform.set(platform)
    try:
        yield
    finally:
        _platform.reset(before)


def platform() -> str:
    """What layers are written for: by default the platform that jax prefers, which need not be that of the arrays."""
    return _platform.get() or jax.default_backend()


def prepared(keep: Collection[str] = ()) -> Callable[[Given, Given, tuple[Any, ...]], Any]:
    """The `prepare` of a network whose kernels are transposed and whose inputs stay as they are."""

    def prepare(params: Given, state: Given, inputs: tuple[Any, ...]) -> tuple[Arrays, Arrays, tuple[Array, ...]]:
        return laid_out(params, keep), laid_out(state), tuple(moved(value) for value in inputs)

    return prepare


def linear(params: Arrays, name: str, x: Array) -> Array:
    """`(..., in)` to `(..., out)`."""
    return product(x, params[f"{name}.weight"]) + params[f"{name}.bias"]


def product(x: Array, kernel: Array) -> Array:
    """`(..., in) @ (in, out)` over one axis of rows: with two, the kernel's gradient takes longer on a CPU.

    A GPT's step took 0.79 of the time, on two cores.
    """
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], -1)


def conv(params: Arrays, name: str, x: Array, *, stride: int = 1, padding: int = 0) -> Array:
    """A convolution without bias, NHWC; as a matrix product where XLA's own is slow on a CPU."""
    kernel = params[f"{name}.weight"]
    if kernel.shape[:2] == (1, 1):
        return product(x[:, ::stride, ::stride], kernel[0, 0])
    # On two cores, with gradients: 0.8 of XLA's own time for images of 8x8, and 0.04 for 2x2.
    if platform() == "cpu" and x.shape[1] <= 8 * stride:
        return as_product(x, kernel, stride, padding)
    sides = ((padding, padding), (padding, padding))
    return lax.conv_general_dilated(x, kernel, (stride, stride), sides, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def as_product(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """A convolution of square kernels: the shifted images side by side, times the kernel as a matrix."""
    side = len(kernel)
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = ((size - side) // stride + 1 for size in x.shape[1:3])
    rows = (slice(i, i + stride * (height - 1) + 1, stride) for i in range(side))
    shifted = [x[:, row, j : j + stride * (width - 1) + 1 : stride] for row in rows for j in range(side)]
    return product(jnp.concatenate(shifted, -1), kernel.reshape(-1, kernel.shape[-1]))


def batch_norm(params: Arrays, state: Arrays, after: Arrays, name: str, x: Array, train: bool) -> Array:
    """BatchNorm over all axes but the last; in training, torch's new statistics go to `after`."""
    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    if train:
        old, count = (mean, variance), x.size // x.shape[-1]
        wide = widened(x)
        mean = wide.mean((0, 1, 2))
        variance = jnp.square(wide).mean((0, 1, 2)) - jnp.square(mean)  # in one pass over x
        after[f"{name}.running_mean"] = (0.9 * old[0] + 0.1 * mean).astype(old[0].dtype)
        after[f"{name}.running_var"] = (0.9 * old[1] + 0.1 * count / (count - 1) * variance).astype(old[1].dtype)
        after[f"{name}.num_batches_tracked"] = state[f"{name}.num_batches_tracked"] + 1
    scale = lax.rsqrt(variance + 1e-5) * params[f"{name}.weight"]
    # One multiplication and one addition for each element: 0.72 of the cnn's time with (x - mean) * scale + bias.
    return (x * scale + (params[f"{name}.bias"] - mean * scale)).astype(x.dtype)


def layer_norm(params: Arrays, name: str, x: Array, epsilon: float = 1e-5) -> Array:
    """LayerNorm over the last axis, in float32 at least."""
    wide = widened(x)
    mean = wide.mean(-1, keepdims=True)
    variance = jnp.square(wide).mean(-1, keepdims=True) - jnp.square(mean)  # in one pass over x
    wide = (wide - mean) * lax.rsqrt(variance + epsilon)
    return (wide * params[f"{name}.weight"] + params[f"{name}.bias"]).astype(x.dtype)


def attention(qkv: Array, heads: int, *, causal: bool) -> Array:
    """Attention of `(batch, length, 3 * width)`, queries, keys and values side by side, to `(batch, length, width)`."""
    batch, length, _ = qkv.shape
    q, k, v = jnp.moveaxis(qkv.reshape(batch, length, 3, heads, -1), 2, 0)
    if platform() == "gpu" and qkv.dtype in (jnp.bfloat16, jnp.float16):
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=causal, implementation="cudnn")
    else:  # a third faster on a CPU than what dot_product_attention does there
        q, k, v = (part.swapaxes(1, 2) for part in (q, k, v))
        scores = widened(q @ k.swapaxes(-1, -2)) * q.shape[-1] ** -0.5
        if causal:
            scores = jnp.where(np.tril(np.ones((length, length), bool)), scores, -jnp.inf)
        mixed = (jax.nn.softmax(scores, -1).astype(v.dtype) @ v).swapaxes(1, 2)
    return mixed.reshape(batch, length, -1)


def gelu(x: Array) -> Array:
    """The exact GELU; jax.nn's, through erfc, takes a third longer on a CPU."""
    return 0.5 * x * (1 + lax.erf(x * 0.5**0.5))


def cross_entropy(output: Array, target: Array) -> Array:
    """The mean cross entropy of logits `(..., classes)` and classes `(...)`, in float32 at least."""
    output = widened(output)
    right = jnp.take_along_axis(output, target[..., None], -1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(output, -1) - right)


def bce_with_logits(output: Array, target: Array) -> Array:
    """The mean binary cross entropy of logits and probabilities of one shape, in float32 at least."""
    output = widened(output)
    return jnp.mean(jax.nn.softplus(output) - output * target)
