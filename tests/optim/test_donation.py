"""Eager updates in the memory of the old values, and in blocks: the same numbers as the plain rule leaf by leaf."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import vmap

from funcnet import DonatedTensorError, grad, jit, optim, random, tree
from funcnet.optim import blocks, fast, giving
from funcnet.optim.leafwise import each, total
from funcnet.train import TrainState, make_step

sys.path.insert(0, str(Path(__file__).parent))
from running import close, example

RATE = optim.cosine_decay_schedule(0.1, 10)
OPTIMIZERS = {
    "adam": optim.adam(0.1),
    "scheduled adam": optim.adam(RATE),
    "adamw": optim.adamw(torch.tensor(0.1), weight_decay=0.1),
    "sgd": optim.sgd(0.1),
    "momentum": optim.sgd(0.1, 0.9),
    "nesterov": optim.sgd(RATE, torch.tensor(0.9), nesterov=True),
}
HALF = {"rtol": 1e-2, "atol": 1e-2}  # parameters round at every step
every = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)


def trained(optimizer, donate, dtype=torch.float32, layout=lambda leaf: leaf):
    params = tree.map(layout, example(dtype=dtype))
    state = optimizer.init(params)
    for seed in range(1, 6):
        params, state = optim.advance(optimizer, example(seed, dtype), state, params, donate=donate)
    return params, state


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_donated_steps_equal_plain_ones(optimizer, dtype, monkeypatch):
    got = trained(optimizer, True, dtype)
    close(got, trained(optimizer, False, dtype))
    monkeypatch.setattr(fast, "usable", lambda *columns: False)
    close(got, trained(optimizer, False, dtype), **(HALF if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-6}))


@every
def test_leaves_that_do_not_lie_in_order_are_spared_the_kernel(optimizer):
    def transposed(leaf):
        return leaf.mT.contiguous().mT if leaf.ndim > 1 else leaf

    close(trained(optimizer, True, layout=transposed), trained(optimizer, False))


@every
def test_what_was_written_over_cannot_be_read(optimizer):
    params = example()
    state, before, kept = optimizer.init(params), tree.map(torch.clone, params), tree.map(torch.clone, example(1))
    gradient = example(1)
    addresses = [leaf.data_ptr() for leaf in tree.leaves(params)]
    moved, _ = optim.advance(optimizer, gradient, state, params, donate=True)
    assert [leaf.data_ptr() for leaf in tree.leaves(moved)] == addresses
    assert not any(map(torch.equal, tree.leaves(moved), tree.leaves(before)))
    for leaf in tree.leaves(params):
        with pytest.raises(DonatedTensorError, match=r"donated to optim.advance.*leave out donate=True"):
            leaf + 1
    close(gradient, kept, rtol=0, atol=0)


def test_shared_memory_is_not_given():
    optimizer, whole = optim.adam(0.1), torch.ones(4)
    params = {"a": whole[:2], "b": torch.ones(2)}
    with pytest.raises(ValueError, match=r"donates params.a, which is a view of a larger tensor"):
        optim.advance(optimizer, tree.map(torch.clone, params), optimizer.init(params), params, donate=True)
    params = {"a": whole, "b": whole}
    with pytest.raises(ValueError, match=r"donates params.a and params.b, which share one memory"):
        optim.advance(optimizer, tree.map(torch.clone, params), optimizer.init(params), params, donate=True)
    params = {"a": whole}
    with pytest.raises(ValueError, match=r"updates.a shares the memory of params.a"):
        optim.advance(optimizer, params, optimizer.init(params), params, donate=True)
    assert torch.equal(whole, torch.ones(4))


def test_leaves_without_elements_are_given():
    optimizer, params = optim.sgd(0.5, 0.9), {"a": torch.ones(0), "b": torch.ones(0, 3), "c": torch.ones(1)}
    moved, _ = optim.advance(optimizer, tree.map(torch.ones_like, params), optimizer.init(params), params, donate=True)
    close(moved, {"a": torch.ones(0), "b": torch.ones(0, 3), "c": torch.tensor([0.5])})


def test_nothing_is_given_under_transforms_and_in_jit():
    optimizer = optim.sgd(0.1, 0.9)

    def step(params, state):
        return optim.advance(optimizer, params, state, params, donate=True)

    params = example()
    state = optimizer.init(params)
    want = optim.advance(optimizer, tree.map(torch.clone, params), state, params)
    close(jit(step, backend="aot_eager")(params, state), want)
    batch = tree.map(lambda leaf: torch.stack([leaf, leaf]), (params, state))
    close(tree.map(lambda leaf: leaf[0], vmap(step)(*batch)), want)

    def length(rate):
        rule = optim.sgd(rate)
        return tree.global_norm(optim.advance(rule, example(), rule.init(params), params, donate=True)[0])

    assert grad(length)(torch.tensor(0.1)) < 0
    assert all(leaf.isfinite().all() for leaf in tree.leaves(params))


@pytest.mark.parametrize(
    "build", [lambda b: optim.adam(0.1, b1=b), lambda b: optim.adamw(0.1, b2=b), lambda b: optim.sgd(0.1, b)]
)
@pytest.mark.parametrize("donate", [False, True])
def test_hyperparameters_are_mapped(build, donate):
    params, values = example(), torch.tensor([0.5, 0.9])

    def step(b):
        optimizer, now = build(b), params
        state = optimizer.init(now)
        for seed in (1, 2):
            now, state = optim.advance(optimizer, example(seed), state, now, donate=donate)
        return now, optimizer.update(example(3), state, now)[0]

    params = tree.map(torch.clone, example())
    got = vmap(step)(values)
    donate = False
    close(got, tree.stack([step(b.item()) for b in values]))


def test_a_training_step_donates():
    def loss(params, state, batch, key):
        return ((params["w"] - batch) ** 2).sum(), (state, {})

    optimizer = optim.adam(0.1)
    starts = [TrainState.create({"w": torch.tensor([1.0])}, {}, optimizer, random.key(0)) for _ in range(2)]
    first, _ = make_step(loss, optimizer)(starts[0], torch.tensor([3.0]))
    second, _ = make_step(loss, optimizer, donate=True)(starts[1], torch.tensor([3.0]))
    close(second, first)
    assert starts[0].params["w"] == 1
    with pytest.raises(DonatedTensorError, match=r"params, state = optim.advance"):
        starts[1].params["w"].sum()


@every
def test_wrong_arguments_are_told_apart(optimizer):
    params = example()
    state = optimizer.init(params)
    with pytest.raises(ValueError, match=r"advance needs the parameters: write optim.advance"):
        optim.advance(optimizer, params, state, None)
    with pytest.raises(ValueError, match=r"chain.update got a dict as state"):
        optim.advance(optimizer, params, params, state)
    with pytest.raises(tree.TreeMismatchError, match="'a' is missing"):
        optim.advance(optimizer, {"b": params["b"]}, state, params)


def test_a_state_of_another_optimizer_is_refused():
    params = example()
    for one, other in ((optim.adam(0.1), optim.sgd(0.1, 0.9)), (optim.sgd(0.1, 0.9), optim.adam(0.1))):
        with pytest.raises(TypeError, match=r"as state, and needs a (ScaleByAdamState|TraceState)"):
            optim.advance(one, example(1), other.init(params), params)


# blocks


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=8), st.integers(1, 40), st.integers(0, 20)
)
def test_blocks_change_nothing(shapes, block, small):
    leaves = [random.normal(random.fold_in(random.key(0), i), tuple(s)) for i, s in enumerate(shapes)]
    others = [random.normal(random.fold_in(random.key(1), i), tuple(s), torch.float64) for i, s in enumerate(shapes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(blocks._BLOCK, "cpu", block)
        patch.setitem(blocks._SMALL, "cpu", small)
        got, state = each(lambda g, m: (g * m, g + m), leaves, mu=others)
        added = total(lambda g, m: g * m, leaves, others)
    for g, m, product, together in zip(leaves, others, got, state, strict=True):
        assert (product.dtype, together.dtype) == (g.dtype, m.dtype)
        assert torch.equal(product, (g * m).to(g.dtype))
        assert torch.equal(together, g + m)
        assert together.untyped_storage().nbytes() == together.nbytes  # memory of its own
    want = sum((torch.sum(g * m) for g, m in zip(leaves, others, strict=True)), torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(added, want)


def untouched(params, state, batch, key):
    """A loss that hands out its parameters, as they are and as views."""
    value = (params["w"] ** 2).sum() * params["t"]
    views = {"rows": params["w"][1:], "flat": params["w"].view(-1)}
    return value, ({**state, "previous": params["w"]}, {"w": params["w"], "temperature": params["t"], **views})


def test_what_a_loss_hands_out_is_not_written_over():
    params = {"w": random.normal(random.key(1), (3, 2)), "t": random.normal(random.key(2), ())}
    start = {"previous": torch.full((3, 2), 7.0)}
    after = {}
    for donate in (False, True):
        step = make_step(untouched, optim.sgd(0.1, 0.9), donate=donate)
        ts, told = step.init(tree.map(torch.clone, params), start, random.key(0)), []
        for _ in range(3):
            ts, metrics = step(ts, None)
            told += [metrics, ts.state]
        after[donate] = ts, told
    close(after[True][1], after[False][1], rtol=0, atol=0)
    close(after[True][0].params, after[False][0].params)


def test_a_value_that_is_a_parameter_is_not_written_over():
    step = make_step(lambda params, *_: (params["t"], ({}, {})), optim.sgd(0.5, 0.9), donate=True)
    ts = step.init({"t": random.normal(random.key(2), ())}, {}, random.key(0))
    before = ts.params["t"].clone()
    ts, metrics = step(ts, None)
    assert torch.equal(metrics["loss"], before)
    close(ts.params["t"], before - 0.5)


def test_gradients_that_share_memory_are_told_apart_without_paths(monkeypatch):
    optimizer, params = optim.sgd(0.1, 0.9), {name: random.normal(random.key(3), (4,)) for name in "ab"}
    grads = grad(lambda p: (p["a"] + p["b"]).sum())(params)
    assert grads["a"].data_ptr() == grads["b"].data_ptr()  # one 1, expanded
    monkeypatch.setattr(giving, "leaves_with_path", None)
    kept = tree.map(torch.clone, params)
    moved, _ = optim.advance(optimizer, grads, optimizer.init(params), params, donate=True)
    close(moved, tree.map(lambda leaf: leaf - 0.1, kept))
