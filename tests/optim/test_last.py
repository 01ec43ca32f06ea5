"""Steps whose leaves are known from the step before: the same numbers, and whatever has changed is asked anew."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from funcnet import DonatedTensorError, optim, tree
from funcnet.optim import fast

sys.path.insert(0, str(Path(__file__).parent))
from running import close, example

ADAM = optim.adam(0.1)


def step(params, state, seed=1, donate=True):
    return optim.advance(ADAM, example(seed), state, params, donate=donate)


def started(steps=2):
    params = example()
    state = ADAM.init(params)
    for seed in range(1, steps + 1):
        params, state = step(params, state, seed)
    return params, state


@pytest.fixture
def asked(monkeypatch):
    """How often leaves were asked whether a kernel takes them."""
    count, usable = [], fast.usable
    monkeypatch.setattr(fast, "usable", lambda *columns: count.append(1) or usable(*columns))
    return count


def test_what_comes_back_is_not_asked_again(asked):
    params, state = started()
    del asked[:]
    step(params, state)
    assert not asked


def test_a_copy_is_asked(asked):
    params, state = tree.map(torch.clone, started())
    del asked[:]
    step(params, state)
    assert asked


CHANGES = {
    "a graph": lambda p: p.requires_grad_(),
    "other memory": lambda p: setattr(p, "data", p.data.clone()),
    "a view": lambda p: setattr(p, "data", torch.cat([p.data.flatten(), p.data.flatten()])[: p.numel()].view_as(p)),
    "half": lambda p: setattr(p, "data", p.data.to(torch.float64)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_tensor_that_was_changed_is_asked(change, asked):
    params, state = started()
    name = next(iter(params))
    leaf = tree.leaves(params[name])[0]
    change(leaf)
    del asked[:]
    try:
        step(params, state)
    except ValueError:  # a view of more is no one's to give
        return
    assert asked


def test_updates_in_the_memory_of_a_known_leaf_are_refused():
    params, state = started()
    gradient = tree.map(torch.Tensor.detach, params)
    with pytest.raises(ValueError, match=r"shares the memory of params"):
        optim.advance(ADAM, gradient, state, params, donate=True)


def test_an_older_generation_is_still_an_error():
    params, state = started()
    step(params, state)
    with pytest.raises(DonatedTensorError, match=r"donated to optim\.advance"):
        step(params, state)


@given(st.lists(st.sampled_from(["step", "other", "copy", "pure", "transposed"]), min_size=1, max_size=8))
def test_any_order_of_steps_makes_the_plain_numbers(order):
    start = example()
    mine, plain, other = ((tree.map(torch.clone, start), ADAM.init(start)) for _ in range(3))
    for seed, kind in enumerate(order):
        if kind == "other":  # another run with the same optimizer
            other = step(*other, seed)
            continue
        grads = example(seed)
        if kind == "copy":
            mine = tree.map(torch.clone, mine)
        if kind == "transposed":
            grads = tree.map(lambda g: g.mT.contiguous().mT if g.ndim > 1 else g, grads)
        mine = optim.advance(ADAM, grads, mine[1], mine[0], donate=kind != "pure")
        plain = step(*plain, seed, donate=False)
    close(mine, plain)
