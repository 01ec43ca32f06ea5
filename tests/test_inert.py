"""A net of torch's own modules that ask nothing of the function mode runs without it, and nobody can tell."""

import gc
import threading
import weakref

import pytest
import torch
import torch.nn.functional as F
from matrix import layers
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from funcnet import Model, grad, hvp, jit, jvp, per_example_grad, random, tree, vmap
from funcnet.pure import inert as rule
from funcnet.pure.mode import PureMode
from tests.models import built

KEY = random.key(3)
F64 = torch.float64

ACTIVATIONS = [nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish]
ACTIVATIONS += [nn.Hardswish, nn.Hardtanh, nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Softplus, nn.Softsign, nn.Tanhshrink]
ARGUMENTS = {
    nn.Sequential: (nn.Linear(4, 4), nn.Tanh()), nn.Unflatten: (-1, (2, 2)), nn.Linear: (4, 3), nn.Bilinear: (4, 4, 2),
    nn.Embedding: (5, 3), nn.ZeroPad2d: (1,), nn.ConstantPad2d: (1, 0.5), nn.ReflectionPad2d: (1,),
    nn.ReplicationPad2d: (1,), nn.Upsample: (None, 2), nn.PixelShuffle: (2,), nn.GroupNorm: (2, 4), nn.RMSNorm: (4,),
    nn.Softmax: (-1,), nn.LogSoftmax: (-1,),
}  # fmt: skip
OF_FEATURES = {nn.Linear, nn.Bilinear, nn.Sequential, nn.Unflatten, nn.RMSNorm, nn.Dropout}


def example(cls):
    """A constructor of a listed class, and the inputs of one call, for a batch of 3."""
    name = cls.__name__
    dims = int(name[-2]) if name[-2:] in ("1d", "2d", "3d") else 2
    arguments = ARGUMENTS.get(cls, ())
    if "Pool" in name:
        arguments = (2,)
    elif "Conv" in name:
        arguments = (4, 2, 2)
    elif "BatchNorm" in name:
        arguments = (4,)
    shape = (3, 4) if cls in OF_FEATURES or cls in ACTIVATIONS else (3, 4, *(4,) * dims)
    if cls is nn.Embedding:
        return lambda: cls(*arguments), (random.randint(KEY, (3, 2), 0, 5).long(),)
    keys = random.split(KEY, 2 if cls is nn.Bilinear else 1)
    return lambda: cls(*arguments), tuple(random.normal(key, shape, F64) for key in keys)


LISTED = [(cls, train) for cls in rule.ALWAYS for train in (False, True)] + [(c, False) for c in rule.IN_EVALUATION]


@pytest.fixture
def through_the_mode(monkeypatch):
    """Run something as if no module were inert."""

    def run(f):
        with monkeypatch.context() as patch:
            patch.setattr("funcnet.model._tensors_alone", lambda args: False)
            return f()

    return run


def same(a, b):
    tree.map(lambda x, y: torch.testing.assert_close(x, y, rtol=0, atol=0), a, b)


class EnteredError(Exception):
    """A mode was entered that should not have been."""


@pytest.fixture
def no_mode(monkeypatch):
    """Make entering the mode of a pure call an error."""

    def refuse(self):
        raise EnteredError

    monkeypatch.setattr(PureMode, "__enter__", refuse)


def pictures():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3), nn.Tanh())


def evaluated():
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Softplus(), nn.Dropout(0.5), nn.Linear(6, 3))


@pytest.mark.parametrize(("cls", "train"), LISTED, ids=lambda v: getattr(v, "__name__", str(v)))
def test_a_listed_class_gives_the_same_with_and_without_the_mode(cls, train, through_the_mode):
    constructor, inputs = example(cls)
    model = Model(constructor)
    params, state = model.init(KEY, dtype=F64)

    def call():
        return model.apply(params, state, *inputs, train=train)

    def derivatives():
        if cls is nn.Embedding:
            return grad(lambda p: (model.apply(p, state, *inputs, train=train)[0] ** 3).sum())(params)
        f = lambda x: model.apply(params, state, x, *inputs[1:], train=train)[0]  # noqa: E731 - one line is clearest
        score = lambda x: (f(x) ** 3).sum()  # noqa: E731 - likewise
        mapped = vmap(f)(torch.stack([inputs[0], inputs[0] + 0.5])) if len(inputs) == 1 else ()
        return grad(score)(inputs[0]), hvp(score, inputs[:1], inputs[:1]), jvp(f, inputs[:1], inputs[:1]), mapped

    for part in (call, derivatives):
        same(part(), through_the_mode(part))


@pytest.mark.parametrize(("cls", "train"), LISTED, ids=lambda v: getattr(v, "__name__", str(v)))
def test_a_listed_class_runs_without_the_mode_and_draws_nothing(cls, train, no_mode):
    constructor, inputs = example(cls)
    model = Model(constructor)
    params, state = model.init(KEY, dtype=F64)
    before = torch.random.get_rng_state()
    model.apply(params, state, *inputs, train=train)
    assert torch.equal(torch.random.get_rng_state(), before)


# What the mode's table answers in the same way as torch, in the modes of modules that are listed.
AS_TORCH = {F.embedding, F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout}
AS_TORCH |= {F.batch_norm, torch.feature_dropout}


@pytest.mark.parametrize(("cls", "train"), LISTED, ids=lambda v: getattr(v, "__name__", str(v)))
def test_a_listed_class_calls_nothing_that_the_mode_answers_otherwise(cls, train, monkeypatch):
    constructor, inputs = example(cls)
    module = built(constructor).double().train(train)
    asked = set()

    class Seen(PureMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            asked.add(func)
            return super().__torch_function__(func, types, args, kwargs)

    with Seen(None, {}, None):
        module(*inputs)
    # A linear layer is there for its speed on transposed inputs: the same numbers.
    answered = {f for f in asked if f in PureMode.table} - {F.linear}
    assert answered <= (AS_TORCH if cls is nn.Embedding or cls in rule.IN_EVALUATION else set())


@pytest.mark.parametrize("name", [n for n in layers.LAYERS if "Lazy" not in n])
def test_no_row_of_the_matrix_is_inert_that_draws_or_writes(name):
    layer = layers.LAYERS[name]
    module = built(layer.constructor).double().train()
    if not rule.inert(module):
        return
    module.requires_grad_(False)
    inputs = [x.clone() for x in layer.example(KEY)]
    tensors = {**dict(module.named_buffers()), **dict(module.named_parameters())}
    before = tree.map(torch.clone, (tensors, inputs)), torch.random.get_rng_state(), dict(vars(module))
    first, second = module(*inputs), module(*inputs)
    assert torch.equal(torch.random.get_rng_state(), before[1])
    assert vars(module) == before[2]
    same(before[0], (tensors, inputs))
    same(first, second)


@pytest.mark.parametrize(
    "constructor",
    [
        lambda: nn.Dropout(0.5),
        lambda: nn.RReLU(),
        lambda: nn.BatchNorm1d(4),
        lambda: nn.LayerNorm(4),
        lambda: nn.ReLU(inplace=True),
        lambda: nn.Embedding(4, 4, max_norm=1.0),
        lambda: nn.MultiheadAttention(4, 2),
        lambda: nn.LSTM(4, 4),
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)),
        lambda: type("Mine", (nn.Linear,), {})(4, 4),
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)),
    ],
)
def test_what_draws_writes_or_is_not_torchs_own_is_not_inert(constructor):
    assert not rule.inert(built(constructor).train())


def test_a_module_that_draws_is_wrong_when_taken_for_inert(monkeypatch):
    model = Model(lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)))
    params, state = model.init(KEY)
    x = random.normal(KEY, (64, 4))
    expected, _ = model.apply(params, state, x, key=KEY, train=True)
    monkeypatch.setattr("funcnet.pure.skeleton.inert", lambda module: True)
    wrong = Model(lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)))
    with torch.random.fork_rng(devices=[]):
        found = [wrong.apply(params, state, x, key=KEY, train=True)[0] for _ in range(2)]
    assert not torch.equal(found[0], expected)
    assert not torch.equal(*found)


def test_hooks_and_forwards_of_ones_own_are_run_under_the_mode():
    def noisy(module, args, output):
        return output + torch.randn_like(output)

    def forward(x):
        return x + torch.randn_like(x)

    hooked, patched = built(lambda: nn.Sequential(nn.Linear(4, 4))), built(lambda: nn.Sequential(nn.Linear(4, 4)))
    hooked[0].register_forward_hook(noisy)
    patched[0].forward = forward
    x = random.normal(KEY, (2, 4))
    for module in (hooked, patched):
        model, params, state = Model.from_module(module)
        before = torch.random.get_rng_state()
        a, _ = model.apply(params, state, x, key=KEY)
        b, _ = model.apply(params, state, x, key=KEY)
        assert torch.equal(a, b)
        assert torch.equal(torch.random.get_rng_state(), before)


def test_a_hook_on_all_modules_is_run_under_the_mode():
    model = Model(nn.Linear, 4, 4)
    params, state = model.init(KEY)
    x = random.normal(KEY, (2, 4))
    plain = model(params, state, x)

    def noisy(module, args, output):
        return output + torch.randn_like(output)

    handle = register_module_forward_hook(noisy)
    try:
        before = torch.random.get_rng_state()
        a, _ = model.apply(params, state, x, key=KEY)
        assert torch.equal(a, model.apply(params, state, x, key=KEY)[0])
        assert not torch.equal(a, plain)
        assert torch.equal(torch.random.get_rng_state(), before)
    finally:
        handle.remove()


def test_another_forward_in_the_class_is_run_under_the_mode(monkeypatch):
    monkeypatch.setattr(nn.Tanh, "forward", lambda self, x: x + torch.randn_like(x))
    assert not rule.inert(nn.Sequential(nn.Tanh()))


@pytest.mark.parametrize("constructor", [pictures, evaluated])
def test_gradients_of_parameters_and_compiled_calls_agree(constructor, through_the_mode):
    model = Model(constructor)
    params, state = model.init(KEY, dtype=F64)
    shape = (5, 3, 6, 6) if constructor is pictures else (5, 4)
    x = random.normal(KEY, shape, F64)

    def loss(params, x):
        return (model(params, state, x) ** 2).sum()

    def all_of_them():
        return (
            grad(loss)(params, x),
            hvp(lambda p: loss(p, x), (params,), (params,)),
            per_example_grad(loss)(params, x),
        )

    same(all_of_them(), through_the_mode(all_of_them))
    compiled = jit(grad(loss), backend="aot_eager")(params, x)
    tree.map(lambda a, b: torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12), compiled, grad(loss)(params, x))


def test_the_state_comes_back_and_errors_say_where(no_mode):
    model = Model(evaluated)
    params, state = model.init(KEY, dtype=F64)
    _, after = model.apply(params, state, random.normal(KEY, (3, 4), F64))
    assert list(after) == list(state)
    assert after is not state
    assert all(after[name] is state[name] for name in state)
    with pytest.raises(RuntimeError) as caught:
        model(params, state, random.normal(KEY, (3, 5), F64))
    assert "submodule '0' (Linear)" in caught.value.__notes__[0]


def test_nothing_of_a_call_stays_in_the_module():
    model = Model(pictures)
    params, state = model.init(KEY)
    model(params, state, random.normal(KEY, (1, 3, 6, 6)))
    (body,) = model._skeleton._free[False]
    assert all(p.device.type == "meta" for p in body.module.parameters())


def test_threads_do_not_see_each_others_parameters():
    model = Model(evaluated)
    inits = [model.init(key) for key in random.split(KEY, 4)]
    x = random.normal(KEY, (3, 4))
    expected = [model(params, state, x) for params, state in inits]
    wrong = []

    def work(index):
        for _ in range(200):
            if not torch.equal(model(*inits[index], x), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def nested():
    layer = nn.Linear(4, 4)
    module = nn.Sequential(layer, nn.Sequential(nn.Tanh(), nn.Sequential()), layer, nn.BatchNorm1d(4))
    module.scale = torch.ones(1)  # a tensor that no forward looks at
    return module.eval()


def test_layers_one_after_another_are_the_module(through_the_mode, no_mode):
    model, params, state = Model.from_module(built(nested))
    module, x = model.bind(params, state).eval(), random.normal(KEY, (3, 4))
    for _ in range(2):
        assert torch.equal(model(params, state, x), module(x))
    other = {name: leaf + 1 for name, leaf in params.items()}
    assert torch.equal(model(other, state, x), model.bind(other, state).eval()(x))
    with pytest.raises(EnteredError):
        through_the_mode(lambda: model(params, state, x))


@pytest.mark.parametrize("fails", [False, True])
def test_no_tensor_stays_in_a_layer(fails):
    model, params, state = Model.from_module(built(nested))
    x = random.normal(KEY, (3, 5 if fails else 4))
    held = [weakref.ref(leaf) for leaf in params.values()]
    if fails:
        with pytest.raises(RuntimeError, match="cannot be multiplied") as error:
            model(params, state, x)
        assert "submodule '0' (Linear)" in error.value.__notes__[0]
        del error
    else:
        model(params, state, x)
    del params
    gc.collect()
    assert not any(leaf() is not None for leaf in held)


def test_a_sequence_takes_one_argument():
    model, params, state = Model.from_module(built(nested))
    x = random.normal(KEY, (3, 4))
    with pytest.raises(TypeError, match=r"Sequential.forward\(\) takes 2 positional arguments but 3 were given"):
        model(params, state, x, x)


def test_one_check_of_many_tensors_is_no_weaker_than_theirs():
    model, params, state = Model.from_module(built(nested))
    x = random.normal(KEY, (3, 4))
    for _ in range(2):
        model(params, state, x)
    for wrong in ({"0.weight": params["0.bias"]}, {"0.bias": params["0.bias"].int()}, {"spare": x}):
        with pytest.raises(tree.TreeMismatchError, match=next(iter(wrong))):
            model(params | wrong, state, x)
    with pytest.raises(tree.TreeMismatchError, match=r"0\.bias"):
        model({name: leaf for name, leaf in params.items() if name != "0.bias"}, state, x)
    assert torch.equal(
        model(tree.cast(params, F64), tree.cast(state, F64), x.double()).float().isfinite(), torch.ones(3, 4) > 0
    )
