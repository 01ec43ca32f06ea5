"""float16 and bfloat16 autocast inside every transform: what torch's own module gives under the same autocast."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from funcnet import (
    Model,
    custom_jvp,
    custom_vjp,
    ensemble,
    grad,
    hvp,
    jit,
    jvp,
    per_example_grad,
    random,
    tree,
    value_and_grad,
    vmap,
)
from funcnet.control import remat
from funcnet.control.scan import scan
from tests.models import cnn

KEY = random.key(17)
DTYPES = [torch.bfloat16, torch.float16]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3))


def lstm() -> nn.Module:
    return nn.LSTM(6, 4, num_layers=2, bidirectional=True, batch_first=True)


def transformer() -> nn.Module:
    return nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)


FAST = [(mlp, torch.bfloat16), (cnn, torch.float16), (transformer, torch.bfloat16)]
# torch's own recurrent kernels on the CPU know no float16.
SLOW = [(mlp, torch.float16), (cnn, torch.bfloat16), (transformer, torch.float16), (lstm, torch.bfloat16)]
CASES = [*FAST, *(pytest.param(*c, marks=pytest.mark.slow) for c in SLOW)]
INPUTS = {mlp: (4, 6), cnn: (4, 3, 8, 8), lstm: (4, 5, 6), transformer: (4, 5, 6)}


def case(constructor):
    model = Model(constructor)
    keys = random.split(KEY, 2)
    params, state = model.init(keys[0])
    return model, params, state, random.normal(keys[1], INPUTS[constructor])


def loss_of(model, state):
    def loss(params, x):
        out = tree.leaves(model.apply(params, state, x, train=True)[0])[0]
        return out.float().square().mean(), out

    return loss


def torchs(model, params, state, x, dtype):
    """The output and gradients of a module in train mode, by torch.autograd."""
    module = model.bind(params, state).train()
    with torch.autocast("cpu", dtype):
        out = tree.leaves(module(x))[0]
        loss = out.float().square().mean()
    loss.backward()
    return out.detach(), {name: p.grad for name, p in module.named_parameters()}


def near(got, want, tolerance):
    """Within some part of the norm of each leaf, or of the whole tree for leaves that are rounding noise."""
    scale = tree.global_norm(tree.cast(want, torch.float64))
    for a, b in zip(tree.leaves(got), tree.leaves(want), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert (a - b).double().norm() <= tolerance * max(b.double().norm(), 0.1 * scale)


@pytest.mark.parametrize(("constructor", "dtype"), CASES)
def test_values_and_gradients_of_the_module(constructor, dtype):
    model, params, state, x = case(constructor)
    out, grads = torchs(model, params, state, x, dtype)
    assert out.dtype == dtype or constructor is transformer  # whose last layer norm is in full precision
    loss = loss_of(model, state)
    tolerance = 8 * torch.finfo(dtype).eps
    engines = {
        "grad": value_and_grad(loss, has_aux=True),
        "jit": jit(value_and_grad(loss, has_aux=True), backend="aot_eager"),
        "remat": value_and_grad(remat(loss), has_aux=True),
        "jit of remat": jit(value_and_grad(remat(loss), has_aux=True), backend="aot_eager"),
    }
    for name, engine in engines.items():
        with torch.autocast("cpu", dtype):
            (_, got), mine = engine(params, x)
        assert {g.dtype for g in mine.values()} == {torch.float32}, name
        near((got, mine), (out, grads), tolerance)
        if name == "grad" and constructor is not lstm:  # whose pure form is another kernel there
            assert torch.equal(got, out)
            assert all(torch.equal(mine[n], grads[n]) for n in grads)
    near(engines["jit"](params, x), engines["grad"](params, x), 1e-5)  # no autocast any more


@pytest.mark.parametrize(("constructor", "dtype"), CASES)
def test_maps_equal_loops(constructor, dtype):
    model, params, state, x = case(constructor)
    loss = loss_of(model, state)
    members = tree.stack([params, tree.map(lambda p: 1.5 * p, params)])
    tolerance = 16 * torch.finfo(dtype).eps
    with torch.autocast("cpu", dtype):
        loop = tree.stack([grad(loss, has_aux=True)(p, x) for p in tree.unstack(members)])
        near(ensemble(grad(loss, has_aux=True))(members, x), loop, tolerance)
        near(jit(ensemble(grad(loss, has_aux=True)), backend="aot_eager")(members, x), loop, tolerance)
        each = tree.stack([grad(loss, has_aux=True)(params, x[i : i + 1]) for i in range(len(x))])
        near(per_example_grad(loss, has_aux=True)(params, x), each, tolerance)
        outputs = torch.stack([model(params, state, x[i : i + 1]) for i in range(4)]) if constructor is mlp else None
        if outputs is not None:
            near(vmap(lambda x: model(params, state, x[None]))(x), outputs, tolerance)


@pytest.mark.parametrize(("constructor", "dtype"), CASES)
def test_forward_mode_and_second_order(constructor, dtype):
    model, params, state, x = case(constructor)

    def loss(p):
        return loss_of(model, state)(p, x)[0]

    direction = tree.map(lambda p: random.normal(random.fold_in(KEY, p.numel()), p.shape), params)
    exact = hvp(loss, (params,), (direction,))
    with torch.autocast("cpu", dtype):
        grads = grad(loss)(params)
        _, slope = jvp(loss, (params,), (direction,))
        product = hvp(loss, (params,), (direction,))
    along = sum((g * direction[n]).sum() for n, g in grads.items())
    assert slope.dtype == torch.float32
    near(slope, along, 64 * torch.finfo(dtype).eps)
    near(product, exact, 64 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scan_over_time(dtype):
    cell = Model(nn.GRUCell, 3, 4)
    params, state = cell.init(KEY)
    xs, h = random.normal(KEY, (6, 2, 3)), torch.zeros(2, 4)

    def loss(params, over):
        def step(h, x):
            out = cell(params, state, x, h)
            return out.float(), out

        return over(step, h, xs)[1].float().square().sum()

    def loop(step, h, xs):
        outs = []
        for x in xs:
            h, out = step(h, x)
            outs.append(out)
        return h, torch.stack(outs)

    tolerance = 16 * torch.finfo(dtype).eps
    with torch.autocast("cpu", dtype):
        want = grad(lambda p: loss(p, loop))(params)
        near(grad(lambda p: loss(p, scan))(params), want, tolerance)
        near(jit(grad(lambda p: loss(p, scan)), backend="aot_eager")(params), want, tolerance)
        near(vmap(grad(lambda p: loss(p, scan)))(tree.stack([params, params])), tree.stack([want, want]), tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_derivatives_of_ones_own(dtype):
    x, w = random.normal(KEY, (2, 4, 4))
    product = custom_vjp(lambda x, w: x @ w)
    product.defvjp(lambda x, w: (x @ w, (x, w)), lambda r, ct: (ct @ r[1].mT, r[0].mT @ ct))
    forward = custom_jvp(lambda x, w: x @ w)
    forward.defjvp(lambda p, t: (p[0] @ p[1], t[0] @ p[1] + p[0] @ t[1]))

    def loss(f):
        return lambda x, w: f(x, w).float().square().sum()

    with torch.autocast("cpu", dtype):
        want = grad(loss(torch.matmul), (0, 1))(x, w)
        for f in (product, forward):
            for engine in (grad, torch.func.grad, lambda *a: jit(grad(*a), backend="aot_eager")):
                near(engine(loss(f), (0, 1))(x, w), want, 8 * torch.finfo(dtype).eps)
            each = vmap(grad(loss(f), (0, 1)), in_dims=(0, None))(x[:, None], w)
            near(each[1].sum(0), want[1], 16 * torch.finfo(dtype).eps)


def test_autocast_entered_inside_the_function():
    model, params, state, x = case(mlp)

    def loss(p):
        with torch.autocast("cpu", torch.bfloat16):
            out = model(p, state, x)
        assert out.dtype == torch.bfloat16
        return out.float().square().mean()

    with torch.autocast("cpu", torch.bfloat16):
        want = grad(lambda p: model(p, state, x).float().square().mean())(params)
    for engine in (grad, torch.func.grad, lambda f: jit(grad(f), backend="aot_eager"), lambda f: grad(remat(f))):
        near(engine(loss)(params), want, 8 * torch.finfo(torch.bfloat16).eps)


def test_a_compiled_graph_is_not_cast_twice():
    # The graph holds products of the backward pass, in full precision: an autocast that saw it again would cast them.
    model = Model(nn.TransformerEncoderLayer, 6, 2, 8, dropout=0.3, batch_first=True)
    params, state = model.init(KEY)
    x = random.normal(KEY, (4, 5, 6))

    def loss(p):
        return model.apply(p, state, x, key=KEY, train=True)[0].float().square().sum()

    with torch.autocast("cpu", torch.bfloat16):
        near(jit(grad(loss), backend="aot_eager")(params), grad(loss)(params), 8 * torch.finfo(torch.bfloat16).eps)


def normed(x, w, b):
    return F.layer_norm(F.linear(x, w, b), (3,), b, b)


@pytest.mark.parametrize(
    ("f", "shapes"),
    [
        (F.linear, [(2, 3), (4, 3), (4,)]),
        (torch.addmm, [(2, 2), (2, 3), (3, 2)]),
        (F.conv2d, [(1, 2, 5, 5), (3, 2, 2, 2), (3,)]),
        (F.conv_transpose1d, [(1, 2, 5), (2, 3, 2), (3,)]),
        (lambda x, w: F.prelu(x + w, w), [(2, 3), (3,)]),
        (F.scaled_dot_product_attention, [(1, 2, 3, 4)] * 3),
        (normed, [(2, 3), (3, 3), (3,)]),
        (lambda x, w, b: F.group_norm(F.linear(x, w, b), 3, b, b), [(2, 3), (3, 3), (3,)]),
        (lambda x, w, b: F.batch_norm(F.linear(x, w, b), None, None, b, b, True), [(5, 3), (3, 3), (3,)]),
        (lambda x, w: F.cross_entropy(x @ w, torch.tensor([0, 1])), [(2, 3), (3, 2)]),
        (lambda x, w: F.l1_loss(x @ w, x), [(2, 3), (3, 3)]),
        (lambda x, w: F.binary_cross_entropy_with_logits(x @ w, x.sigmoid()), [(2, 3), (3, 3)]),
        (lambda x, w: torch.cdist(x @ w, x), [(2, 3), (3, 3)]),
    ],
)
def test_vmap_casts_what_autocast_names(f, shapes):
    # Raw vmap takes these apart before autocast sees them.
    args = [random.normal(k, shape) for k, shape in zip(random.split(KEY, len(shapes)), shapes, strict=True)]
    every = tuple(range(len(args)))

    def both(*args):
        out = f(*args)
        return out, grad(lambda *a: f(*a).float().square().sum(), every)(*args)

    with torch.autocast("cpu", torch.bfloat16):
        want = both(*args)
        for mapped in ([True] * len(args), [True] + [False] * (len(args) - 1), [False] + [True] * (len(args) - 1)):
            rows = [torch.stack([a, a]) if m else a for a, m in zip(args, mapped, strict=True)]
            got = vmap(both, in_dims=tuple(0 if m else None for m in mapped))(*rows)
            near(tree.map(lambda t: t[1], got), want, 8 * torch.finfo(torch.bfloat16).eps)
    assert vmap(f, in_dims=0)(*(a[None] for a in args)).dtype == torch.float32


def test_an_input_given_by_its_name_under_vmap():
    x, w = random.normal(KEY, (4, 5), torch.bfloat16), random.normal(KEY, (5,))
    norm = lambda x: torch.layer_norm(input=x, normalized_shape=(5,), weight=w)  # noqa: E731
    with torch.autocast("cpu"):
        torch.testing.assert_close(vmap(norm)(x), norm(x))
