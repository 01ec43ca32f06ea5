"""Where torch's kernels have no further derivative, or a wrong one: the formulas that stand in for them."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from funcnet import Model, grad, hessian, hvp, jit, jvp, random, tree, vmap
from tests.models import built

X, V = (random.normal(random.key(i), (4, 4, 5), torch.float64) for i in (1, 2))


def double(constructor):
    """A layer in train mode as a function of its input, its parameters away from zero and one."""
    model, params, state = Model.from_module(built(constructor).double())
    keys = random.split(random.key(5), max(len(params), 1))
    params = {n: p + random.normal(k, tuple(p.shape), p.dtype) for k, (n, p) in zip(keys, params.items(), strict=False)}
    return lambda x: model.apply(params, state, x, train=True)[0], params


def standardize(x, axes, weight=1.0, bias=0.0):
    var = x.var(axes, correction=0, keepdim=True)
    return (x - x.mean(axes, keepdim=True)) / torch.sqrt(var + 1e-5) * weight + bias


def scalar(f):
    def of(x):
        y = f(x)
        return (y**2 * torch.cos(torch.arange(y.numel(), dtype=y.dtype)).reshape(y.shape)).sum()

    return of


def along(f):
    return lambda x: jvp(f, (x,), (V,))[1]


ORDERS = {
    "jvp of jvp": lambda f: along(along(f)),
    "grad of jvp": lambda f: grad(scalar(along(f))),
    "jvp of grad": lambda f: along(grad(scalar(f))),
    "grad of grad": lambda f: grad(scalar(grad(scalar(f)))),
    "three grads": lambda f: grad(scalar(grad(scalar(grad(scalar(f)))))),
    "jvp of jvp of grad": lambda f: along(along(grad(scalar(f)))),
}
# Each with its formula, of which torch.func differentiates every operation rightly.
LAYERS = {
    "layer": (lambda: nn.LayerNorm((4, 5)), lambda x, p: standardize(x, (1, 2), p["weight"], p["bias"])),
    "batch": (
        lambda: nn.BatchNorm1d(4),
        lambda x, p: standardize(x, (0, 2), p["weight"][:, None], p["bias"][:, None]),
    ),
    "batch, no statistics": (
        lambda: nn.BatchNorm1d(4, affine=False, track_running_stats=False),
        lambda x, p: standardize(x, (0, 2)),
    ),
    "instance": (
        lambda: nn.InstanceNorm1d(4, affine=True),
        lambda x, p: standardize(x, (2,), p["weight"][:, None], p["bias"][:, None]),
    ),
    "instance, statistics": (
        lambda: nn.InstanceNorm1d(4, track_running_stats=True),
        lambda x, p: standardize(x, (2,)),
    ),
    "hardsigmoid": (nn.Hardsigmoid, lambda x, p: ((x + 3) / 6).clamp(0, 1)),
    "glu": (lambda: nn.GLU(1), lambda x, p: x[:, :2] * torch.sigmoid(x[:, 2:])),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("layer", LAYERS)
def test_every_order_of_derivatives_is_that_of_the_formula(layer, order):
    f, params = double(LAYERS[layer][0])
    got, want = (ORDERS[order](g)(X) for g in (f, lambda x: LAYERS[layer][1](x, params)))
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8 * float(want.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_as_by_the_kernel(dtype):
    model, params, state = Model.from_module(nn.LayerNorm(5, dtype=dtype))
    x = X.to(dtype)
    value, tangent = jvp(lambda x: model(params, state, x), (x,), (V.to(dtype),))
    assert value.dtype == tangent.dtype == dtype
    torch.testing.assert_close(value, F.layer_norm(x, (5,)))


BAGS = {
    "rows": (random.randint(random.key(1), (3, 5), 0, 7).long(), None),
    "offsets": (random.randint(random.key(2), (11,), 0, 7).long(), torch.tensor([0, 3, 3, 9])),
}


@given(
    st.sampled_from(["sum", "mean", "max"]),
    st.sampled_from([None, 2, -1]),
    st.booleans(),
    st.sampled_from(sorted(BAGS)),
)
def test_embedding_bags_have_every_derivative(mode, padding_idx, include_last, kind):
    ids, offsets = BAGS[kind]
    last = include_last and offsets is not None
    if last:
        offsets = torch.cat([offsets, torch.tensor([len(ids)])])
    factors = random.normal(random.key(3), tuple(ids.shape), torch.float64) if mode == "sum" else None

    def plain(weight):
        return F.embedding_bag(
            ids,
            weight,
            offsets,
            mode=mode,
            per_sample_weights=factors,
            include_last_offset=last,
            padding_idx=padding_idx,
        )

    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(random.normal(random.key(8), (7, 4), torch.float64))

        def forward(self):
            return plain(self.weight)

    model, params, state = Model.from_module(Bag())
    weight = params["weight"]

    def f(weight):
        return model({"weight": weight}, state)

    ones = torch.ones_like(weight)
    value, tangent = jvp(f, (weight,), (ones,))
    torch.testing.assert_close(value, plain(weight))
    torch.testing.assert_close(tangent, plain(weight + 1) - plain(weight))  # linear, as long as the maxima stay
    want = torch.autograd.functional.jacobian(lambda w: (plain(w) ** 2).sum(), weight)
    torch.testing.assert_close(vmap(grad(lambda w: (f(w) ** 2).sum()))(torch.stack([weight, 2 * weight]))[0], want)
    matrix = hessian(lambda w: (f(w) ** 3).sum())(weight)
    torch.testing.assert_close(
        hvp(lambda w: (f(w) ** 3).sum(), (weight,), (ones,)), torch.einsum("abcd,cd->ab", matrix, ones)
    )


def test_bags_under_vmap_over_their_words():
    model, params, state = Model.from_module(built(lambda: nn.EmbeddingBag(7, 4, mode="max")))
    ids = random.randint(random.key(4), (6, 3, 5), 0, 7).long()
    mapped = vmap(lambda i: model(params, state, i))(ids)
    torch.testing.assert_close(mapped, torch.stack([model(params, state, i) for i in ids]))


@given(st.sampled_from([1, 2]), st.booleans(), st.sampled_from(["none", "mean", "sum"]))
def test_multi_margin_loss(p, weighted, reduction):
    weight = random.uniform(random.key(1), (5,), torch.float64) if weighted else None
    model, params, state = Model.from_module(nn.MultiMarginLoss(p, weight=weight, reduction=reduction))
    logits, classes = (
        random.normal(random.key(2), (6, 5), torch.float64),
        random.randint(random.key(3), (6,), 0, 5).long(),
    )

    def f(logits):
        return model(params, state, logits, classes)

    value, tangent = jvp(f, (logits,), (logits,))
    torch.testing.assert_close(value, F.multi_margin_loss(logits, classes, p, 1.0, weight, reduction=reduction))
    jacobian = torch.autograd.functional.jacobian(f, logits)
    torch.testing.assert_close(tangent, (jacobian * logits).sum((-2, -1)))
    each = vmap(lambda x, y: model(params, state, x, y))(logits, classes)
    torch.testing.assert_close(
        each, F.multi_margin_loss(logits, classes, p, 1.0, weight, reduction="none"), rtol=1e-10, atol=1e-12
    )


def adaptive():
    model, params, state = Model.from_module(built(lambda: nn.AdaptiveLogSoftmaxWithLoss(6, 12, [3, 7], 2.0)))
    return model, params, state, random.normal(random.key(1), (9, 6)), random.randint(random.key(2), (9,), 0, 12).long()


def test_adaptive_softmax_without_looking_at_targets():
    model, params, state, x, y = adaptive()
    want = model(params, state, x, y)
    got = jit(lambda x, y: model(params, state, x, y), backend="aot_eager")(x, y)
    assert type(got) is type(want)
    tree.map(torch.testing.assert_close, got, want)
    each = vmap(lambda x, y: model(params, state, x, y).output)(x, y)
    torch.testing.assert_close(each, want.output)


def test_adaptive_softmax_marks_targets_out_of_range():
    model, params, state, x, y = adaptive()
    y = y.clone()
    y[4] = 12
    with pytest.raises(RuntimeError, match=r"Target values should be in \[0, 11\]"):
        model(params, state, x, y)
    each = vmap(lambda x, y: model(params, state, x, y).output)(x, y)
    assert each.isnan().tolist() == [i == 4 for i in range(9)]


def test_tangents_of_expanded_zeros_compile():
    # The tangent of the quotient by a constant has the strides of an expanded zero.
    def f(x):
        return x / torch.arange(1.0, 6.0, dtype=x.dtype)

    got = jit(along(along(lambda x: f(x) ** 3)), backend="aot_eager")(X)
    torch.testing.assert_close(got, along(along(lambda x: f(x) ** 3))(X))


def test_tangents_without_the_batch_of_their_primal_compile():
    words = torch.tensor([[1, 2, 3, 0]] * 3)

    def g(scale):
        def f(rows, weight):
            return F.linear(F.embedding(words, rows), weight)

        return jvp(f, (X[0] * scale, X[1] * scale), (V[0], V[1]))[1]

    scales = random.normal(random.key(6), (2,), torch.float64)
    torch.testing.assert_close(jit(vmap(g), backend="aot_eager")(scales), torch.stack([g(s) for s in scales]))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: nn.AdaptiveAvgPool1d(1), (3, 4, 5)),
        (lambda: nn.AdaptiveAvgPool2d(1), (3, 4, 5, 6)),
        (lambda: nn.AdaptiveAvgPool2d((1, 1)), (4, 5, 6)),
        (lambda: nn.AdaptiveAvgPool2d((1, None)), (3, 4, 5, 6)),
        (lambda: nn.AdaptiveAvgPool3d(1), (3, 4, 5, 2, 3)),
        (lambda: nn.AdaptiveAvgPool2d(2), (3, 4, 5, 6)),
    ],
)
def test_adaptive_pooling_is_mapped_whatever_the_layout(layer, shape):
    # torch warns of a slow loop for channels that come last in memory: warnings are errors here
    model = Model(layer)
    plain = random.normal(random.key(3), (3, *shape), torch.float64)
    last = plain.movedim(-len(shape) + 1, -1).contiguous().movedim(-1, -len(shape) + 1)
    for x in (plain, last):
        got = vmap(lambda x: model({}, {}, x))(x)
        torch.testing.assert_close(got, torch.stack([layer()(row) for row in x]))
        got = vmap(grad(lambda x: scalar(lambda x: model({}, {}, x))(x)))(x)
        torch.testing.assert_close(got, torch.stack([grad(scalar(layer()))(row) for row in x]))
