"""Attention under every transform: against torch's own mathematical form, plain autograd and loops."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import profile

from funcnet import (
    MissingKeyError,
    Model,
    ensemble,
    grad,
    hessian,
    hvp,
    jacrev,
    jit,
    jvp,
    linearize,
    per_example_grad,
    random,
    tree,
    vjp,
    vmap,
)
from tests.models import built

EVERY = (0, 1, 2)
SDPA = F.scaled_dot_product_attention


class Attend(nn.Module):
    """`F.scaled_dot_product_attention` as a module."""

    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, query, key, value, mask=None):
        return SDPA(query, key, value, mask, **self.options)


def pure(**options):
    """Attention as funcnet runs it."""
    model = Model(Attend, **options)
    return lambda *tensors, key=None: model.apply({}, {}, *tensors, key=key)[0]


def plain(**options):
    """Attention as torch writes it out in plain operations, which has every derivative."""

    def run(*tensors):
        with sdpa_kernel(SDPBackend.MATH):
            return SDPA(*tensors, **options)

    return run


def normals(seed, *shapes, dtype=torch.float64):
    return [
        random.normal(k, s, dtype) for k, s in zip(random.split(random.key(seed), len(shapes)), shapes, strict=True)
    ]


def close(a, b, **tolerance):
    tree.map(lambda x, y: torch.testing.assert_close(x, y, **tolerance), a, b)


def loop(f, *args):
    return tree.stack([f(*row) for row in zip(*args, strict=True)])


def inputs(seed, *lead, heads=2, shared=2):
    return normals(seed, (*lead, 2, heads, 4, 3), (*lead, 2, shared, 5, 3), (*lead, 2, shared, 5, 3))


@st.composite
def cases(draw):
    """Options of attention, and what makes a mask for it of a key."""
    options = {}
    if draw(st.booleans()):
        options["scale"] = draw(st.sampled_from([0.3, 1.5]))
    kind = draw(st.sampled_from(["none", "causal", "bool", "float", "heads"]))
    if kind == "causal":
        options["is_causal"] = True
    shape = (4, 5) if kind in ("bool", "float") else (1, 2, 4, 5)
    values = random.normal(random.key(draw(st.integers(0, 99))), shape, torch.float64)
    mask = {"none": (), "causal": (), "bool": (values > -0.5,)}.get(kind, (values,))
    return options, mask, draw(st.integers(0, 999))


# Each is `transform(f, query, key, value)`, and the same by loops, autograd and forward mode over the plain form.
TRANSFORMS = {
    "grad": lambda f, *x: grad(f, EVERY)(*x),
    "torch.func.grad": lambda f, *x: torch.func.grad(f, EVERY)(*x),
    "jvp": lambda f, *x: jvp(f, x, x),
    "hvp": lambda f, *x: hvp(f, x, x),
    "hessian": lambda f, *x: hessian(f)(*x),
    "jacrev": lambda f, *x: jacrev(lambda q: f(q, *x[1:]).expand(2) * q[0, 0, 0, 0])(x[0]),
    "reverse over reverse": lambda f, *x: grad(lambda *x: grad(f)(*x).cos().sum(), EVERY)(*x),
    "forward over forward": lambda f, *x: jvp(lambda *x: jvp(f, x, x)[1], x, x),
    "linearize": lambda f, *x: linearize(f, *x)[1](*x),
    "tangent of the pullback": lambda f, *x: jvp(vjp(f, *x)[1], (x[0].sum(),), (x[1].sum(),)),
    "gradient of the pullback": lambda f, *x: grad(lambda c: vjp(f, *x)[1](c)[0].sin().sum())(x[0].sum()),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@settings(max_examples=6)
@given(cases())
def test_a_transform_is_that_of_the_plain_form(transform, case):
    options, mask, seed = case
    losses = [lambda *x, f=f: f(*x, *mask).sin().sum() for f in (pure(**options), plain(**options))]
    got, want = (TRANSFORMS[transform](loss, *inputs(seed)) for loss in losses)
    close(got, want)


VMAPPED = {
    "vmap": lambda f: f,
    "per example": lambda f: grad(f, EVERY),
    "tangent": lambda f: lambda *x: jvp(f, x, x),
    "curvature": lambda f: lambda *x: hvp(f, x, x),
}


@pytest.mark.parametrize("transform", VMAPPED)
@pytest.mark.parametrize("batch", [None, (), (2,), (2, 1), (2, 1, 2)])
@settings(max_examples=6)
@given(cases())
def test_vmap_is_a_loop(transform, batch, case):
    options, mask, seed = case
    heads = () if batch is None else (2,)
    mask = tuple(m if len(batch or ()) else m[(0,) * (m.ndim - 2)] for m in mask)
    losses = [lambda *x, f=f: f(*x, *mask).sin().sum() for f in (pure(**options), plain(**options))]
    f, reference = (VMAPPED[transform](loss) for loss in losses)
    x = normals(seed, *((3, *(batch or ()), *heads, length, 3) for length in (4, 5, 5)))
    close(vmap(f)(*x), loop(reference, *x))


@pytest.mark.parametrize("dims", [(0, None, None), (None, 0, 0), (1, 0, None), (0, 0, 3)])
@settings(max_examples=6)
@given(cases())
def test_vmap_over_some_of_the_tensors(dims, case):
    options, mask, seed = case
    f, reference = (lambda *x, f=f: f(*x, *mask).sin().sum() for f in (pure(**options), plain(**options)))
    shapes = [(2, 2, 4, 3), (2, 2, 5, 3), (2, 2, 5, 3)]
    x = normals(seed, *(s if d is None else (*s[:d], 3, *s[d:]) for s, d in zip(shapes, dims, strict=True)))
    rows = [[t if d is None else t.select(d, i) for t, d in zip(x, dims, strict=True)] for i in range(3)]
    close(vmap(grad(f, EVERY), dims)(*x), tree.stack([grad(reference, EVERY)(*row) for row in rows]))
    # The gradient of all examples together, where the transforms stand the other way about.
    together = grad(lambda *x: vmap(f, dims)(*x).sum(), EVERY)(*x)
    close(together, grad(lambda *x: vmap(reference, dims)(*x).sum(), EVERY)(*x))


@settings(max_examples=4)
@given(st.integers(0, 999))
def test_two_vmaps_and_a_mask_that_one_of_them_maps(seed):
    (mask,) = normals(seed, (3, 4, 5))
    x = inputs(seed, 3, 2)
    f, reference = (lambda m, *x, f=f: grad(lambda *x: f(*x, m).sin().sum(), EVERY)(*x) for f in (pure(), plain()))
    got = vmap(lambda m, *x: vmap(f, (None, 0, 0, 0))(m, *x))(mask > -1, *x)
    close(
        got, tree.stack([loop(lambda *row, m=m: reference(m, *row), *r) for m, *r in zip(mask > -1, *x, strict=True)])
    )
    shared = [t[0, 0] for t in x]
    close(vmap(f, (0, None, None, None))(mask, *shared), tree.stack([reference(m, *shared) for m in mask]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_groups_of_heads_share_keys(dtype):
    x = [t.to(dtype) for t in inputs(3, heads=4, shared=2)]
    f, reference = (lambda *x, g=g: g(enable_gqa=True)(*x).float().sin().sum() for g in (pure, plain))
    tolerance = {} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.05}
    for transform in ("grad", "jvp", "hvp"):
        close(TRANSFORMS[transform](f, *x), TRANSFORMS[transform](reference, *x), **tolerance)
    many = [t.expand(3, *t.shape) * 1.0 for t in x]
    close(vmap(grad(f, EVERY))(*many), loop(grad(reference, EVERY), *many), **tolerance)
    twice = [grad(lambda *x, g=g: vmap(g(enable_gqa=True))(*x).float().sin().sum(), EVERY) for g in (pure, plain)]
    leaves = [t.clone().requires_grad_() for t in many]
    got, want = (torch.autograd.grad(sum(t.float().cos().sum() for t in g(*leaves)), leaves) for g in twice)
    close(got, want, **tolerance)
    value = [vmap(g(enable_gqa=True))(*leaves).float().sin().sum() for g in (pure, plain)]
    got, want = (torch.autograd.grad(v, leaves, create_graph=True)[0].float().cos().sum() for v in value)
    close(torch.autograd.grad(got, leaves), torch.autograd.grad(want, leaves), **tolerance)


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"mask": True}])
def test_gradcheck(options):
    mask = [random.normal(random.key(5), (4, 5), torch.float64).requires_grad_()] if options.pop("mask", None) else []
    x = [t.requires_grad_() for t in inputs(1)] + mask
    with torch.random.fork_rng():  # gradcheck draws its directions from the global generator
        assert gradcheck(pure(**options), x, check_forward_ad=True, check_batched_grad=True, fast_mode=True)
        assert gradgradcheck(pure(**options), x, check_batched_grad=True, fast_mode=True, check_fwd_over_rev=True)
        assert gradgradcheck(lambda *x: vmap(pure(**options))(*(t[None] for t in x)), x, fast_mode=True)


def test_a_graph_that_is_not_retained():
    x = [t.requires_grad_() for t in inputs(1)]
    grads = torch.autograd.grad(pure()(*x).sin().sum(), x, create_graph=True, retain_graph=False)
    close(grads, torch.autograd.grad(plain()(*x).sin().sum(), x))


@pytest.mark.parametrize("boolean", [True, False])
def test_nothing_to_attend_to_gives_zeros_and_no_derivative(boolean):
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[1] = False
    mask = mask if boolean else torch.zeros(4, 5, dtype=torch.float64).masked_fill(~mask, -torch.inf)
    x = inputs(2)
    for got in (pure()(*x, mask), jvp(lambda *x: pure()(*x, mask), tuple(x), tuple(x))[0]):
        close(got, SDPA(*x, mask))
        assert not got[..., 1, :].any()
    loss = lambda *x: pure()(*x, mask).sin().sum()  # noqa: E731 - one line beside its uses
    for tangent in (*hvp(loss, tuple(x), tuple(x)), *grad(lambda *x: grad(loss)(*x).sin().sum(), EVERY)(*x)):
        assert tangent.isfinite().all()
    assert not hvp(loss, tuple(x), tuple(x))[0][..., 1, :].any()


JITTED = {
    "call": lambda f: f,
    "grad": lambda f: grad(lambda *x: f(*x).sin().sum(), EVERY),
    "hvp": lambda f: lambda *x: hvp(lambda *x: f(*x).sin().sum(), x, x),
    "per example": lambda f: vmap(grad(lambda *x: f(*x).sin().sum(), EVERY)),
    "jacrev": lambda f: jacrev(lambda *x: f(*x)[0, 0, 0], EVERY),
}


@pytest.mark.parametrize("name", JITTED)
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_jit(name, backend):
    f = JITTED[name](pure(is_causal=True))
    x = inputs(4, 3) if name == "per example" else inputs(4)
    close(jit(f, backend=backend)(*x), f(*x))


def test_dropout_is_the_same_on_every_path():
    f, x, key = pure(dropout_p=0.4), tuple(inputs(5)), random.key(1)
    of = lambda *x: f(*x, key=key)  # noqa: E731 - as above
    want = of(*x)
    assert not torch.allclose(want, f(*x, key=random.key(2)))
    close(jvp(of, x, x)[0], want)
    close(vjp(of, *x)[0], want)
    close(vmap(of)(*(t[None] for t in x))[0], want)
    close(jit(of, backend="aot_eager")(*x), want)
    close(hvp(lambda *x: of(*x).sin().sum(), x, x), jvp(grad(lambda *x: of(*x).sin().sum(), EVERY), x, x)[1])
    keys = random.split(key, 4000)
    mean = vmap(lambda k: f(*x, key=k))(keys).mean(0)
    torch.testing.assert_close(mean, SDPA(*x), atol=0.15, rtol=0.0)
    with pytest.raises(MissingKeyError, match=r"key=random\.key"):
        f(*x)


def test_autocast_gives_torch_its_dtypes():
    x = [t.float() for t in inputs(6)]
    of = lambda f: lambda *x: f(*x).float().sin().sum()  # noqa: E731 - as above
    with torch.autocast("cpu", torch.bfloat16):
        assert pure()(*x).dtype == SDPA(*x).dtype == torch.bfloat16
        assert jvp(pure(), tuple(x), tuple(x))[1].dtype == torch.bfloat16
        assert torch.equal(pure()(*x), SDPA(*x))
        got = [TRANSFORMS[name](of(pure()), *x) for name in ("grad", "hvp", "reverse over reverse")]
        y = [t.requires_grad_() for t in inputs(6, 3) for t in [t.float()]]
        assert vmap(pure())(*y).dtype == torch.bfloat16
        (g,) = torch.autograd.grad(of(pure())(*y).double(), y[0], create_graph=True)
    assert torch.autograd.grad(g.sum(), y[1])[0].isfinite().all()  # the formula outside of autocast
    want = [TRANSFORMS[name](of(plain()), *(t.double() for t in x)) for name in ("grad", "hvp", "reverse over reverse")]
    assert all(t.dtype == torch.float32 for t in tree.leaves(got))
    close(got, tree.map(torch.Tensor.float, want), atol=0.1, rtol=0.1)


@pytest.mark.parametrize("batch", [0, 1])
def test_a_batch_of_none(batch):
    x = tuple(normals(0, *[(batch, 2, 4, 3)] * 3))
    for transform in ("grad", "jvp", "hvp"):
        loss = lambda *x: pure()(*x).sin().sum()  # noqa: E731 - as above
        close(TRANSFORMS[transform](loss, *x), TRANSFORMS[transform](lambda *x: plain()(*x).sin().sum(), *x))
    close(vmap(pure())(*(t[None] for t in x))[0], SDPA(*x))


@pytest.mark.parametrize(
    ("options", "mask", "message"),
    [
        ({"is_causal": True}, torch.ones(4, 5) > 0, "Explicit attn_mask should not be set"),
        ({}, torch.ones(4, 5, dtype=torch.int64), "attn_mask dtype"),
        ({}, torch.ones(3, 5) > 0, "size of tensor|expanded size"),
    ],
)
def test_what_torch_refuses(options, mask, message):
    f, x = pure(**options), tuple(inputs(1))
    if torch.__version__ < "2.13" and options:
        pytest.skip("torch 2.11 takes both for the mask")
    with pytest.raises(RuntimeError, match=message):
        f(*x, mask)
    with pytest.raises(RuntimeError, match=message):
        jvp(lambda *x: f(*x, mask), x, x)
    with pytest.raises(RuntimeError, match=message):
        vmap(lambda *x: f(*x, mask))(*(t[None] for t in x))


# -- the modules


def padding(batch, length):
    rows = torch.arange(batch) % 3
    return torch.arange(length) >= length - rows[:, None]


def causal(length):
    return nn.Transformer.generate_square_subsequent_mask(length, dtype=torch.float64)


ENCODER = {"d_model": 4, "nhead": 2, "dim_feedforward": 6}


def encoder(**options):
    layer = nn.TransformerEncoderLayer(**ENCODER, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=options.get("batch_first", False))


MODULES = {
    "mha": (lambda: nn.MultiheadAttention(4, 2, 0.3, batch_first=True), 3, {}),
    "mha weights": (lambda: nn.MultiheadAttention(4, 2, 0.3), 3, {"average_attn_weights": False}),
    "mha fused": (lambda: nn.MultiheadAttention(4, 2, 0.3, batch_first=True), 3, {"need_weights": False}),
    "mha padding": (
        lambda: nn.MultiheadAttention(4, 2, 0.3, batch_first=True, bias=False),
        3,
        {"need_weights": False, "key_padding_mask": padding(3, 5)},
    ),
    "mha causal": (
        lambda: nn.MultiheadAttention(4, 2, 0.3, batch_first=True),
        3,
        {"need_weights": False, "attn_mask": causal(5), "is_causal": True},
    ),
    "mha bias": (
        lambda: nn.MultiheadAttention(
            4, 2, 0.3, add_bias_kv=True, add_zero_attn=True, kdim=4, vdim=4, batch_first=True
        ),
        3,
        {"attn_mask": causal(5) < 0},
    ),
    "layer": (lambda: nn.TransformerEncoderLayer(**ENCODER, batch_first=True), 1, {"src_mask": causal(5)}),
    "layer norm first": (lambda: nn.TransformerEncoderLayer(**ENCODER, norm_first=True, activation="gelu"), 1, {}),
    "encoder": (lambda: encoder(batch_first=True), 1, {"src_key_padding_mask": padding(3, 5)}),
    "encoder causal": (lambda: encoder(), 1, {"mask": causal(3)}),
    "decoder layer": (
        lambda: nn.TransformerDecoderLayer(**ENCODER, batch_first=True),
        2,
        {"tgt_mask": causal(5), "memory_key_padding_mask": padding(3, 5)},
    ),
    "decoder": (
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(**ENCODER, batch_first=True), 1),
        2,
        {"tgt_mask": causal(5)},
    ),
    "transformer": (lambda: nn.Transformer(4, 2, 1, 1, 6, batch_first=True), 2, {"tgt_mask": causal(5)}),
}


@pytest.fixture(params=MODULES)
def case(request):
    constructor, count, options = MODULES[request.param]
    module = built(constructor).double()
    if request.param == "encoder":
        module.eval()
    return module, Model.from_module(module), tuple(normals(7, (3, 5, 4)) * count), options


def output(result):
    return result[0] if isinstance(result, tuple) else result


def test_modules_train_as_they_do(case):
    module, (model, params, state), x, options = case
    for each in module.modules():
        each.__dict__.update({k: 0.0 for k in ("dropout", "p") if isinstance(each.__dict__.get(k), float)})
    module.train()
    want = output(module(*x, **options)).sin().sum()
    module.zero_grad()
    want.backward()
    key = random.key(0)

    def loss(params, *x, **options):
        return output(model.apply(params, state, *x, key=key, **options)[0]).sin().sum()

    gradient = grad(lambda p: loss(p, *x, **options))(params)
    close(gradient, {name: p.grad for name, p in module.named_parameters()})
    tangents = tree.map(torch.sin, params)
    inner = sum((a * b).sum() for a, b in zip(gradient.values(), tangents.values(), strict=True))
    close(jvp(lambda p: loss(p, *x, **options), (params,), (tangents,))[1], inner)


FEW = ("mha causal", "layer")


@pytest.mark.parametrize(
    "name", [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in MODULES]
)
def test_modules_compile(name):
    constructor, count, options = MODULES[name]
    model, params, state = Model.from_module(built(constructor).double())
    x, key = tuple(normals(7, (3, 5, 4)) * count), random.key(0)

    def loss(params, key):
        return output(model.apply(params, state, *x, key=key, train=True, **options)[0]).sin().sum()

    close(jit(grad(loss), backend="aot_eager")(params, key), grad(loss)(params, key))
    with torch.no_grad():
        evaluated = output(jit(lambda p: model(p, state, *x, **options), backend="aot_eager")(params))
        mapped = output(vmap(lambda *x: model(params, state, *x, **options))(*(t[None] for t in x)))[0]
    want = output(
        model(params, state, *x, **options)
    )  # with gradients at hand: the inference kernels zero what is padded
    close(evaluated, want)
    close(mapped, want)


def test_modules_curvature_with_dropout(case):
    module, _, x, options = case
    model, params, state = Model.from_module(module)
    key = random.key(3)

    def loss(p):
        return output(model.apply(p, state, *x, key=key, train=True, **options)[0]).sin().sum()

    a, b = tree.map(torch.sin, params), tree.map(torch.cos, params)

    def inner(p, q):
        return sum((s * t).sum() for s, t in zip(tree.leaves(p), tree.leaves(q), strict=True))

    forward = hvp(loss, (params,), (a,))
    backward = grad(lambda p: inner(grad(loss)(p), a))(params)
    close(forward, backward)
    close(inner(b, forward), inner(a, hvp(loss, (params,), (b,))))  # a Hessian is symmetric
    step = 1e-5
    up, down = (grad(loss)(tree.map(lambda p, t, s=s: p + s * step * t, params, a)) for s in (1, -1))
    close(tree.map(lambda u, d: (u - d) / (2 * step), up, down), forward, atol=1e-6, rtol=1e-5)
    with pytest.raises(MissingKeyError, match=r"key=random\.key"):
        model.apply(params, state, *x, train=True, **options)


def test_modules_per_example_and_ensembles(case):
    _, (model, params, state), x, options = case
    members = tree.stack([tree.map(lambda p, s=s: p * s, params) for s in (0.5, 1.0, 1.5)])

    def loss(p, *x):
        return output(model(p, state, *x, **options)).sin().sum()

    close(
        ensemble(loss)(members, *x), torch.stack([loss(tree.map(lambda t, i=i: t[i], members), *x) for i in range(3)])
    )
    many = [torch.stack([t, t.cos()]) for t in x]
    got = vmap(grad(loss), (None, *(0 for _ in many)))(params, *many)
    close(got, tree.stack([grad(loss)(params, *(t[i] for t in many)) for i in range(2)]))


def test_per_example_gradients_with_dropout():
    model, (x,), key = (
        Model(nn.TransformerEncoderLayer, **ENCODER, batch_first=True),
        normals(1, (3, 5, 4)),
        random.key(2),
    )
    params, state = tree.cast(model.init(random.key(0)), torch.float64)

    def loss(p, x, key):
        return model.apply(p, state, x, key=key, train=True)[0].sin().sum()

    got = per_example_grad(loss, batch=1, keys=2)(params, x, key)
    rows = zip(x, random.split(key, 3), strict=True)
    close(got, tree.stack([grad(loss)(params, row[None], k) for row, k in rows]))
    close(jit(per_example_grad(loss, batch=1, keys=2), backend="aot_eager")(params, x, key), got)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events")  # of torch 2.11's profiler
def test_modules_evaluate_through_the_same_kernels(case):
    _, (model, params, state), x, options = case
    module = model.bind(params, state).eval()  # of copies: the bits of a product depend on where its factors lie

    def kernels(f):
        with profile() as profiled:
            result = f()
        names = {event.key for event in profiled.key_averages()}
        return result, {name for name in names if "native_multi_head" in name or "encoder_layer_fwd" in name}

    # Some kernels differ in the last bit where a tensor requires a gradient, wanted or not.
    given = {name: p.clone().requires_grad_() for name, p in params.items()}
    for context in (nullcontext, torch.no_grad, torch.inference_mode):
        with context():
            got, own = kernels(lambda: model(given, state, *x, **options))
            want, theirs = kernels(lambda: module(*x, **options))
        assert torch.equal(output(got), output(want))
        assert own == theirs
