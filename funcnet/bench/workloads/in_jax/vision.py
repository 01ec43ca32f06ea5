"""Networks over images, in jax: channels last, and pooling in the forms whose gradients XLA computes fast on CPUs."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from funcnet.bench.workloads.in_jax.layers import (
    Arrays,
    Given,
    Net,
    attention,
    batch_norm,
    conv,
    gelu,
    laid_out,
    layer_norm,
    linear,
    moved,
    product,
)

__all__ = ["cnn", "resnet", "vit"]


def cnn(settings: Mapping[str, Any]) -> Net:
    """Stages of convolution, BatchNorm, ReLU and a halving MaxPool, and a linear layer."""
    stages = len(settings["channels"]) - 1
    channels, side = settings["channels"][-1], settings["side"] // 2**stages
    head = f"{4 * stages + 1}.weight"

    def prepare(params: Given, state: Given, inputs: tuple[Any, ...]) -> tuple[Arrays, Arrays, tuple[Array, ...]]:
        # The head reads channels last.
        ordered = params[head].reshape(-1, channels, side, side).transpose(0, 2, 3, 1).reshape(len(params[head]), -1)
        return laid_out({**params, head: ordered}), laid_out(state), channels_last(inputs)

    def apply(params: Arrays, state: Arrays, x: Array, *, train: bool) -> tuple[Array, Arrays]:
        after = dict(state)
        for i in range(0, 4 * stages, 4):
            x = batch_norm(params, state, after, f"{i + 1}", conv(params, f"{i}", x, padding=1), train)
            x = halved(jax.nn.relu(x))
        return linear(params, head.removesuffix(".weight"), x.reshape(len(x), -1)), after

    return Net(prepare, apply)


def resnet(settings: Mapping[str, Any]) -> Net:
    """torchvision's ResNet."""
    convolutions = 3 if settings["bottleneck"] else 2

    def prepare(params: Given, state: Given, inputs: tuple[Any, ...]) -> tuple[Arrays, Arrays, tuple[Array, ...]]:
        return laid_out(params), laid_out(state), channels_last(inputs)

    def apply(params: Arrays, state: Arrays, x: Array, *, train: bool) -> tuple[Array, Arrays]:
        after = dict(state)

        def normal(name: str, x: Array) -> Array:
            return batch_norm(params, state, after, name, x, train)

        x = jax.nn.relu(normal("bn1", conv(params, "conv1", x, stride=2, padding=3)))
        padding = ((0, 0), (1, 1), (1, 1), (0, 0))
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)
        for stage, blocks in enumerate(settings["layers"], 1):
            for block in range(blocks):
                name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
                short = x
                if f"{name}.downsample.0.weight" in params:
                    short = normal(f"{name}.downsample.1", conv(params, f"{name}.downsample.0", x, stride=stride))
                for i in range(1, convolutions + 1):
                    # The stride is in the first 3x3 convolution: the second of a bottleneck, the first of a basic one.
                    wide = not settings["bottleneck"] or i == 2
                    strided = stride if i == (2 if settings["bottleneck"] else 1) else 1
                    x = normal(f"{name}.bn{i}", conv(params, f"{name}.conv{i}", x, stride=strided, padding=int(wide)))
                    x = jax.nn.relu(x if i < convolutions else x + short)
        return linear(params, "fc", x.mean((1, 2))), after

    return Net(prepare, apply)


def vit(settings: Mapping[str, Any]) -> Net:
    """torchvision's vision transformer."""
    patch, heads, width = settings["patch"], settings["heads"], settings["width"]

    def prepare(params: Given, state: Given, inputs: tuple[Any, ...]) -> tuple[Arrays, Arrays, tuple[Array, ...]]:
        params = dict(params)
        # A convolution whose stride is its size is a product of patches, (row, column, channel), and a matrix.
        params["conv_proj.weight"] = params["conv_proj.weight"].transpose(0, 2, 3, 1).reshape(width, -1)
        return laid_out(params), laid_out(state), channels_last(inputs)

    def apply(params: Arrays, state: Arrays, x: Array, *, train: bool) -> tuple[Array, Arrays]:
        count, height, breadth, channels = x.shape
        x = x.reshape(count, height // patch, patch, breadth // patch, patch, channels).transpose(0, 1, 3, 2, 4, 5)
        x = linear(params, "conv_proj", x.reshape(count, -1, patch * patch * channels))
        first = jnp.broadcast_to(params["class_token"], (count, 1, width))
        x = jnp.concatenate([first, x], 1) + params["encoder.pos_embedding"]
        for i in range(settings["layers"]):
            name = f"encoder.layers.encoder_layer_{i}"
            mixer = f"{name}.self_attention"
            y = product(layer_norm(params, f"{name}.ln_1", x, 1e-6), params[f"{mixer}.in_proj_weight"])
            y = attention(y + params[f"{mixer}.in_proj_bias"], heads, causal=False)
            x = x + linear(params, f"{mixer}.out_proj", y)
            y = layer_norm(params, f"{name}.ln_2", x, 1e-6)
            x = x + linear(params, f"{name}.mlp.3", gelu(linear(params, f"{name}.mlp.0", y)))
        return linear(params, "heads.head", layer_norm(params, "encoder.ln", x[:, 0], 1e-6)), state

    return Net(prepare, apply)


def channels_last(inputs: tuple[Any, ...]) -> tuple[Array, ...]:
    """Images NCHW to NHWC."""
    return tuple(moved(np.transpose(value, (0, 2, 3, 1))) for value in inputs)


def halved(x: Array) -> Array:
    """The largest of each 2x2 square; lax.reduce_window's gradient takes 15 times as long on a CPU."""
    count, height, width, channels = x.shape
    squares = x.reshape(count, height // 2, 2, width // 2, 2, channels)
    rows = jnp.maximum(squares[:, :, 0], squares[:, :, 1])
    return jnp.maximum(rows[:, :, :, 0], rows[:, :, :, 1])
