"""Outputs of submodules under every transform, and gradients with respect to them."""

import threading

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from funcnet import Model, grad, hvp, jit, jvp, per_example_grad, random, tree, value_and_grad, vmap
from funcnet.control import remat
from tests.models import built

KEY = random.key(5)
F64 = torch.float64
seeds = st.integers(0, 2**32 - 1)


class Net(nn.Module):
    """Convolutions with a layer that writes into the output of the one before it, and one that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh())
        self.drop = nn.Dropout(0.4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        h = self.body(self.body(self.relu(self.stem(x))))
        return self.head(self.drop(h.mean((2, 3))))


MODEL = Model(Net)
PARAMS, STATE = MODEL.init(KEY, dtype=F64)
X = random.normal(KEY, (4, 3, 6, 6), F64)
NAMES = ["stem", "body", "body:1", "head"]


def close(a, b, **tolerance):
    tree.map(lambda x, y: torch.testing.assert_close(x, y, **tolerance), a, b)


def capturing(params, x, **options):
    """The score of one class, and what was captured."""
    out, _, captured = MODEL.apply(params, STATE, x, capture=("stem", "body", "head"), **options)
    return out[:, 1].sum(), captured


def hooked(params, x):
    """By torch: a module, hooks that keep the gradient, and backward."""
    module = MODEL.bind(params, STATE).eval()
    kept = []
    for name in ("stem", "body", "head"):
        # A hook that returns a copy keeps what it saw from the layer that writes in place.
        def hook(module, args, output, name=name):
            output.retain_grad()
            kept.append((name, output))
            return output.clone()

        module.get_submodule(name).register_forward_hook(hook)
    module(x)[:, 1].sum().backward()
    labels = ["stem", "body", "body:1", "head"]
    assert [name for name, _ in kept] == [label.split(":")[0] for label in labels]
    return {label: (t.detach(), t.grad) for label, (_, t) in zip(labels, kept, strict=True)}


@given(seeds)
def test_gradients_of_activations_are_those_of_hooks(seed):
    params = tree.map(lambda p: p + 0.1 * random.normal(random.key(seed), p.shape, F64), PARAMS)
    x = random.normal(random.key(seed + 1), X.shape, F64)
    want = hooked(params, x)
    _, captured = capturing(params, x)
    assert list(captured) == NAMES
    grads = grad(lambda added: capturing(params, x, perturb=added)[0])(tree.zeros_like(captured))
    for name, (activation, gradient) in want.items():
        close(captured[name], activation)
        close(grads[name], gradient)
    # Grad-CAM (Selvaraju et al. 2017): channels weighed by their mean gradient.
    cam = F.relu((grads["body:1"].mean((2, 3), keepdim=True) * captured["body:1"]).sum(1))
    activation, gradient = want["body:1"]
    close(cam, F.relu((gradient.mean((2, 3), keepdim=True) * activation).sum(1)))


def test_a_perturbation_is_added():
    _, captured = capturing(PARAMS, X)
    added = random.normal(KEY, captured["head"].shape, F64)
    out, state = MODEL.apply(PARAMS, STATE, X, perturb={"head": added})
    close(out, MODEL(PARAMS, STATE, X) + added)
    assert state is not STATE
    _, _, after = MODEL.apply(PARAMS, STATE, X, perturb={"head": added}, capture="head")
    close(after["head"], out)
    # Replacing an activation is adding a difference.
    other = tree.map(torch.roll, captured, tree.map(lambda _: 1, captured))
    patched = MODEL.apply(PARAMS, STATE, X, perturb={"body:1": other["body:1"] - captured["body:1"]})[0]
    close(patched, MODEL.apply(PARAMS, STATE, other["body:1"], method=lambda m, h: m.head(h.mean((2, 3))))[0])


def test_captured_values_under_grad_and_its_kin():
    _, want = capturing(PARAMS, X, train=True, key=KEY)

    def loss(params):
        score, captured = capturing(params, X, train=True, key=KEY)
        return score + sum(c.square().sum() for c in captured.values()), captured

    (_, aux), grads = value_and_grad(loss, has_aux=True)(PARAMS)
    close(aux, want)
    close(torch.func.grad(loss, has_aux=True)(PARAMS), (grads, want))
    close(jit(value_and_grad(loss, has_aux=True), backend="aot_eager")(PARAMS)[0][1], want)
    assert not any(c.requires_grad for c in aux.values())
    _, tangent, aux = jvp(loss, (PARAMS,), (PARAMS,), has_aux=True)
    close(aux, want)
    close(tangent, sum((grads[n] * PARAMS[n]).sum() for n in PARAMS))


def test_second_derivatives_in_activations():
    _, captured = capturing(PARAMS, X)
    zeros = tree.zeros_like(captured)
    v = tree.map(lambda z: random.normal(KEY, z.shape, F64), zeros)

    def f(added):
        return capturing(PARAMS, X, perturb=added)[0] ** 2

    h = 1e-5

    def along(t):
        return grad(f)(tree.map(lambda d: t * d, v))

    close(hvp(f, (zeros,), (v,)), tree.map(lambda a, b: (a - b) / (2 * h), along(h), along(-h)), rtol=1e-4, atol=1e-6)
    close(jit(lambda z: hvp(f, (z,), (v,)), backend="aot_eager")(zeros), hvp(f, (zeros,), (v,)))


def test_activations_under_vmap_equal_a_loop():
    def one(params, x, key):
        _, captured = capturing(params, x[None], train=True, key=key)
        grads = grad(lambda added: capturing(params, x[None], perturb=added, train=True, key=key)[0])(
            tree.zeros_like(captured)
        )
        return captured, grads

    keys = random.split(KEY, 4)
    want = tree.stack([one(PARAMS, X[i], keys[i]) for i in range(4)])
    close(vmap(one, in_dims=(None, 0, 0))(PARAMS, X, keys), want)
    close(jit(vmap(one, in_dims=(None, 0, 0)), backend="aot_eager")(PARAMS, X, keys), want)
    members = tree.stack([PARAMS, tree.map(lambda p: 2 * p, PARAMS)])
    got = vmap(lambda p: one(p, X[0], KEY))(members)
    close(got, tree.stack([one(p, X[0], KEY) for p in tree.unstack(members)]))


def test_activations_of_each_example():
    grads, aux = per_example_grad(capturing, batch=1, has_aux=True)(PARAMS, X)
    loop = [grad(capturing, has_aux=True)(PARAMS, X[i : i + 1]) for i in range(4)]
    close((grads, aux), tree.stack(loop))


def test_threads():
    keys = random.split(KEY, 8)
    members = [MODEL.init(key, dtype=F64)[0] for key in keys]

    def both(params):
        _, captured = capturing(params, X)
        return captured, grad(lambda added: capturing(params, X, perturb=added)[0])(tree.zeros_like(captured))

    want = [both(params) for params in members]
    got = [None] * 8

    def work(i):
        for _ in range(5):
            got[i] = both(members[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    close(got, want)


class Branches(nn.Module):
    """A submodule whose output is a tree, with None in it."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 4)
        self.attention = nn.MultiheadAttention(4, 2)

    def forward(self, x):
        y, (h, _) = self.rnn(x)
        return self.attention(y, y, y, need_weights=False)[0].sum() + h.square().sum()


def test_outputs_that_are_trees():
    model = Model(Branches)
    params, state = model.init(KEY, dtype=F64)
    x = random.normal(KEY, (5, 2, 3), F64)
    _, _, captured = model.apply(params, state, x, capture="*")
    assert captured["attention"][1] is None

    def f(added):
        return model.apply(params, state, x, perturb=added)[0]

    zeros = tree.zeros_like({name: captured[name] for name in ("rnn", "attention")})
    grads = grad(f)(zeros)
    y, (h, c) = grads["rnn"]
    close(h, 2 * captured["rnn"][1][0])
    close(c, torch.zeros_like(c))
    assert y.abs().max() > 0
    # None leaves a part alone.
    close(grad(f)({"rnn": (None, (zeros["rnn"][1][0], None))})["rnn"][1][0], h)


def test_perturbing_under_autocast_keeps_its_precision():
    model = Model(nn.Sequential, built(lambda: nn.Linear(3, 4)), nn.Tanh(), built(lambda: nn.Linear(4, 2)))
    params, state = model.init(KEY)
    x = random.normal(KEY, (5, 3))
    with torch.autocast("cpu", torch.bfloat16):
        _, _, captured = model.apply(params, state, x, capture="0")
        zeros = tree.cast(tree.zeros_like(captured), torch.float32)
        out, _, after = model.apply(params, state, x, perturb=zeros, capture="*")
        grads = grad(lambda added: model.apply(params, state, x, perturb=added)[0].float().sum())(zeros)
    assert after["0"].dtype == out.dtype == torch.bfloat16
    assert grads["0"].dtype == torch.float32


class Rematted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
        self.after = nn.Linear(3, 1)

    def forward(self, x):
        return self.after(remat(self.block)(x))


def test_remat_hands_out_its_results_alone():
    model = Model(Rematted)
    params, state = model.init(KEY)
    x = random.normal(KEY, (2, 3))
    for options in ({"capture": "block.0"}, {"perturb": {"block.0": torch.zeros(2, 3)}}):
        with pytest.raises(TypeError, match=r"'block.0', which capture or perturb names, is called inside remat"):
            model.apply(params, state, x, **options)
    _, _, captured = model.apply(params, state, x, capture="after")
    close(grad(lambda a: model.apply(params, state, x, perturb=a)[0].sum())(captured)["after"], torch.ones(2, 1))


@pytest.mark.parametrize(
    ("perturb", "error", "message"),
    [
        ({"steam": torch.ones(1)}, KeyError, r"perturb='steam' matches no submodule; near names: stem"),
        ({"body:2": torch.ones(1)}, KeyError, r"perturb='body:2' was not used, since 'body' was called 2 times"),
        (
            {"head": torch.ones(3)},
            tree.TreeMismatchError,
            r"perturb\['head'\] has shape \(3,\).*shape \(4, 3\).*zeros_like",
        ),
        ({"head": {"a": torch.ones(3)}}, tree.TreeMismatchError, r"perturb\['head'\] does not match that output"),
    ],
)
def test_wrong_use(perturb, error, message):
    with pytest.raises(error, match=message):
        MODEL.apply(PARAMS, STATE, X, perturb=perturb)
    # The module is as it was.
    assert torch.equal(MODEL(PARAMS, STATE, X), MODEL.bind(PARAMS, STATE).eval()(X))
