"""Products of compiled graphs: who computes them, and that they stay what they were."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from funcnet import _compat, grad, jit, random
from funcnet._compat import products
from funcnet._compat.products import PRODUCT, use_products

KEY = random.key(7)
MM, ADDMM = torch.ops.aten.mm.default, torch.ops.aten.addmm.default


def normal(n, *shape, dtype=torch.float32):
    return random.normal(random.fold_in(KEY, n), shape, dtype=dtype)


def traced(f, *args):
    """The graph of core operators that Inductor would be given."""
    from torch._inductor.decomposition import select_decomp_table

    return make_fx(f, select_decomp_table())(*args)


def targets(graph):
    return [node.target for node in graph.graph.nodes if node.target in (MM, ADDMM, PRODUCT)]


def sums(graph):
    """How many tables of zeros there are, and how many sums."""
    kinds = (torch.ops.aten.full.default, torch.ops.aten.add.Tensor)
    return [len(graph.graph.find_nodes(op="call_function", target=kind)) for kind in kinds]


@pytest.fixture
def amd(monkeypatch):
    """A processor on which oneDNN is faster."""
    monkeypatch.setattr(products, "_gains", lambda: True)


def layer(w, b, x):
    return F.linear(x, w, b).tanh().square().sum()


SIZES = {"w": (256, 300), "b": (256,), "x": (64, 300)}


@pytest.mark.usefixtures("amd")
def test_products_with_a_weight_are_onednns_and_its_gradient_stays():
    args = [normal(i, *shape) for i, shape in enumerate(SIZES.values())]
    graph = traced(grad(layer, (0, 1, 2)), *args)
    expected = graph(*args)
    before = targets(graph)
    use_products(graph)
    assert sorted(map(str, before)) == sorted(map(str, [ADDMM, MM, MM]))
    assert sorted(map(str, targets(graph))) == sorted(map(str, [PRODUCT, PRODUCT, MM]))
    torch.testing.assert_close(graph(*args), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("case", "args"),
    {
        "small": (normal(1, 16, 30), normal(2, 8, 30)),
        "float64": (normal(1, 64, 300, dtype=torch.float64), normal(2, 256, 300, dtype=torch.float64)),
        "bfloat16": (normal(1, 64, 300).bfloat16(), normal(2, 256, 300).bfloat16()),
        "transposed rows": (normal(1, 300, 64).t(), normal(2, 256, 300)),
        "one feature": (normal(1, 4000, 1), normal(2, 4000, 1)),
        "strided weight": (normal(1, 64, 300), normal(2, 256, 600)[:, ::2]),
    }.items(),
)
@pytest.mark.usefixtures("amd")
def test_other_products_stay(case, args):
    graph = traced(F.linear, *args)
    before = targets(graph)
    use_products(graph)
    assert targets(graph) == before == [MM], case


@pytest.mark.usefixtures("amd")
def test_torchs_own_switch_is_heeded():
    graph = traced(F.linear, normal(1, 64, 300), normal(2, 256, 300))
    before = torch.backends.mkldnn.set_flags(_enabled=False)[0]
    try:
        use_products(graph)
    finally:
        torch.backends.mkldnn.set_flags(_enabled=before)
    assert targets(graph) == [MM]


def test_a_processor_that_gains_nothing_keeps_its_products(monkeypatch):
    monkeypatch.setattr(products, "_gains", lambda: False)
    graph = traced(F.linear, normal(1, 64, 300), normal(2, 256, 300))
    use_products(graph)
    assert targets(graph) == [MM]


@pytest.mark.usefixtures("amd")
def test_a_bias_of_another_layout_stays():
    args = normal(0, 64, 256), normal(1, 64, 300), normal(2, 300, 256)
    for bias in (args[0], normal(3).expand(256), normal(3, 512)[::2]):
        graph = traced(torch.addmm, bias, *args[1:])
        use_products(graph)
        assert targets(graph) == [ADDMM]
    graph = traced(lambda b, x, w: torch.addmm(b, x, w, beta=2.0), args[0][0], *args[1:])
    use_products(graph)
    assert targets(graph) == [ADDMM]


def summed(scores, vectors, values, tokens, padding):
    """The gradient of a table that is a linear layer's weight as well."""
    table = torch.ops.aten.embedding_dense_backward(values, tokens, scores.shape[1], padding, False)
    return table + scores.t() @ vectors


@given(
    st.integers(2, 9), st.integers(2, 5), st.lists(st.integers(0, 8), min_size=2, max_size=12), st.booleans(), st.data()
)
def test_the_gradients_of_a_tied_weight_are_summed_in_place(rows, width, words, padded, data):
    tokens = torch.tensor(words) % rows
    padding = data.draw(st.integers(0, rows - 1)) if padded else -1
    args = normal(3, 4, rows), normal(4, 4, width), normal(5, len(words), width), tokens
    graph = traced(lambda *args: summed(*args, padding), *args)
    assert sums(graph) == [1, 1]
    use_products(graph)
    assert sums(graph) == [0, 0]
    torch.testing.assert_close(graph(*args), summed(*args, padding))


def test_a_table_or_a_product_that_something_else_reads_is_not_written():
    args = normal(3, 4, 6), normal(4, 4, 3), normal(5, 2, 3), torch.tensor([1, 4])

    def table_read(scores, vectors, values, tokens):
        table = torch.ops.aten.embedding_dense_backward(values, tokens, 6, -1, False)
        return table + scores.t() @ vectors, table

    def product_read(scores, vectors, values, tokens):
        product = scores.t() @ vectors
        return torch.ops.aten.embedding_dense_backward(values, tokens, 6, -1, False) + product, product

    for f in (table_read, product_read):
        graph = traced(f, *args)
        use_products(graph)
        assert sums(graph) == [1, 1]
        torch.testing.assert_close(graph(*args), f(*args))


def tied(weight, tokens):
    """A table that gives vectors to words, and scores to vectors."""
    return F.linear(F.embedding(tokens, weight), weight).tanh().square().sum()


@pytest.mark.slow
@pytest.mark.usefixtures("amd")
def test_compiled_products_and_tied_weights_agree_with_eager():
    args = [normal(i, *shape) for i, shape in enumerate(SIZES.values())]
    both = grad(layer, (0, 1, 2))
    torch.testing.assert_close(jit(both)(*args), both(*args), rtol=1e-4, atol=1e-4)
    scaled = normal(5, 256, 2), normal(6, 64, 300), normal(7, 300, 256)
    for column in (lambda b: (b * 2)[:, 0], lambda b: (b * 2).sum(1)):  # a bias of strides, and one that is computed
        f = lambda b, x, w, column=column: torch.addmm(column(b), x, w)  # noqa: E731
        torch.testing.assert_close(jit(f)(*scaled), f(*scaled), rtol=1e-4, atol=1e-4)
    weight, tokens = normal(4, 3000, 32), random.randint(KEY, (64,), 0, 3000)
    f = grad(tied)
    torch.testing.assert_close(jit(f)(weight, tokens), f(weight, tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_graph_compiled_for_another_processor_is_not_taken_from_the_cache(monkeypatch):
    args, called = [normal(i, *shape) for i, shape in enumerate(SIZES.values())], []
    rewrite = products._by_onednn

    def counted(graph):
        called.append(graph)
        return rewrite(graph)

    monkeypatch.setattr(products, "_by_onednn", counted)
    with _compat.empty_compiler_cache():
        for gains, calls in ((False, 0), (True, 1), (True, 1)):
            monkeypatch.setattr(products, "_gains", lambda gains=gains: gains)
            torch.testing.assert_close(jit(layer)(*args), layer(*args), rtol=1e-4, atol=1e-4)
            assert len(called) == calls
