"""Layers and losses as functions of a dict of arrays by torch's names, with kernels in jax's layout."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ["Arrays", "Net", "bce_with_logits", "cross_entropy", "laid_out", "linear", "prepared"]

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
    value = np.ascontiguousarray(value)
    return jnp.array(value.astype(np.int32) if value.dtype == np.int64 else value)


def prepared(keep: Collection[str] = ()) -> Callable[[Given, Given, tuple[Any, ...]], Any]:
    """The `prepare` of a network whose kernels are transposed and whose inputs stay as they are."""

    def prepare(params: Given, state: Given, inputs: tuple[Any, ...]) -> tuple[Arrays, Arrays, tuple[Array, ...]]:
        return laid_out(params, keep), laid_out(state), tuple(moved(value) for value in inputs)

    return prepare


def linear(params: Arrays, name: str, x: Array) -> Array:
    """`(..., in)` to `(..., out)`."""
    return x @ params[f"{name}.weight"] + params[f"{name}.bias"]


def cross_entropy(output: Array, target: Array) -> Array:
    """The mean cross entropy of logits `(..., classes)` and classes `(...)`, in float32."""
    output = output.astype(jnp.float32)
    right = jnp.take_along_axis(output, target[..., None], -1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(output, -1) - right)


def bce_with_logits(output: Array, target: Array) -> Array:
    """The mean binary cross entropy of logits and probabilities of one shape, in float32."""
    output = output.astype(jnp.float32)
    return jnp.mean(jax.nn.softplus(output) - output * target)
