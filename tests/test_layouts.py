"""Layouts that torch's products and Inductor's convolutions are slow in, and nobody asked for."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from funcnet import Model, _compat, grad, jit, jvp, random, vmap
from funcnet._compat.compiler import _gains_from_channels_last

KEY = random.key(5)


class Mixer(nn.Module):
    """A layer over the transposed input."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(6, 5, dtype=torch.float64)

    def forward(self, x):
        return torch.tanh(self.mix(x.transpose(1, 2)))


def products(model, *inputs):
    """The matrix products of an evaluation, by name."""
    params, state = model.init(KEY)
    names = list(params)
    graph = _compat.trace(
        lambda *ts: [model(dict(zip(names, ts[len(inputs) :], strict=True)), state, *ts[: len(inputs)])],
        [*inputs, *params.values()],
    )
    return [n.target._opname for n in graph.graph.nodes if n.op == "call_function" and "mm" in str(n.target)]


def test_a_transposed_input_makes_one_product():
    x = random.normal(KEY, (3, 6, 4)).double()
    assert products(Model(Mixer), x) == ["addmm"]


def test_attention_starts_with_one_product():
    model = Model(nn.TransformerEncoderLayer, 8, 2, 16, dropout=0.0, batch_first=True)
    found = products(model, random.normal(KEY, (3, 5, 8)))
    # In, out, and two of the feed-forward part; a batch's products are attention's own.
    assert found.count("addmm") == 4


def test_the_result_is_the_modules_own_with_all_its_derivatives():
    model = Model(Mixer)
    params, state = model.init(KEY)
    x = random.normal(KEY, (3, 6, 4)).double()
    module = model.bind(params, state)
    assert_close(model(params, state, x), module(x).detach())
    module(x).sum().backward()
    grads = grad(lambda p: model(p, state, x).sum())(params)
    assert_close(grads["mix.weight"], module.mix.weight.grad)
    each = vmap(lambda row: model(params, state, row[None])[0])(x)
    assert_close(each, module(x).detach())
    tangent = jvp(lambda x: model(params, state, x), (x,), (torch.cos(x),))[1]
    expected = torch.func.jvp(lambda x: torch.func.functional_call(module, params, x), (x,), (torch.cos(x),))[1]
    assert_close(tangent, expected)


@pytest.mark.parametrize(("side", "train", "gains"), [(16, False, True), (2, False, False), (16, True, False)])
def test_images_are_turned_where_they_outweigh_the_weights(side, train, gains):
    def run(x, w):
        return [grad(lambda w: F.conv2d(x, w, padding=1).square().sum())(w) if train else F.conv2d(x, w, padding=1)]

    x, w = random.normal(KEY, (2, 8, side, side)), random.normal(KEY, (8, 8, 3, 3))
    assert _gains_from_channels_last(_compat.trace(run, [x, w])) is gains


@pytest.mark.slow
@pytest.mark.parametrize("side", [2, 16])
def test_compiled_convolutions_are_the_same_in_either_layout(side):
    x, w = random.normal(KEY, (2, 8, side, side)), random.normal(KEY, (8, 8, 3, 3))
    f = lambda x, w: torch.relu(F.conv2d(x, w, padding=1))  # noqa: E731
    assert_close(jit(f)(x, w), f(x, w), rtol=1e-5, atol=1e-5)
