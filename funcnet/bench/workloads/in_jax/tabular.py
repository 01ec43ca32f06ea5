"""Networks over plain features, in jax."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from funcnet.bench.workloads.in_jax.layers import Arrays, Net, linear, prepared

__all__ = ["dlrm", "mlp"]


def perceptron(params: Arrays, prefix: str, layers: int, x: Array) -> Array:
    """Linear layers with ReLU in between, named as in an `nn.Sequential`."""
    for i in range(layers):
        x = linear(params, f"{prefix}{2 * i}", x)
        x = jax.nn.relu(x) if i < layers - 1 else x
    return x


def mlp(settings: Mapping[str, Any]) -> Net:
    """Linear layers with ReLU in between."""

    def apply(params: Arrays, state: Arrays, x: Array, *, train: bool) -> tuple[Array, Arrays]:
        return perceptron(params, "", len(settings["widths"]) - 1, x), state

    return Net(prepared(), apply)


def dlrm(settings: Mapping[str, Any]) -> Net:
    """Embeddings, and the dot products of all pairs."""
    tables = [f"embeddings.{i}.weight" for i in range(settings["tables"])]
    rows, columns = np.tril_indices(len(tables) + 1, -1)

    def apply(params: Arrays, state: Arrays, dense: Array, categories: Array, *, train: bool) -> tuple[Array, Arrays]:
        low = jax.nn.relu(perceptron(params, "bottom.0.", len(settings["bottom"]), dense))
        looked_up = [params[table][categories[:, i]] for i, table in enumerate(tables)]
        vectors = jnp.stack([low, *looked_up], 1)
        dots = jnp.einsum("bif,bjf->bij", vectors, vectors)[:, rows, columns]
        logits = perceptron(params, "top.", len(settings["top"]) + 1, jnp.concatenate([low, dots], 1))
        return logits[:, 0], state

    return Net(prepared(tables), apply)
