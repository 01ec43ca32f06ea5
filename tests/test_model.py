import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from funcnet import MissingKeyError, Model, grad, jit, random, tree, vmap
from tests.models import Counter, Everything, built, cnn, lstm, mlp, transformer, twin

KEY = random.key(3)
IMAGES = random.normal(random.key(1), (5, 3, 8, 8))
ROWS = random.normal(random.key(2), (7, 6))


def equal(a, b):
    return tree.paths(a) == tree.paths(b) and all(
        torch.equal(x, y) for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True)
    )


def test_init_depends_on_the_key_alone():
    model = Model(Everything)
    first, second, other = model.init(KEY), Model(Everything).init(KEY), model.init(random.key(4))
    assert equal(first, second)
    assert not torch.equal(first[0]["conv.weight"], other[0]["conv.weight"])
    assert first[0]["conv.weight"].std() > 0.05  # drawn, not zeros


def test_names_are_those_of_torch():
    module = built(Everything)
    _, params, state = Model.from_module(module)
    assert list(params) == [name for name, _ in module.named_parameters()]
    assert list(state) == [*[name for name, _ in module.named_buffers()], "scale", "shifts.0", "shifts.2"]
    assert "second.weight" not in params  # tied to first.weight


def test_initial_distribution_is_torchs():
    # Kaiming uniform with a = sqrt(5): U(-1/sqrt(in), 1/sqrt(in)), variance 1 / (3 in).
    params, _ = Model(nn.Linear, 100, 400).init(KEY)
    assert params["weight"].abs().max() <= 0.1
    assert params["weight"].var().item() == pytest.approx(1 / 300, rel=0.03)


def test_init_dtype_and_device():
    params, state = Model(cnn).init(KEY, dtype=torch.bfloat16)
    assert {p.dtype for p in params.values()} == {torch.bfloat16}
    assert state["1.num_batches_tracked"].dtype == torch.int64
    params, _ = Model(cnn).init(KEY, device="meta")
    assert {p.device.type for p in params.values()} == {"meta"}


@pytest.mark.parametrize(("constructor", "x"), [(Everything, IMAGES), (cnn, IMAGES), (mlp, ROWS)])
def test_evaluation_equals_the_module(constructor, x):
    module = built(constructor).eval()
    model, params, state = Model.from_module(module)
    assert torch.equal(model(params, state, x), module(x))


def test_apply_before_init_builds_the_skeleton():
    params, state = Model(Everything).init(KEY)
    fresh = Model(Everything)
    assert torch.equal(fresh(params, state, IMAGES), Model(Everything)(params, state, IMAGES))


@pytest.mark.parametrize("constructor", [Everything, lstm, transformer])
def test_train_mode_is_a_function_of_the_key(constructor):
    model = Model(constructor)
    params, state = model.init(KEY)
    x = {Everything: IMAGES, lstm: IMAGES[:, 0, :, :5], transformer: IMAGES[:, 0]}[constructor]

    def run(key):
        return model.apply(params, state, x, key=key, train=True)

    assert equal(run(random.key(1)), run(random.key(1)))
    first, second = tree.leaves(run(random.key(1))[0]), tree.leaves(run(random.key(2))[0])
    assert not torch.allclose(first[0], second[0])


def test_layers_drop_independently():
    model = Model(lambda: nn.Sequential(nn.Dropout(0.5), nn.Identity(), nn.Dropout(0.5)))
    out, _, captured = model.apply({}, {}, torch.ones(4000), key=KEY, train=True, capture=("0",))
    first, both = captured["0"] != 0, out != 0
    assert (first & ~both).sum() == pytest.approx(1000, abs=100)  # the second drops half of what the first left


def test_batch_norm_statistics_equal_the_module():
    module = built(cnn).train()
    model, params, state = Model.from_module(module)
    for step in range(3):
        x = random.normal(random.fold_in(KEY, step), (4, 3, 8, 8))
        expected = module(x)
        output, state = model.apply(params, state, x, train=True)
        assert torch.equal(output, expected)
        assert equal(state, dict(module.named_buffers()))


@pytest.mark.parametrize("shared", ["1.running_mean", "0.bias"])
def test_statistics_that_were_one_tensor_go_their_own_ways(shared):
    module = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3)).train()
    with torch.no_grad():
        module[0].bias.copy_(random.normal(KEY, (3,))).requires_grad_(False)
    model, params, state = Model.from_module(module)
    one = state["0.bias"].clone()
    state = dict(reversed((state | {"0.running_mean": one, shared: one}).items()))
    module[0].running_mean.copy_(one), module[1].running_mean.copy_(state["1.running_mean"])
    x = random.normal(KEY, (4, 3)) + 2
    output, new = model.apply(params, state, x, train=True)
    assert torch.equal(output, module(x))
    torch.testing.assert_close(new, {name: module.state_dict()[name] for name in state}, rtol=0, atol=0)
    assert torch.equal(one, state["0.bias"])


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.InstanceNorm1d, nn.SyncBatchNorm])
@pytest.mark.parametrize("momentum", [0.3, None])
def test_running_statistics_under_vmap_and_jit(norm, momentum):
    if norm is not nn.BatchNorm1d and momentum is None:
        momentum = 0.9
    model = Model(norm, 3, momentum=momentum, track_running_stats=True)
    params, state = model.init(KEY)
    batches = random.normal(KEY, (4, 6, 3, 5)) + 2

    def run(x):
        return model.apply(params, state, x, train=True)

    loop = [run(x) for x in batches]
    for got in (vmap(run)(batches), tree.stack([jit(run, backend="aot_eager")(x) for x in batches])):
        tree.map(lambda a, b: torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6), got, tree.stack(loop))
    module = norm(3, momentum=momentum, track_running_stats=True)
    module(batches[0])
    torch.testing.assert_close(loop[0][1]["running_var"], module.running_var)
    assert not torch.equal(state["running_mean"], loop[0][1]["running_mean"])


def test_batch_norm_of_one_value_is_refused_in_every_mode():
    model = Model(nn.BatchNorm1d, 3)
    params, state = model.init(KEY)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model.apply(params, state, torch.ones(1, 3), train=True)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        vmap(lambda x: model.apply(params, state, x, train=True))(torch.ones(4, 1, 3))


def test_buffers_written_in_any_way_become_new_state():
    model = Model(Counter)
    _, state = model.init(KEY)
    before = tree.map(torch.clone, state)
    x = random.normal(KEY, (4, 3))
    for train in (False, True):
        _, new = model.apply({}, state, x, train=train)
        assert new["calls"] == 1
        torch.testing.assert_close(new["mean"], 0.1 * x.mean(0))
        assert torch.equal(new["rows"], torch.stack([x[0], torch.zeros(3)]))
    assert equal(state, before)


def test_embedding_with_max_norm_leaves_its_parameter():
    module = built(lambda: nn.Embedding(5, 3, max_norm=0.5))
    model, params, state = Model.from_module(module)
    before = params["weight"].clone()
    index = torch.tensor([0, 2, 2])
    torch.testing.assert_close(model(params, state, index), module(index))
    assert torch.equal(params["weight"], before)


def test_frozen_parameters_are_state():
    module = built(mlp)
    module[0].requires_grad_(False)
    model, params, state = Model.from_module(module)
    assert list(params) == ["3.weight", "3.bias"]
    assert list(state) == ["0.weight", "0.bias"]
    grads = grad(lambda p: model(p, state, ROWS).square().sum())(params)
    assert list(grads) == ["3.weight", "3.bias"]
    assert model.bind(params, state)[0].weight.requires_grad is False


def test_leaves_may_move_between_the_dicts():
    model = Model(mlp)
    params, state = model.init(KEY)
    head, body = tree.split(params, "3.*")
    assert torch.equal(model(head, {**body, **state}, ROWS), model(params, state, ROWS))


@pytest.mark.parametrize(
    "parametrize", [parametrizations.weight_norm, parametrizations.orthogonal, parametrizations.spectral_norm]
)
def test_parametrized_modules(parametrize):
    module = built(lambda: parametrize(nn.Linear(4, 4)))
    model, params, state = Model.from_module(module)
    x = random.normal(KEY, (3, 4))
    assert torch.equal(model(params, state, x), module.eval()(x))
    grads = grad(lambda p: model(p, state, x).square().sum())(params)
    assert all(g.isfinite().all() for g in grads.values())


def test_bind_gives_a_module_of_its_own():
    model = Model(Everything)
    params, state = model.init(KEY)
    module = model.bind(params, state)
    assert torch.equal(module.eval()(IMAGES), model(params, state, IMAGES))
    assert module.first.weight is module.second.weight
    with torch.no_grad():
        module.conv.weight.zero_()
    assert params["conv.weight"].abs().sum() > 0
    _, params2, state2 = Model.from_module(model.bind(params, state))
    assert equal((params, state), (params2, state2))
    assert "offset" not in module.state_dict()


def test_bound_lstm_trains():
    model = Model(lstm)
    params, state = model.init(KEY)
    module = model.bind(params, state)
    module.eval()(IMAGES[:, 0, :, :5])[0].sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_capture():
    model = Model(lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)))
    params, state = model.init(KEY)
    output, _, captured = model.apply(params, state, ROWS, capture=("[01]",))
    assert list(captured) == ["0", "1"]
    assert torch.equal(captured["1"], F.linear(ROWS, params["0.weight"], params["0.bias"]).relu())
    assert torch.equal(output, model(params, state, ROWS))
    assert len(model.apply(params, state, ROWS)) == 2  # the hooks are gone

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x):
            return self.layer(self.layer(x))

    model = Model(Twice)
    params, state = model.init(KEY)
    output, _, captured = model.apply(params, state, ROWS, capture=("layer",))
    assert list(captured) == ["layer", "layer:1"]
    assert torch.equal(captured["layer:1"], output)


def test_gradient_with_respect_to_a_captured_activation():
    model = Model(mlp)
    params, state = model.init(KEY)

    def hidden(params):
        return model.apply(params, state, ROWS, capture=("1",))[2]["1"].square().sum()

    grads = grad(hidden)(params)
    assert grads["0.weight"].abs().sum() > 0
    assert grads["3.weight"].abs().sum() == 0


def test_method_by_name_and_as_a_function():
    model = Model(Everything)
    params, state = model.init(KEY)
    named, _ = model.apply(params, state, IMAGES, method="features")
    given, _ = model.apply(params, state, IMAGES, method=lambda m, x: m.features(x))
    assert torch.equal(named, given)
    assert named.shape == (5, 4)


def test_calls_within_calls():
    inner = Model(nn.Linear, 6, 6)
    params, state = inner.init(KEY)

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x):
            # The same model again while it is being called, with other parameters.
            return model.apply(zeros, {}, x, method=lambda m, x: m.layer(x))[0] + self.layer(x)

    model = Model(Outer)
    outer, _ = model.init(KEY)
    zeros = tree.zeros_like(outer)
    expected = F.linear(ROWS, outer["layer.weight"], outer["layer.bias"])
    torch.testing.assert_close(model(outer, {}, ROWS), expected)
    assert inner(params, state, ROWS).shape == (7, 6)


@pytest.mark.parametrize("calls", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_eight_threads_with_eight_parameter_sets(calls):
    model = Model(nn.Linear, 4, 4)
    sets = [{"weight": torch.full((4, 4), float(i)), "bias": torch.zeros(4)} for i in range(8)]
    wrong: list[int] = []

    def work(i):
        x = torch.ones(1, 4)
        for _ in range(calls // 8):
            if model(sets[i], {}, x)[0, 0].item() != 4.0 * i:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_module_given_is_left_alone():
    module = built(Everything).eval()
    before = twin(module)
    model, params, state = Model.from_module(module)
    model.apply(params, state, IMAGES, key=KEY, train=True)
    assert not module.training
    assert equal(dict(before.state_dict()), dict(module.state_dict()))
    with torch.no_grad():
        module.conv.weight.zero_()
    assert params["conv.weight"].abs().sum() > 0


# -- bad input


def test_missing_key_names_the_layer_and_the_call():
    model = Model(Everything)
    params, state = model.init(KEY)
    with pytest.raises(MissingKeyError, match=r"submodule 'drop' \(Dropout\) of Model\(Everything\).*key=random.key"):
        model.apply(params, state, IMAGES, train=True)


def test_functional_dropout_without_a_key_is_an_error_in_evaluation_too():
    class Careless(nn.Module):
        def forward(self, x):
            return F.dropout(x)  # training=True by default

    with pytest.raises(MissingKeyError, match="Careless"):
        Model(Careless)({}, {}, ROWS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {k: v for k, v in p.items() if k != "0.bias"}, r"'0.bias' is missing"),
        (lambda p: {**p, "0.wieght": p["0.weight"]}, r"'0.wieght' is unexpected"),
        (lambda p: {**p, "0.weight": p["0.weight"].T}, r"transposed"),
        (lambda p: {**p, "0.weight": p["0.weight"].int()}, r"'0.weight' is int32"),
        (lambda p: {**p, "0.weight": p["0.weight"].numpy()}, r"'0.weight' is a ndarray, Model\(mlp\) wants a tensor"),
        (lambda p: {}, r"params is empty"),
        (lambda p: {f"module.{k}": v for k, v in p.items()}, r"prefix 'module.'"),
    ],
)
def test_wrong_params_are_named_by_path(change, message):
    model = Model(mlp)
    params, state = model.init(KEY)
    with pytest.raises(tree.TreeMismatchError, match=message):
        model(change(params), state, ROWS)


def test_a_leaf_in_both_dicts():
    model = Model(mlp)
    params, state = model.init(KEY)
    with pytest.raises(tree.TreeMismatchError, match=r"'0.bias' is in params and in state"):
        model(params, {**state, "0.bias": params["0.bias"]}, ROWS)


def test_arguments_in_the_wrong_order():
    model = Model(mlp)
    params, _ = model.init(KEY)
    with pytest.raises(TypeError, match=r"takes state as a dict .* got a Tensor.*model.apply\(params, state, x\)"):
        model(params, ROWS)


def test_an_error_in_the_forward_names_the_submodule():
    model = Model(mlp)
    params, state = model.init(KEY)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught:
        model(params, state, torch.ones(2, 5))
    assert caught.value.__notes__ == ["raised in submodule '0' (Linear) of Model(mlp)"]


def test_the_model_survives_an_error():
    model = Model(mlp)
    params, state = model.init(KEY)
    good = model(params, state, ROWS)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model(params, state, torch.ones(2, 5))
    assert torch.equal(model(params, state, ROWS), good)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: Model(lambda: 3).init(KEY),
            TypeError,
            r"needs a constructor that returns an nn.Module.*returned a int",
        ),
        (lambda: Model(nn.Linear(2, 2)), TypeError, r"Model.from_module\(module\) to keep its weights"),
        (lambda: Model("linear"), TypeError, r"class or function that returns a module, not a str"),
        (lambda: Model(nn.Linear, 3), TypeError, r"missing a required argument: 'out_features'"),
        (lambda: Model.from_module(nn.Linear), TypeError, r"takes a built nn.Module, not a type"),
        (lambda: Model(nn.Linear, 3, 2).init(0), TypeError, r"random.key\(0\)"),
        (lambda: Model(nn.Linear, 3, 2).init(None), TypeError, r"random.key"),
        (lambda: Model(nn.LazyLinear, 3).init(KEY), TypeError, r"lazy parameter"),
        (lambda: Model.from_module(nn.ReLU())[0].init(KEY), TypeError, r"made from a built module"),
        (lambda: Model(nn.ReLU).apply({}, {}, ROWS, capture=("relu",)), KeyError, r"matches no submodule"),
        (lambda: Model(nn.ReLU).apply({}, {}, ROWS, method="forwrd"), AttributeError, r"near names: forward"),
        (lambda: Model(nn.ReLU).apply({}, {}, ROWS, key=7), TypeError, r"random.key\(7\)"),
    ],
)
def test_wrong_use(make, error, message):
    with random.seeded(KEY), pytest.raises(error, match=message):
        make()


def test_numpy_generators_are_not_ours():
    # The library's promise covers torch's generators; numpy's is left where it was as well.
    before = np.random.get_state()[1].copy()
    Model(Everything).init(KEY)
    assert np.array_equal(before, np.random.get_state()[1])
