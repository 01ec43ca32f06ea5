"""Tangents of zeros are not multiplied in a compiled function, and nothing else changes."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from funcnet import _compat, hvp, jit, jvp, random, tree, vmap

KEY = random.key(11)


def normal(n, *shape):
    return random.normal(random.fold_in(KEY, n), shape)


X = normal(9, 5, 3)


def perceptron(weight, x):
    return (F.linear(x, weight).tanh() @ weight).square().sum()


def written(weight, x):
    """Zeros that become something else: the rows of a constant are written one after another."""
    rows = x.clone()
    rows[0] = weight[0]
    rows[1].mul_(weight[1].sum())
    return (rows @ weight.t()).sum() + rows.square().sum()


def kept(weight, x):
    """Sums with zeros whose other term is read again, written, and returned."""
    total = F.linear(x, weight) + weight.sum()
    other = total.mul_(2.0)
    return (total * other).sum() + (x + weight[0]).square().sum()


def images(weight, x):
    return F.conv2d(x.view(1, 1, *x.shape), weight.view(1, 1, *weight.shape), padding=2).tanh().square().sum()


def joined(weight, x):
    return torch.cat([x, weight]).softmax(-1)[0].sum() * torch.stack([x.sum(), weight.sum()]).prod()


PROGRAMS = [perceptron, written, kept, images, joined]


def products(f, *args):
    """How many matrix products and convolutions a compiled function has."""
    aten = torch.ops.aten
    graph = _compat.trace(lambda *args: tree.leaves(f(*args)), args)
    kinds = (aten.mm.default, aten.addmm.default, aten.convolution.default)
    return sum(len(graph.graph.find_nodes(op="call_function", target=kind)) for kind in kinds)


@pytest.mark.parametrize("program", PROGRAMS)
@settings(max_examples=15)
@given(rows=st.integers(2, 4), width=st.integers(2, 4), seed=st.integers(0, 99))
def test_forward_mode_is_what_it_is_in_eager_mode(program, rows, width, seed):
    weight, along, x = (normal(3 * seed + n, rows, width) for n in range(3))
    for f in (
        lambda w, v, x: jvp(lambda w: program(w, x), (w,), (v,)),
        lambda w, v, x: hvp(lambda w: program(w, x), (w,), (v,)),
        lambda w, v, x: vmap(lambda x: jvp(lambda w: program(w, x), (w,), (v,)))(torch.stack([x, 2 * x])),
    ):
        torch.testing.assert_close(jit(f, backend="aot_eager")(weight, along, x), f(weight, along, x))


def test_products_with_zero_tangents_are_left_out():
    weight, along, x = normal(0, 4, 3), normal(1, 4, 3), normal(2, 5, 3)

    def linear(x, weight):
        return F.linear(x, weight).tanh().sum()

    assert products(lambda w, v: jvp(lambda w: linear(x, w), (w,), (v,)), weight, along) == 2
    assert products(lambda w, v: hvp(lambda w: linear(x, w), (w,), (v,)), weight, along) == 3
    assert products(lambda x, v: jvp(lambda x: linear(x, weight), (x,), (v,)), x, normal(3, 5, 3)) == 2
    image, kernel = normal(4, 2, 3, 8, 8), normal(5, 4, 3, 3, 3)
    assert products(lambda k, v: jvp(lambda k: F.conv2d(image, k).sum(), (k,), (v,)), kernel, 2 * kernel) == 2


def test_tangents_that_are_written_in_a_list_are_no_zeros():
    def f(weight, along):
        tangent = jvp(lambda w: (F.linear(X, w), X * 1.0), (weight,), (along,))[1][1]
        torch._foreach_add_([tangent], [along])
        return tangent * 2

    weight, along = normal(0, 5, 3), normal(1, 5, 3)
    torch.testing.assert_close(jit(f, backend="aot_eager")(weight, along), f(weight, along))
    assert f(weight, along).any()


def test_zeros_of_the_program_are_multiplied():
    def f(weight, along):
        return jvp(lambda w: torch.zeros(2, 3) @ w, (weight,), (along,))

    def expanded(weight, along):
        return jvp(lambda w: torch.zeros((), dtype=w.dtype, device=w.device).expand(2, 3) @ w, (weight,), (along,))

    weight, along = torch.full((3, 2), float("inf")), normal(1, 3, 2)
    for g in (f, expanded):
        value, tangent = jit(g, backend="aot_eager")(weight, along)
        assert value.isnan().all()
        assert not tangent.any()
        assert not tangent.isnan().any()
