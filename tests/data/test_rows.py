"""Batches and splits: every row once, the order from the key, nothing moved."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from funcnet import data, random


@given(n=st.integers(0, 40), size=st.integers(1, 12), seed=st.none() | st.integers(0, 2**32 - 1), drop=st.booleans())
def test_batches_hold_every_row_once_in_step(n, size, seed, drop):
    rows = {"x": torch.arange(n), "y": (torch.arange(n) * 10).reshape(n, 1)}
    key = None if seed is None else random.key(seed)
    found = list(data.batches(key, rows, size, drop_last=drop))
    sizes = [len(batch["x"]) for batch in found]
    full, rest = divmod(n, size)
    assert sizes == [size] * full + ([rest] if rest and not drop else [])
    for batch in found:
        assert torch.equal(batch["y"][:, 0], 10 * batch["x"])
    seen = [i for batch in found for i in batch["x"].tolist()]
    assert len(set(seen)) == len(seen)
    if not drop:
        assert sorted(seen) == list(range(n))
    if key is None:
        assert seen == list(range(len(seen)))
    else:
        assert seen == random.permutation(key, n).tolist()[: len(seen)]


def test_batches_follow_the_key_and_share_nothing():
    rows = torch.arange(32)
    first = torch.cat(list(data.batches(random.key(0), rows, 8)))
    assert torch.equal(first, torch.cat(list(data.batches(random.key(0), rows, 8))))
    assert not torch.equal(first, torch.cat(list(data.batches(random.key(1), rows, 8))))
    next(data.batches(random.key(0), rows, 8)).zero_()
    assert torch.equal(rows, torch.arange(32))


@given(n=st.integers(1, 40), fraction=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_split_parts_are_disjoint_and_whole(n, fraction, seed):
    rows = {"x": torch.arange(n)}
    first, second = data.split(random.key(seed), rows, fraction)
    assert len(first["x"]) == round(fraction * n)
    assert sorted([*first["x"].tolist(), *second["x"].tolist()]) == list(range(n))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"x": torch.zeros(3), "y": torch.zeros(4)}, r"x: 3, y: 4"),
        ({"x": torch.zeros(())}, r"x: None"),
        ({}, r"has no tensor"),
        ([1.0], r"0: None"),
    ],
)
def test_rows_without_one_size_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        data.batches(None, rows, 2)
    with pytest.raises(ValueError, match=message):
        data.split(random.key(0), rows, 0.5)


@pytest.mark.parametrize("size", [0, -1])
def test_batch_size_is_positive(size):
    with pytest.raises(ValueError, match=rf"batch_size is {size}; .* must be positive"):
        data.batches(None, torch.zeros(3), size)


@pytest.mark.parametrize("fraction", [-0.1, 1.5])
def test_fraction_is_a_share(fraction):
    with pytest.raises(ValueError, match=rf"fraction is {fraction}; .* between 0 and 1"):
        data.split(random.key(0), torch.zeros(3), fraction)
