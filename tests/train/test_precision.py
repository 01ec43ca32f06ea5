"""Precision policies: what is cast, what comes back, and that float32 changes nothing."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from funcnet import Model, TrainState, grad, jit, make_step, optim, random, tree, value_and_grad
from funcnet.train import Precision
from funcnet.train.precision import POLICIES

KEY = random.key(61)
MODEL = Model(
    # no dropout, whose draws depend on the dtype
    lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
)
PARAMS, STATE = MODEL.init(KEY)
BATCH = {"x": random.normal(KEY, (16, 1, 8, 8)), "y": random.randint(KEY, (16,), 0, 3, torch.int64)}
EXACT = {"float32": 0.0, "tf32": 0.0}  # on the CPU, where there is no such rounding


def loss(params, state, batch, key):
    logits, state = MODEL.apply(params, state, batch["x"], key=key, train=True)
    return F.cross_entropy(logits, batch["y"]), (state, {"largest": logits.abs().max()})


@pytest.mark.parametrize("name", POLICIES)
def test_gradients_have_the_dtype_of_the_parameters(name):
    policy = Precision.named(name)
    params = policy.cast_params(PARAMS)
    (value, (state, metrics)), grads = value_and_grad(policy.apply(loss), has_aux=True)(params, STATE, BATCH, KEY)
    assert {leaf.dtype for leaf in grads.values()} == {policy.param}
    assert (value.dtype, metrics["largest"].dtype) == (policy.output, policy.output)
    assert {k: v.dtype for k, v in state.items()} == {k: v.dtype for k, v in STATE.items()}
    (expected, (means, _)), slopes = value_and_grad(loss, has_aux=True)(PARAMS, STATE, BATCH, KEY)
    tolerance = EXACT.get(name, 1e-5 if name == "float64" else 0.05)
    torch.testing.assert_close(value.float(), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(state["1.running_mean"], means["1.running_mean"], rtol=tolerance, atol=tolerance)
    length = tree.global_norm(slopes)
    assert tree.global_norm(tree.map(lambda a, b: a.float() - b, grads, slopes)) <= max(tolerance, 1e-9) * length
    if "16" in name:  # it does compute in fewer digits
        assert not torch.equal(grads["4.weight"], slopes["4.weight"])


@pytest.mark.parametrize("name", ["bfloat16", "autocast-bfloat16"])
def test_a_run_learns_as_in_float32_eager_and_traced(name):
    def trained(policy, compile):
        optimizer = optim.adam(1e-2)
        step = make_step(policy.apply(loss), optimizer)
        step = jit(step, backend="aot_eager") if compile else step
        ts = TrainState.create(PARAMS, STATE, optimizer, KEY)
        for _ in range(40):
            ts, metrics = step(ts, BATCH)
        return metrics["loss"].item()

    single, eager, traced = (trained(Precision.named(n), c) for n, c in (("float32", 0), (name, 0), (name, 1)))
    assert single < 0.2  # from 1.1
    assert abs(eager - single) < 0.05
    assert abs(traced - eager) < 0.02


def test_only_floating_leaves_are_cast():
    policy = Precision(torch.float64, torch.bfloat16, torch.float16)
    mixed = {"w": torch.ones(2), "n": torch.tensor(3), "key": KEY, "flag": torch.tensor(True), "name": "a"}
    for cast, dtype in (
        (policy.cast_params, torch.float64),
        (policy.cast_inputs, torch.bfloat16),
        (policy.cast_output, torch.float16),
    ):
        found = cast(mixed)
        assert found["w"].dtype == dtype
        assert (found["n"], found["flag"], found["name"]) == (mixed["n"], mixed["flag"], "a")
        assert torch.equal(found["key"], KEY)


def test_autocast_ends_with_the_call():
    policy, seen = Precision.named("autocast-bfloat16"), []

    def seeing(params, state, batch, key):
        seen.append((torch.is_autocast_enabled("cpu"), (batch["x"].flatten(1) @ params["w"]).dtype))
        return params["w"].sum(), (state, {})

    grad(policy.apply(seeing), has_aux=True)({"w": torch.ones(64, 3)}, STATE, BATCH, KEY)
    assert seen == [(True, torch.bfloat16)]
    assert not torch.is_autocast_enabled("cpu")


def flags():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_tf32_is_set_around_the_call_and_put_back():
    def fail():
        assert flags() == (True, True)
        raise KeyError("inside")

    before = flags()
    policy = Precision.named("tf32")
    assert policy.around(flags)() == (True, True)
    assert flags() == before
    with pytest.raises(KeyError, match=r"inside"):
        policy.around(fail)()
    assert flags() == before
    assert Precision.named("float32").around(flags) is flags


def test_threads_do_not_meet():
    expected = {name: value_and_grad(POLICIES[name].apply(loss), has_aux=True)(PARAMS, STATE, BATCH, KEY)[0][0]
                for name in ("float32", "bfloat16", "autocast-bfloat16")}  # fmt: skip
    wrong = []

    def work(name):
        for _ in range(10):
            found = value_and_grad(POLICIES[name].apply(loss), has_aux=True)(PARAMS, STATE, BATCH, KEY)[0][0]
            if abs(found - expected[name]) > 1e-6:
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in [*expected, *expected]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_wrong_names_and_dtypes():
    with pytest.raises(ValueError, match=r"no precision policy 'bf16'; there are float32, .*Did you mean 'bfloat16'\?"):
        Precision.named("bf16")
    with pytest.raises(TypeError, match=r"compute=torch\.int32, which is no floating dtype"):
        Precision(compute=torch.int32)
    with pytest.raises(TypeError, match=r"param='bfloat16'.*Precision\.named\('bfloat16'\)"):
        Precision("bfloat16")
    with pytest.raises(TypeError, match=r"output=None"):
        Precision(output=None)


@pytest.mark.parametrize("way", [lambda f: f, lambda f: jit(f, backend="aot_eager"), torch.func.functionalize])
@pytest.mark.parametrize("copied", [False, True])
def test_what_a_loss_does_not_write_keeps_every_digit(way, copied):
    state = {"body": random.normal(KEY, (7,)), "gap": torch.tensor(float("nan")), "mean": random.normal(KEY, (3,))}

    def frozen(params, state, batch, key):
        new = {name: leaf.clone() for name, leaf in state.items()} if copied else state
        return (params["w"] * state["body"]).sum(), (new | {"mean": state["mean"] + 1}, {})

    _, (new, _) = way(Precision.named("bfloat16").apply(frozen))({"w": torch.ones(7)}, state, BATCH, KEY)
    assert torch.equal(new["body"], state["body"])
    assert new["gap"].isnan()
    assert torch.equal(new["mean"], (state["mean"].bfloat16() + 1).float())


@pytest.mark.parametrize("parts", [1, 4])
def test_frozen_weights_are_not_rounded_by_steps_in_half_precision(parts):
    params, frozen = tree.split(PARAMS, "4.*")
    step = make_step(loss, optim.sgd(0.1), precision="bfloat16", accumulate=parts)
    ts = before = step.init(params, STATE | frozen, KEY)
    for _ in range(2):
        ts, _ = step(ts, BATCH)
    assert all(torch.equal(ts.state[name], leaf) for name, leaf in frozen.items())
    assert not torch.equal(ts.params["4.weight"], before.params["4.weight"])
