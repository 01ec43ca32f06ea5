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
    if drop and size > n:
        with pytest.raises(ValueError, match=rf"batch_size is {size} and the data has {n} rows.*no full batch"):
            data.batches(key, rows, size)
        return
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


@given(
    n=st.integers(1, 60), weights=st.lists(st.integers(0, 9), min_size=1, max_size=4), seed=st.integers(0, 2**32 - 1)
)
def test_split_into_several_parts_keeps_their_shares(n, weights, seed):
    weights = [*weights, 1]
    shares = [w / sum(weights) for w in weights]
    parts = data.split(random.key(seed), torch.arange(n), shares)
    assert sorted(i for part in parts for i in part.tolist()) == list(range(n))
    assert all(abs(len(part) - share * n) <= 1 for part, share in zip(parts, shares, strict=True))


@given(n=st.integers(1, 60), seed=st.integers(0, 2**32 - 1), fraction=st.floats(0, 1))
def test_stratified_parts_have_each_label_in_proportion(n, seed, fraction):
    keys = random.split(random.key(seed))
    rows = {"x": torch.arange(n), "label": random.randint(keys[0], (n,), -2, 3)}
    for shares in (fraction, (0.5, 0.2, 0.3)):
        parts = data.split(keys[1], rows, shares, labels=rows["label"])
        assert sorted(i for part in parts for i in part["x"].tolist()) == list(range(n))
        for value in rows["label"].unique():
            count = (rows["label"] == value).sum().item()
            for part, share in zip(parts, [shares, 1 - shares] if shares == fraction else shares, strict=True):
                assert abs((part["label"] == value).sum().item() - share * count) <= len(parts) - 1
        if len(parts) == 2:
            assert len(parts[0]["x"]) == round(fraction * n)
    again = data.split(keys[1], rows, (0.5, 0.2, 0.3), labels=rows["label"])
    assert all(torch.equal(a["x"], b["x"]) for a, b in zip(parts, again, strict=True))


@pytest.mark.parametrize(
    ("shares", "labels", "message"),
    [
        ((0.7, 0.2), None, r"sums to 0\.9; give each part its share"),
        ((1.5, -0.5), None, r"between 0 and 1"),
        ((), None, r"sums to 0"),
        (0.5, torch.arange(2), r"shape \(2,\); a stratified split needs an integer for each of the 3 rows"),
        (0.5, torch.rand(3, generator=torch.Generator().manual_seed(0)), r"labels is torch.float32"),
    ],
)
def test_splits_that_cannot_be_are_explained(shares, labels, message):
    with pytest.raises(ValueError, match=message):
        data.split(random.key(0), torch.arange(3), shares, labels=labels)


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
