"""Streams: every epoch's order from the key, and exactly the rest from any position."""

import json

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import funcnet
from funcnet import data, random
from funcnet.data import Position

seeds = st.integers(0, 2**32 - 1)


@given(n=st.integers(1, 23), size=st.integers(1, 9), seed=seeds, drop=st.booleans(), at=st.integers(0, 60))
def test_a_stream_is_its_epochs_and_goes_on_from_anywhere(n, size, seed, drop, at):
    size = min(size, n)
    key = random.key(seed)
    rows = {"x": random.normal(key, (n, 2)), "label": torch.arange(n)}
    found = list(data.stream(key, rows, size, epochs=3, drop_last=drop))
    by_epoch = [b for e in range(3) for b in data.batches(random.fold_in(key, e), rows, size, drop_last=drop)]
    assert len(found) == len(by_epoch)
    for (_, batch), expected in zip(found, by_epoch, strict=True):
        assert torch.equal(batch["x"], expected["x"])
        assert torch.equal(batch["label"], expected["label"])
    count = len(found) // 3
    assert [tuple(p) for p, _ in found] == [divmod(i, count) for i in range(1, len(found) + 1)]

    at = at % len(found)
    position = Position(*json.loads(json.dumps(found[at][0])))
    for ending in ({"epochs": 3}, {"steps": len(found)}):
        rest = list(data.stream(key, rows, size, start=position, drop_last=drop, **ending))
        assert [p for p, _ in rest] == [p for p, _ in found[at + 1 :]]
        assert all(torch.equal(a["x"], b["x"]) for (_, a), (_, b) in zip(rest, found[at + 1 :], strict=True))


def test_the_end_of_an_epoch_is_the_beginning_of_the_next():
    rows = torch.arange(7)
    ends, begins = (
        [b.tolist() for _, b in data.stream(random.key(3), rows, 2, epochs=2, start=start)]
        for start in ([0, 3], (1, 0))
    )
    assert ends == begins
    assert len(ends) == 3


def test_a_stream_without_an_end_goes_on_and_shares_nothing():
    rows = torch.arange(5)
    endless = data.stream(random.key(0), rows, 2)
    for i in range(1, 21):
        position, batch = next(endless)
        assert position == divmod(i, 2)
        batch.zero_()
    assert torch.equal(rows, torch.arange(5))
    assert list(data.stream(random.key(0), rows, 2, epochs=2, start=(2, 0))) == []


@given(n=st.integers(1, 40), size=st.integers(1, 12), seed=seeds)
def test_order_is_what_batches_take(n, size, seed):
    size = min(size, n)
    key = random.key(seed)
    found = data.order(key, n, size)
    assert found.shape == (n // size, size)
    assert torch.equal(found, torch.stack(list(data.batches(key, torch.arange(n), size))))


def test_an_epoch_is_one_scan_over_its_order():
    rows = random.normal(random.key(1), (12, 3))

    def epoch(total, key):
        return funcnet.scan(lambda c, i: (c + rows[i].sum(0).sin(), None), total, data.order(key, 12, 4))[0]

    key, expected = random.key(2), torch.zeros(3)
    for batch in data.batches(key, rows, 4):
        expected = expected + batch.sum(0).sin()
    torch.testing.assert_close(epoch(torch.zeros(3), key), expected)
    torch.testing.assert_close(funcnet.jit(epoch, backend="aot_eager")(torch.zeros(3), key), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 11}, r"batch_size is 11 and the data has 10 rows.*no full batch.*drop_last=False"),
        ({"batch_size": 0}, r"batch_size is 0; .* must be positive"),
        ({"epochs": 1, "steps": 1}, r"epochs=1 or after steps=1: give one"),
        ({"epochs": -1}, r"epochs is -1; .* not negative"),
        ({"steps": -2}, r"steps is -2; .* not negative"),
        ({"start": (0, 6)}, r"start is batch 6 of epoch 0, and an epoch has 5 batches: .*another batch_size"),
        ({"start": (-1, 0)}, r"start is \(-1, 0\); a position is two integers"),
        ({"start": (0.5, 0)}, r"start is \(0\.5, 0\); a position is two integers"),
        ({"start": (1,)}, r"start is \(1,\); a position is two integers"),
    ],
)
def test_streams_that_cannot_be_are_explained_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.stream(random.key(0), torch.arange(10), **{"batch_size": 2} | arguments)


def test_no_rows_are_no_endless_stream():
    with pytest.raises(ValueError, match=r"the data has no rows"):
        data.stream(random.key(0), torch.empty(0), 2, drop_last=False)
    assert list(data.stream(random.key(0), torch.empty(0), 2, drop_last=False, epochs=3)) == []


def test_a_seed_is_no_key():
    with pytest.raises(TypeError, match=r"write random\.key\(0\)"):
        data.stream(0, torch.arange(10), 2)
