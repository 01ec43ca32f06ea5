"""Torch's own modules run with the mode off the stack, and nobody can tell: not by results, keys or other modes."""

import gc
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from funcnet import Model, _compat, grad, hvp, jvp, random, tree, vmap
from funcnet.pure.aside import as_torch_made_it
from funcnet.pure.inert import inert
from funcnet.pure.mode import PureMode
from funcnet.random.aside import aside
from funcnet.random.seeded import KeyedMode
from tests.models import built

KEY = random.key(5)
F64 = torch.float64
LAYER = {"d_model": 4, "nhead": 2, "dim_feedforward": 6, "dropout": 0.3, "batch_first": True}


class Net(nn.Module):
    """A forward of one's own, around modules of torch's."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**LAYER), 2, enable_nested_tensor=False)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        y = self.encoder(x) + F.dropout(x, 0.4, self.training)
        return self.norm(y.transpose(1, 2)).flatten(1)


def encoder():
    layer = nn.TransformerEncoderLayer(**LAYER, norm_first=True, activation="gelu")
    return nn.TransformerEncoder(layer, 2, nn.LayerNorm(4), enable_nested_tensor=False)


def sequence(*parts):
    return lambda: nn.Sequential(*(part() for part in parts))


SEQUENCE, PICTURE = (3, 5, 4), (3, 4, 6, 6)
CASES = {
    "net": (Net, SEQUENCE),
    "encoder": (encoder, SEQUENCE),
    "layer": (lambda: nn.TransformerEncoderLayer(**LAYER), SEQUENCE),
    "layer norm": (sequence(lambda: nn.LayerNorm(4), nn.Tanh), SEQUENCE),
    "batch norm": (sequence(lambda: nn.Conv2d(4, 4, 3), lambda: nn.BatchNorm2d(4), nn.ReLU), PICTURE),
    "averaging batch norm": (sequence(lambda: nn.BatchNorm2d(4, momentum=None), nn.Tanh), PICTURE),
    "pooling": (sequence(lambda: nn.AdaptiveAvgPool2d(1), nn.Flatten, nn.Hardsigmoid, nn.GLU), PICTURE),
    "dropout": (sequence(nn.Dropout, nn.Dropout, nn.Tanh, nn.AlphaDropout), SEQUENCE),
    "channel dropout": (sequence(nn.Dropout2d, nn.FeatureAlphaDropout, nn.RReLU), PICTURE),
    "dropout of rows": (sequence(nn.Dropout1d, lambda: nn.LocalResponseNorm(2)), SEQUENCE),
    "instance norm": (sequence(lambda: nn.InstanceNorm2d(4, track_running_stats=True), nn.Dropout), PICTURE),
}


@pytest.fixture(params=CASES)
def case(request):
    constructor, shape = CASES[request.param]
    model = Model(constructor)
    params, state = model.init(KEY, dtype=F64)
    return request.param, model, params, state, random.normal(KEY, shape, F64)


@pytest.fixture
def on_the_stack(monkeypatch):
    """Run something with the mode on the stack for every call."""

    def run(f):
        with monkeypatch.context() as patch:
            patch.setattr("funcnet._compat.globally_hooked", lambda: True)
            patch.setattr("funcnet.random.reopen.aside", lambda function, kind: None)
            return f()

    return run


class Seen(TorchFunctionMode):
    """A mode of a user's, which writes down what it sees."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls.append(func)
        return func(*args, **(kwargs or {}))


def same(a, b):
    tree.map(lambda x, y: torch.testing.assert_close(x, y, rtol=0, atol=0), a, b)


def met(monkeypatch, f):
    """How many calls of torch functions meet the mode."""
    calls = []
    handle = KeyedMode.__torch_function__

    def counted(self, func, types, args=(), kwargs=None):
        calls.append(func)
        return handle(self, func, types, args, kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(KeyedMode, "__torch_function__", counted)
        f()
    return calls


@pytest.mark.parametrize("train", [False, True])
def test_results_state_and_keys_are_those_of_the_mode(case, train, on_the_stack):
    _, model, params, state, x = case

    def call():
        return model.apply(params, state, x, key=KEY, train=train)

    def derivatives():
        score = lambda p, x: (model.apply(p, state, x, key=KEY, train=train)[0] ** 3).sum()  # noqa: E731 - one line
        f = lambda x: model.apply(params, state, x, key=KEY, train=train)[0]  # noqa: E731 - likewise
        mapped = vmap(f)(torch.stack([x, x + 0.5]))
        return grad(score, (0, 1))(params, x), hvp(lambda x: score(params, x), (x,), (x,)), jvp(f, (x,), (x,)), mapped

    for part in (call, derivatives):
        same(part(), on_the_stack(part))


@pytest.mark.parametrize("train", [False, True])
def test_a_mode_around_the_call_sees_what_it_saw(case, train, on_the_stack):
    name, model, params, state, x = case
    if inert(built(CASES[name][0]).train(train)):
        pytest.skip("an inert net shows a mode around it the functions of dropout in evaluation")

    def watched():
        with Seen() as seen:
            model.apply(params, state, x, key=KEY, train=train)
        return seen.calls

    watched()  # the first call makes the module's copy
    calls, want = watched(), on_the_stack(watched)
    # Looking for what was written reads the versions of the arguments, which torch's own modules do not need.
    version = Tensor._version.__get__
    assert [f for f in calls if f != version] == [f for f in want if f != version]
    assert calls


def test_a_mode_within_the_call_sees_every_function():
    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(**LAYER)

        def forward(self, x):
            with Seen() as self.seen:
                y = self.layer(x)
            calls.append(self.seen.calls)
            return y

    calls = []
    model, plain = Model(Watched), Model(nn.TransformerEncoderLayer, **LAYER)
    params, state = model.init(KEY)
    x = random.normal(KEY, SEQUENCE)
    y, _ = model.apply(params, state, x, key=KEY, train=True)
    inner = {name.removeprefix("layer."): p for name, p in params.items()}
    same(y, plain.apply(inner, {}, x, key=KEY, train=True)[0])
    assert {F.dropout, F.layer_norm, F.multi_head_attention_forward} <= set(calls[0])


def test_nothing_of_a_transformer_meets_the_mode(monkeypatch):
    for constructor in (encoder, CASES["batch norm"][0]):
        model = Model(constructor)
        params, state = model.init(KEY)
        x = random.normal(KEY, SEQUENCE if constructor is encoder else PICTURE)
        assert not met(monkeypatch, lambda: model.apply(params, state, x, key=KEY, train=True))  # noqa: B023 - called here


def test_what_a_forward_of_ones_own_calls_meets_the_mode(monkeypatch):
    model = Model(Net)
    params, state = model.init(KEY)
    calls = met(monkeypatch, lambda: model.apply(params, state, random.normal(KEY, SEQUENCE), key=KEY, train=True))
    assert F.dropout in calls
    assert len(calls) < 10


def test_draws_differ_between_layers_and_heads_and_come_from_the_key(on_the_stack):
    model = Model(sequence(lambda: nn.Dropout(0.5), lambda: nn.Dropout(0.5)))
    x = torch.ones(40, 40)
    before = torch.random.get_rng_state()
    once, _ = Model(nn.Dropout, 0.5).apply({}, {}, x, key=KEY, train=True)
    twice, _ = model.apply({}, {}, x, key=KEY, train=True)
    assert 0.15 < (twice != 0).float().mean() < 0.35  # 0.5, if both drew the same
    assert 0.4 < (once != 0).float().mean() < 0.6
    assert not torch.equal(twice, model.apply({}, {}, x, key=random.key(6), train=True)[0])
    attention = Model(nn.MultiheadAttention, 8, 2, dropout=0.5, batch_first=True)
    params, state = attention.init(KEY)
    row = random.normal(KEY, (1, 30, 8))

    def weights():
        return attention.apply(params, state, row, row, row, average_attn_weights=False, key=KEY, train=True)[0][1]

    dropped = weights() == 0
    assert not torch.equal(dropped[:, 0], dropped[:, 1])
    same(weights(), on_the_stack(weights))
    assert torch.equal(torch.random.get_rng_state(), before)


def noisy(x):
    return x + torch.randn_like(x)


def with_activation():
    return nn.TransformerEncoderLayer(**LAYER, activation=noisy)


def hooked():
    module = nn.Sequential(nn.LayerNorm(4), nn.Dropout(0.5))
    module[1].register_forward_hook(lambda module, args, output: noisy(output))
    return module


def patched():
    module = nn.TransformerEncoderLayer(**LAYER)
    module._ff_block = noisy
    return module


@pytest.mark.parametrize("constructor", [with_activation, hooked, patched])
def test_code_of_ones_own_draws_from_the_key(constructor):
    model, params, state = Model.from_module(built(constructor))
    x = random.normal(KEY, SEQUENCE)
    before = torch.random.get_rng_state()
    first, second = (model.apply(params, state, x, key=KEY, train=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, model.apply(params, state, x, key=random.key(6), train=True)[0])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_another_method_in_the_class_is_not_torchs(monkeypatch):
    module = built(lambda: nn.TransformerEncoderLayer(**LAYER))
    assert as_torch_made_it(module)
    monkeypatch.setattr(nn.TransformerEncoderLayer, "_ff_block", lambda self, x: noisy(x))
    assert not as_torch_made_it(module)


def test_a_class_of_ones_own_is_not_torchs():
    assert not as_torch_made_it(type("Mine", (nn.LayerNorm,), {})(4))
    assert not as_torch_made_it(built(lambda: nn.LSTM(4, 4)))


def test_captures_and_perturbations_reach_into_torchs_modules(on_the_stack):
    model = Model(Net)
    params, state = model.init(KEY)
    x = random.normal(KEY, SEQUENCE)

    def call():
        return model.apply(params, state, x, key=KEY, train=True, capture=("encoder.layers.*.norm1", "norm"))

    output, _, captured = call()
    assert set(captured) == {"encoder.layers.0.norm1", "encoder.layers.1.norm1", "norm"}
    same(call(), on_the_stack(call))
    same(output, model.apply(params, state, x, key=KEY, train=True)[0])


def test_errors_say_which_submodule():
    model = Model(encoder)
    params, state = model.init(KEY)
    with pytest.raises(RuntimeError, match="normalized_shape") as caught:
        model(params, state, random.normal(KEY, (3, 5, 6)))
    assert "submodule 'layers.0.norm1' (LayerNorm)" in caught.value.__notes__[0]
    y = model(params, state, random.normal(KEY, SEQUENCE))  # the stack of modes is as it was
    assert y.shape == SEQUENCE
    assert not torch.overrides._get_current_function_mode_stack()


def test_nothing_stays_in_the_module_and_writing_is_refused():
    model = Model(sequence(lambda: nn.BatchNorm2d(4), lambda: nn.Dropout(0.5)))
    params, state = model.init(KEY)
    _, new = model.apply(params, state, random.normal(KEY, PICTURE), key=KEY, train=True)
    assert int(new["0.num_batches_tracked"]) == 1
    assert int(state["0.num_batches_tracked"]) == 0
    (body,) = model._skeleton._free[True]
    assert all(t.device.type == "meta" for t in (*body.module.parameters(), *body.module.buffers()))
    writing = Model(sequence(lambda: nn.ReLU(inplace=True), lambda: nn.LayerNorm(6)))
    with pytest.raises(RuntimeError, match="wrote into its argument 0"):
        writing.apply(*writing.init(KEY), random.normal(KEY, PICTURE), train=True)


def test_threads_keep_their_keys_apart():
    model = Model(encoder)
    params, state = model.init(KEY)
    x, keys = random.normal(KEY, SEQUENCE), random.split(KEY, 4)
    expected = [model.apply(params, state, x, key=key, train=True)[0] for key in keys]
    wrong = []

    def work(index):
        for _ in range(20):
            if not torch.equal(model.apply(params, state, x, key=keys[index], train=True)[0], expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_only_functions_whose_calls_can_be_told_run_aside():
    def through_a_method(x):
        return x.bernoulli_(0.5)

    def held():
        return drop(torch.ones(2))

    drop = F.dropout

    class Watching(PureMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return super().__torch_function__(func, types, args, kwargs)

    assert aside(through_a_method, PureMode) is None
    assert aside(held, PureMode) is None
    assert aside(nn.LayerNorm.forward, PureMode) not in (None, nn.LayerNorm.forward)
    assert aside(nn.GELU.forward, PureMode) is nn.GELU.forward
    assert aside(nn.LayerNorm.forward, Watching) is None


@pytest.mark.parametrize("taken_off", [False, True], ids=["before", "after"])
def test_an_interrupt_while_the_mode_is_taken_off_leaves_nothing(taken_off, monkeypatch):
    model = Model(Net)
    params, state = model.init(KEY, dtype=F64)
    x = random.normal(KEY, SEQUENCE, F64)
    expected = model.apply(params, state, x, key=KEY, train=True)

    def interrupted():
        if taken_off:
            pop()
        raise KeyboardInterrupt

    pop = _compat.pop_function_mode
    with monkeypatch.context() as patch:
        patch.setattr(_compat, "pop_function_mode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.apply(params, state, x, key=KEY, train=True)
    assert not _compat.function_modes()
    gc.collect()  # the traceback, which holds the module that was called
    tree.map(
        lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=0),
        model.apply(params, state, x, key=KEY, train=True),
        expected,
    )
