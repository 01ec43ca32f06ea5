"""A language model in jax."""

from collections.abc import Mapping
from typing import Any

import jax
from jax import Array

from funcnet.bench.workloads.in_jax.layers import Arrays, Net, attention, layer_norm, linear, prepared, product

__all__ = ["gpt"]


def gpt(settings: Mapping[str, Any]) -> Net:
    """Tokens to logits of the next one; the embedding is the head's kernel as well."""

    def apply(params: Arrays, state: Arrays, tokens: Array, *, train: bool) -> tuple[Array, Arrays]:
        x = params["tokens.weight"][tokens] + params["positions.weight"][: tokens.shape[1]]
        for i in range(settings["layers"]):
            name = f"blocks.{i}"
            y = linear(params, f"{name}.qkv", layer_norm(params, f"{name}.before_attention", x))
            x = x + linear(params, f"{name}.project", attention(y, settings["heads"], causal=True))
            y = linear(params, f"{name}.expand", layer_norm(params, f"{name}.before_mlp", x))
            x = x + linear(params, f"{name}.contract", jax.nn.gelu(y, approximate=True))
        return product(layer_norm(params, "last", x), params["tokens.weight"].T), state

    return Net(prepared(["tokens.weight", "positions.weight"]), apply)
