"""The report on gradients, against numbers by hand and nets whose gradients are known to vanish, explode or die."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from funcnet import Model, jit, random, tree
from funcnet.diagnostics import draw_flow, flow_numbers, gradient_flow
from funcnet.train import Precision

KEY = random.key(11)


def net_loss(net):
    def loss(params, state, batch, key):
        out, state = net.apply(params, state, batch, key=key, train=True)
        return out.square().mean(), (state, {})

    return loss


def chain(activation, depth=10, width=16):
    def built():
        blocks = [layer for _ in range(depth) for layer in (nn.Linear(width, width), activation())]
        return nn.Sequential(*blocks, nn.Linear(width, 1))

    net = Model(built)
    return net_loss(net), *net.init(KEY)


X = random.normal(random.fold_in(KEY, 1), (8, 16))


@given(seed=st.integers(0, 2**31 - 1))
def test_numbers_are_those_of_each_leaf(seed):
    keys = random.split(random.key(seed), 3)
    params = {"a": random.normal(keys[0], (3, 4)), "b": random.normal(keys[1], (4,))}
    weights = {"a": random.normal(keys[2], (3, 4)).relu(), "b": random.normal(keys[2], (4,))}

    def loss(params, state, batch, key):
        return sum((params[name] * weights[name]).sum() for name in params), (state, {})

    flow = gradient_flow(loss, params, {}, None, KEY)
    assert [row.path for row in flow.rows] == ["a", "b"]
    for row in flow.rows:
        grad, own = weights[row.path].double(), params[row.path].double()
        assert row.shape == tuple(own.shape)
        expected = (grad.norm(), grad.abs().mean(), grad.abs().max(), own.norm(), own.abs().mean(), own.abs().max())
        found = (row.norm, row.mean, row.maximum, row.parameter_norm, row.parameter_mean, row.parameter_maximum)
        assert found == pytest.approx([float(value) for value in expected], rel=1e-5)
        assert row.ratio == pytest.approx(float(grad.norm() / own.norm()), rel=1e-5)
        assert row.zeros == int((grad == 0).sum()) / grad.numel()
        assert row.nonfinite == 0
        assert row.size == pytest.approx(float(grad[grad != 0].square().mean().sqrt()), rel=1e-5)
    assert flow.loss == pytest.approx(float(loss(params, {}, None, KEY)[0]))


def test_a_deep_sigmoid_net_vanishes_and_its_verdicts_are_the_stated_ones():
    loss, params, state = chain(nn.Sigmoid)
    flow = gradient_flow(loss, params, state, X, KEY)
    assert flow.rows[0].verdict == flow.rows[1].verdict == "vanishing"
    assert flow.rows[-1].verdict == flow.rows[-3].verdict == ""
    near = sorted(row.size for row in flow.rows[-5:])[2]
    assert [row.verdict == "vanishing" for row in flow.rows] == [row.size < near / 1e3 for row in flow.rows]
    assert {row.verdict for row in gradient_flow(*chain(nn.SiLU, depth=2), X, KEY).rows} == {""}


def test_large_weights_explode():
    loss, params, state = chain(nn.Identity)
    grown = {name: 5 * leaf if name.endswith("weight") else leaf for name, leaf in params.items()}
    # Through weights of this size a gradient grows layer by layer on its way to the first, if inputs are small there.
    flow = gradient_flow(loss, grown, state, 1e-9 * X, KEY)
    assert flow.rows[1].path == "0.bias"
    assert flow.rows[1].verdict == "exploding"
    assert flow.rows[-1].verdict == ""


def test_dead_and_nonfinite_leaves_are_named():
    loss, params, state = chain(nn.ReLU, depth=3)
    dead = params | {"2.bias": torch.full_like(params["2.bias"], -1e3)}
    verdicts = {row.path: row.verdict for row in gradient_flow(loss, dead, state, X, KEY).rows}
    assert verdicts["0.weight"] == verdicts["2.weight"] == verdicts["2.bias"] == "dead"
    assert verdicts["6.bias"] == ""
    broken = params | {"4.weight": params["4.weight"].index_fill(0, torch.tensor([3]), math.nan)}
    rows = {row.path: row for row in gradient_flow(loss, broken, state, X, KEY).rows}
    assert rows["6.weight"].verdict == "non-finite"
    assert rows["6.weight"].nonfinite > 0
    assert "non-finite" in str(gradient_flow(loss, broken, state, X, KEY))


def test_rows_are_in_forward_order_whatever_that_of_the_tree():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(4, 2)
            self.unused = nn.Linear(2, 2)
            self.first = nn.Linear(16, 4)

        def forward(self, x):
            return self.last(self.first(x).tanh())

    net = Model(Crossed)
    flow = gradient_flow(net_loss(net), *net.init(KEY), X, KEY)
    order = ["first.weight", "first.bias", "last.weight", "last.bias", "unused.weight", "unused.bias"]
    assert [row.path for row in flow.rows] == order
    assert [row.verdict for row in flow.rows[4:]] == ["dead", "dead"]


def test_a_sparse_gradient_is_not_called_vanishing():
    net = Model(lambda: nn.Sequential(nn.Embedding(50_000, 2), nn.Flatten(), nn.Linear(4, 1)))
    flow = gradient_flow(net_loss(net), *net.init(KEY), torch.tensor([[3, 7]]), KEY)
    assert flow.rows[0].zeros > 0.999
    assert [row.verdict for row in flow.rows] == ["", "", ""]


def test_numbers_under_jit_and_in_half_precision():
    loss, params, state = chain(nn.Tanh, depth=2)
    value, numbers = flow_numbers(loss, params, state, X, KEY)
    traced = jit(lambda *args: flow_numbers(loss, *args), backend="aot_eager")(params, state, X, KEY)
    for a, b in zip(tree.leaves((value, numbers)), tree.leaves(traced), strict=True):
        torch.testing.assert_close(a, b)
    half = tree.cast(params, torch.bfloat16)
    policy = Precision.named("bfloat16")
    assert flow_numbers(policy.apply(loss), half, state, X, KEY)[1].norm.dtype == torch.float32


def test_the_table_and_the_picture():
    loss, params, state = chain(nn.Sigmoid)
    flow = gradient_flow(loss, params, state, X, KEY)
    lines = str(flow).splitlines()
    assert lines[0].split() == [
        "parameter",
        "shape",
        "gradient",
        "mean",
        "max",
        "of",
        "param",
        "zeros",
        "not",
        "finite",
        "verdict",
    ]
    assert len(lines) == 1 + len(params) + 2
    assert lines[-1] == f"loss {flow.loss:.4g}; of 22 leaves {sum(bool(r.verdict) for r in flow.rows)} vanishing"
    assert str(replace(flow, rows=flow.rows[-1:])).endswith("of 1 leaves none is amiss")
    (axes,) = draw_flow(flow).axes
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_yticklabels()] == list(params)
    assert sorted(bar.get_width() for bar in axes.patches) == pytest.approx(sorted(row.size for row in flow.rows))
    dead = replace(flow.rows[0], norm=0.0, zeros=1.0, verdict="dead")
    assert len(draw_flow(replace(flow, rows=(dead, *flow.rows[1:]))).axes[0].patches) == 21


def test_no_parameters():
    with pytest.raises(ValueError, match="gradient_flow needs parameters, and params has no leaf"):
        gradient_flow(lambda *_: (torch.ones(()), ({}, {})), {}, {}, X, KEY)
