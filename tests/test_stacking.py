"""Equal blocks stacked: against the ordinary model, under every transform, as a plain module, and what is refused."""

import copy
import functools
import pickle
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from funcnet import (
    MissingKeyError,
    Model,
    TrainState,
    grad,
    hvp,
    jit,
    jvp,
    make_step,
    optim,
    per_example_grad,
    random,
    stack_blocks,
    stacked,
    tree,
    unstack_blocks,
    vmap,
)

KEY = random.key(3)


def scaled_tanh(x, scale):
    return torch.tanh(x) * scale


class Block(nn.Module):
    """A residual block with an argument beside, whose normalization may have statistics."""

    def __init__(self, width=6, drop=0.0, norm=nn.LayerNorm, scale=0.5):
        super().__init__()
        self.norm, self.up, self.down = norm(width), nn.Linear(width, 8), nn.Linear(8, width)
        self.drop, self.act = nn.Dropout(drop), functools.partial(scaled_tanh, scale=scale)
        self.register_buffer("offset", torch.rand(width))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x, shift=None):
        self.calls += 1
        h = self.drop(self.down(self.act(self.up(self.norm(x)))))
        return x + h * self.offset + (0 if shift is None else shift)


class Net(nn.Module):
    """Blocks in a ModuleList between two layers."""

    def __init__(self, count=3, make=Block):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)
        self.blocks = nn.ModuleList(make() for _ in range(count))

    def forward(self, x, shift=None):
        x = self.first(x)
        for block in self.blocks:
            x = block(x, shift=shift)
        return self.last(x)


X = random.normal(KEY, (5, 4))
SHIFT = random.normal(random.fold_in(KEY, 1), (6,))
BATCHED = functools.partial(Net, make=functools.partial(Block, norm=nn.BatchNorm1d))
DROPPING = functools.partial(Net, make=functools.partial(Block, drop=0.4))


def pair(net=Net, *names, **options):
    """The ordinary model and the stacked one, with parameters and state of the one and of the other."""
    plain, one = Model(net), Model(lambda: stacked(net(), *(names or ("blocks",)), **options))
    return plain, *plain.init(random.key(0)), one, *one.init(random.key(0))


def built():
    with random.seeded(KEY):
        return Net()


def close(got, want, **tolerance):
    tree.map(lambda a, b: torch.testing.assert_close(a, b, **tolerance), got, want)


def equal(got, want):
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name].dtype == value.dtype
        assert torch.equal(got[name], value), name


def test_init_is_that_of_the_ordinary_model_stacked_and_back_again():
    _, params, state, one, stacked_params, stacked_state = pair()
    equal(stacked_params, stack_blocks(params, "blocks"))
    equal(stacked_state, stack_blocks(state, "blocks"))
    assert stacked_params["blocks.*.up.weight"].shape == (3, 8, 6)
    for values, back in ((params, unstack_blocks(stacked_params)), (state, unstack_blocks(stacked_state))):
        equal(back, values)
    assert list(unstack_blocks(stacked_params)) == list(params)
    assert set(one.bind(stacked_params, stacked_state).state_dict()) == {*stacked_params, *stacked_state}


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("net", [Net, BATCHED], ids=["layer", "batch"])
def test_outputs_state_and_gradients_are_those_of_the_ordinary_model(net, train, remat):
    plain, params, state, one, some, rest = pair(net, remat=remat)

    def loss(model, state):
        def of(params, x, shift):
            out, new = model.apply(params, state, x, shift=shift, train=train)
            return out.square().sum(), (out, new)

        return grad(of, (0, 1, 2), has_aux=True)

    (slopes, *others), (out, new) = loss(plain, state)(params, X, SHIFT)
    want = (stack_blocks(slopes, "blocks"), *others), (out, stack_blocks(new, "blocks"))
    for run in (loss(one, rest), jit(loss(one, rest), backend="aot_eager")):
        close(run(some, X, SHIFT), want)
    assert want[1][1]["blocks.*.calls"].tolist() == [1, 1, 1]


def of_params(model, state):
    return lambda params, x: model.apply(params, state, x, train=True)[0].square().sum()


TRANSFORMS = {
    "jvp": lambda f: lambda p, x: jvp(f, (p, x), (p, x)),
    "hvp": lambda f: lambda p, x: hvp(lambda p: f(p, x), (p,), (p,)),
    "grad of grad": lambda f: grad(lambda p, x: sum((g**2).sum() for g in grad(f)(p, x).values())),
    "per_example_grad": lambda f: per_example_grad(lambda p, x: f(p, x[None])),
    "vmap": lambda f: lambda p, x: vmap(f, (None, 0))(p, torch.stack([x, 2 * x])),
    "ensemble": lambda f: lambda p, x: vmap(f, (0, None))(tree.map(lambda t: torch.stack([t, t + 0.1]), p), x),
    "vmap of grad": lambda f: lambda p, x: vmap(grad(f), (None, 0))(p, torch.stack([x, 2 * x])),
    "grad of vmap": lambda f: grad(lambda p, x: vmap(f, (None, 0))(p, torch.stack([x, 2 * x])).sum()),
}
QUICK = ("hvp", "per_example_grad", "vmap of grad")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TRANSFORMS]
)
def test_under_transforms_eager_and_compiled(name):
    plain, params, state, one, some, rest = pair()
    how = TRANSFORMS[name]
    want = how(of_params(plain, state))(params, X)

    def stack(found):
        if isinstance(found, tuple):
            return tuple(map(stack, found))
        return stack_vmapped(found, name) if isinstance(found, dict) else found

    run = how(of_params(one, rest))
    for got in (run(some, X), jit(run, backend="aot_eager")(some, X)):
        close(got, stack(want), rtol=1e-4, atol=1e-5)


def stack_vmapped(found, name):
    """Gradients of many have the blocks on their second axis."""
    ordinary = stack_blocks(found, "blocks")
    if name in ("per_example_grad", "vmap of grad"):
        return {key: t.movedim(0, 1) if "*" in key else t for key, t in ordinary.items()}
    return ordinary


def test_draws_come_from_the_key_another_for_each_block():
    class Noise(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            return torch.cat([x[1:], self.drop(torch.ones(1, 50))])

    model = Model(lambda: stacked(nn.Sequential(*(Noise() for _ in range(4))), ""))
    draw = lambda key: model.apply({}, {}, torch.zeros(4, 50), train=True, key=key)[0]  # noqa: E731
    rows = draw(KEY)
    assert len({tuple(row.tolist()) for row in rows}) == 4
    assert torch.equal(draw(KEY), rows)
    assert torch.equal(jit(draw, backend="eager")(KEY), rows)
    assert not torch.equal(draw(random.key(4)), rows)
    with pytest.raises(
        MissingKeyError, match=r"'\*' \(Noise\) of Model.*draws random numbers.*key=random.key\(0\)\)\.$"
    ):
        draw(None)


@pytest.mark.parametrize("remat", [False, True])
def test_gradients_through_draws_are_those_of_what_was_drawn(remat):
    *_, one, params, state = pair(DROPPING, remat=remat)
    params, state = tree.cast(params, torch.float64), tree.cast(state, torch.float64)

    def f(t):
        shifted = params | {"first.bias": params["first.bias"] + t}
        return one.apply(shifted, state, X.double(), train=True, key=KEY)[0].sum()

    zero = torch.zeros((), dtype=torch.float64)
    step = 1e-6
    want = (f(zero + step) - f(zero - step)) / (2 * step)
    close(grad(f)(zero), want, rtol=1e-6, atol=1e-8)
    close(jit(grad(f), backend="eager")(zero), want, rtol=1e-6, atol=1e-8)


def test_training_steps_are_those_of_the_ordinary_model():
    plain, params, state, one, some, rest = pair()
    optimizer = optim.adam(1e-2)

    def loss(model):
        def of(params, state, batch, key):
            out, state = model.apply(params, state, batch, train=True, key=key)
            return out.square().mean(), (state, {})

        return of

    ends = []
    for model, p, s, options in (
        (plain, params, state, {}),
        (one, some, rest, {}),
        (one, some, rest, {"donate": True}),
    ):
        ts = TrainState.create(tree.map(torch.clone, p), tree.map(torch.clone, s), optimizer, KEY)
        step = make_step(loss(model), optimizer, **options)
        for _ in range(3):
            ts, _ = step(ts, X)
        ends.append(ts.params if model is one else stack_blocks(ts.params, "blocks"))
    close(ends[1], ends[0])
    close(ends[2], ends[0])
    ts = TrainState.create(some, rest, optimizer, KEY)
    step = jit(make_step(loss(one), optimizer), donate=0, backend="aot_eager")
    for _ in range(3):
        ts, _ = step(ts, X)
    close(ts.params, ends[0])


def test_threads():
    *_, one, params, state = pair(DROPPING)
    call = lambda i: one.apply(params, state, X + i, train=True, key=random.key(i))[0]  # noqa: E731
    want, got = [call(i) for i in range(4)], {}
    threads = [threading.Thread(target=lambda i=i: got.update({i: [call(i) for _ in range(5)]})) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, expected in enumerate(want):
        assert all(torch.equal(result, expected) for result in got[i])


# -- as a plain module


@pytest.mark.parametrize("remat", [False, True])
def test_the_bound_module_trains_in_plain_torch(remat):
    plain, params, state, one, some, rest = pair(BATCHED, remat=remat)
    results = []
    for model, p, s in ((plain, params, state), (one, some, rest)):
        module = model.bind(p, s).train()
        module(X).square().sum().backward()
        results.append(({n: q.grad for n, q in module.named_parameters()}, dict(module.named_buffers())))
        module.eval()
        results[-1] += (module(X).detach(),)
    (slopes, buffers, out), got = results
    close(got, (stack_blocks(slopes, "blocks"), stack_blocks(buffers, "blocks"), out))


def test_the_bound_module_copies_pickles_and_says_what_it_is():
    *_, one, params, state = pair()
    module = one.bind(params, state).eval()
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(copied(X), module(X))
        assert "3 x Block(" in repr(copied)
    assert isinstance(module.blocks[0], Block)
    assert module.blocks[-1] is module.blocks[0]
    with pytest.raises(IndexError, match=r"ModuleList\[1\]: its 3 equal blocks are stacked"):
        module.blocks[1]


def test_a_pretrained_module_is_left_as_it_is():
    module = built().eval()
    before = copy.deepcopy(module.state_dict())
    model, params, state = Model.from_module(stacked(module, "blocks"))
    out = model(params, state, X)
    equal(module.state_dict(), before)
    assert len(module.blocks) == 3
    ordinary = unstack_blocks(params | state)
    assert set(ordinary) == set(before)
    module.load_state_dict(ordinary)
    close(out, module(X))


@pytest.mark.parametrize("count", [0, 1])
def test_of_no_block_and_of_one(count):
    plain, params, state, one, some, rest = pair(lambda: Net(count))
    for run in (one, jit(one.__call__, backend="eager")):
        close(run(some, rest, X), plain(params, state, X))
    if count:
        assert some["blocks.*.up.weight"].shape == (1, 8, 6)


def test_torchs_transformer_encoder():
    def net():
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        return nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)

    plain, params, state, one, some, rest = pair(net, "layers")
    x, mask = random.normal(KEY, (2, 5, 8)), nn.Transformer.generate_square_subsequent_mask(5)
    close(one(some, rest, x, mask=mask), plain(params, state, x, mask=mask))
    slopes = grad(lambda p: one.apply(p, rest, x, train=True)[0].square().sum())
    want = grad(lambda p: plain.apply(p, state, x, train=True)[0].square().sum())(params)
    close(slopes(some), stack_blocks(want, "layers"), rtol=1e-4, atol=1e-5)
    close(jit(slopes, backend="aot_eager")(some), stack_blocks(want, "layers"), rtol=1e-4, atol=1e-5)


def test_blocks_of_other_names_and_blocks_in_blocks():
    def vit():
        from torchvision.models import VisionTransformer

        return VisionTransformer(8, 4, 3, 2, 8, 16, num_classes=3)

    plain, params, state, one, some, rest = pair(vit, "encoder.layers")
    pattern = "encoder.layers.encoder_layer_{}"
    equal(unstack_blocks(some, pattern), params)
    equal(stack_blocks(params, pattern), some)
    x = random.normal(KEY, (2, 3, 8, 8))
    close(one(some, rest, x), plain(params, state, x))

    stages = lambda: nn.Sequential(*(nn.Sequential(Block(), Block()) for _ in range(3)))  # noqa: E731
    plain = Model(stages)
    nested = Model(lambda: stacked(stacked(stages(), "0", "1", "2"), ""))
    params, state = plain.init(KEY)
    some, rest = nested.init(KEY)
    assert some["*.*.up.weight"].shape == (3, 2, 8, 6)
    equal(unstack_blocks(some), params)
    x = random.normal(KEY, (5, 6))
    close(nested(some, rest, x), plain(params, state, x))
    f = lambda model, rest: lambda p: model.apply(p, rest, x)[0].square().sum()  # noqa: E731
    want = grad(f(plain, state))(params)
    for got in (grad(f(nested, rest))(some), jit(grad(f(nested, rest)), backend="aot_eager")(some)):
        close(unstack_blocks(got), want)


def test_blocks_that_write_over_their_argument():
    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 6)

        def forward(self, x):
            x += torch.tanh(self.linear(F.relu(x)))
            return x

    net = lambda: nn.Sequential(nn.Linear(4, 6), nn.Sequential(*(Writing() for _ in range(3))))  # noqa: E731
    plain, params, state, one, some, rest = pair(net, "1")
    loss = lambda model, s: lambda p: model.apply(p, s, X)[0].square().sum()  # noqa: E731
    want = stack_blocks(grad(loss(plain, state))(params), "1")
    close(grad(loss(one, rest))(some), want)
    close(jit(grad(loss(one, rest)), backend="aot_eager")(some), want)


# -- what is refused


def tied(net):
    net.blocks[2].up.weight = net.blocks[0].up.weight


def used_elsewhere(net):
    net.readout = net.blocks[1].down.weight


def other_shape(net):
    net.blocks[1].up = nn.Linear(6, 8, bias=False)


def other_scale(net):
    net.blocks[2].act = Block(scale=0.3).act


def other_class(net):
    net.blocks[2].norm = nn.RMSNorm(6)


def frozen(net):
    net.blocks[1].up.weight.requires_grad_(False)


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (tied, r"blocks.2.up.weight and blocks.0.up.weight are one tensor.*each needs its own"),
        (used_elsewhere, r"readout and blocks.1.down.weight are one tensor.*Untie them"),
        (other_shape, r"blocks.0.up.bias is a parameter of shape \(8,\).*, and blocks.1.up.bias is None"),
        (other_scale, r"blocks.0.act.keywords.scale is 0.5, and blocks.2.act.keywords.scale is 0.3"),
        (other_class, r"blocks.0.norm is LayerNorm, and blocks.2.norm is RMSNorm"),
        (frozen, r"blocks.1.up.weight is a parameter of shape \(8, 6\) and torch.float32, frozen"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_blocks_that_are_not_equal(spoil, match):
    net = built()
    with random.seeded(KEY):
        spoil(net)
    with pytest.raises(ValueError, match=match):
        stacked(net, "blocks")


def test_functions_are_equal_by_their_code_and_what_they_hold():
    def net(*scales):
        blocks = nn.Sequential(*(nn.Identity() for _ in scales))
        for block, scale in zip(blocks, scales, strict=True):
            block.f = lambda x, scale=scale: scale * x
        return blocks

    assert len(stacked(net(2.0, 2.0), "")) == 1
    with pytest.raises(ValueError, match=r"0.f.__defaults__.0 is 2.0, and 1.f.__defaults__.0 is 3.0"):
        stacked(net(2.0, 3.0), "")


def test_names_of_no_container():
    with pytest.raises(AttributeError, match=r"no submodule 'layers' to stack. Its containers are 'blocks'"):
        stacked(built(), "layers")
    with pytest.raises(TypeError, match=r"'blocks.0' of Net is a Block, and blocks are stacked in an nn.Sequential"):
        stacked(built(), "blocks.0")
    with pytest.raises(TypeError, match="'blocks' of Net is stacked already"):
        stacked(stacked(built(), "blocks"), "blocks")
    with pytest.raises(KeyError, match="no name is of a block of 'layers'"):
        stack_blocks({"blocks.0.bias": X}, "layers")
    with pytest.raises(ValueError, match=r"'blocks.\*.bias' has no tensor of block 1, of 3"):
        stack_blocks({"blocks.0.bias": X, "blocks.2.bias": X}, "blocks")


def test_keywords_in_any_order():
    class Named(Net):
        def forward(self, x):
            shift, h = x.sum(), self.first(x)
            for block in self.blocks:
                h = block(shift=shift, x=h)
            return self.last(h)

    class Shifted(Named):
        def forward(self, x):
            for block in self.blocks:
                block(shift=x)
            return x

    model = Model(Named)
    params, state = model.init(KEY)
    x = random.normal(KEY, (5, 4))
    ours = Model(lambda: stacked(Named(), "blocks"))
    stacked_params, stacked_state = (stack_blocks(t, "blocks") for t in (params, state))
    torch.testing.assert_close(ours(stacked_params, stacked_state, x), model(params, state, x))
    with pytest.raises(TypeError, match=r"hand 'x', the first argument of their forward, .* called with 'shift' alone"):
        Model(lambda: stacked(Shifted(), "blocks"))(stacked_params, stacked_state, x)


def test_a_block_that_changes_the_shape():
    class Growing(nn.Module):
        def forward(self, x):
            return torch.cat([x, x])

    model = Model(lambda: stacked(nn.Sequential(Growing(), Growing()), ""))
    with pytest.raises(TypeError, match=r"needs from Growing a carry like the one it was given.*\(5, 4\).*\(10, 4\)"):
        model({}, {}, X)


def test_capture_names_all_blocks_or_none():
    *_, one, params, state = pair()
    _, _, captured = one.apply(params, state, X, capture="blocks.[*]")
    assert captured["blocks.*"].shape == (5, 6)
    with pytest.raises(TypeError, match=r"'blocks.\*.norm', which capture.*Name them all together by 'blocks.\[\*\]'"):
        one.apply(params, state, X, capture="blocks.*.norm")
