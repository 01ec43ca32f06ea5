"""Where a run takes its batches from."""

import json
import math
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from funcnet import data, fit, make_step, optim, random, tree
from funcnet.train import NonFiniteError
from funcnet.train.feed import Feed

KEY = random.key(3)
ROWS = random.normal(random.key(1), (23, 2))


def loss(params, state, batch, key):
    error = batch @ params["w"] + 0.1 * random.normal(key, (len(batch),))
    return (error**2).mean(), (state, {})


STEP = make_step(loss, optim.adam(0.1))


def start():
    return STEP.init({"w": torch.tensor([1.0, 2.0])}, {}, KEY)


class Drawn(torch.utils.data.Dataset):
    """Rows with noise from the global generator."""

    def __len__(self):
        return len(ROWS)

    def __getitem__(self, row):
        return ROWS[row] + torch.rand(2)


STREAMS = {
    "stream": lambda: data.stream(KEY, ROWS, 5),
    "all rows": lambda: data.stream(KEY, ROWS, 5, drop_last=False),
    "loader": lambda: data.loader(Drawn(), 5, key=KEY),
    "iterable": lambda: data.loader(ROWS.tolist(), 5, key=KEY, collate=torch.tensor),
    "ahead": lambda: data.prefetch(data.loader(Drawn(), 5, key=KEY), 3),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_run_over_a_stream_goes_on_from_any_save_to_the_same_bits(name):
    saves = []

    def save(ts, step, *, position, metrics=None):
        saves.append((tree.map(torch.clone, ts), json.dumps(position)))

    whole, history = fit(STEP, start(), STREAMS[name](), epochs=3, save=save, save_every=1, progress=False)
    length = 5 if name == "all rows" else 4
    assert int(whole.step) == 3 * length
    assert len(history) == 3
    for ts, position in saves:
        end, rest = fit(STEP, ts, STREAMS[name](), epochs=3, start=json.loads(position), progress=False)
        assert torch.equal(end.params["w"], whole.params["w"])
        assert rest == history


def test_a_run_takes_what_the_epochs_of_the_stream_have():
    def batches(epoch):
        return data.batches(random.fold_in(KEY, epoch), ROWS, 5)

    a, b = (fit(STEP, start(), each, epochs=2, progress=False) for each in (data.stream(KEY, ROWS, 5), batches))
    assert torch.equal(a[0].params["w"], b[0].params["w"])
    assert a[1] == b[1]


def test_a_run_leaves_the_stream_where_it_is_and_ends_its_threads():
    stream, before = data.prefetch(data.stream(KEY, ROWS, 5)), threading.active_count()
    fit(STEP, start(), stream, epochs=2, progress=False)
    assert threading.active_count() == before
    assert next(stream)[0] == (0, 1)
    stream.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("name", ["stream", "loader", "ahead"])
def test_the_rows_of_a_streamed_batch_are_told(name):
    rows = torch.split(random.permutation(random.fold_in(KEY, 1), 23), 5)[2]

    def broken(ts, batch):
        ts, metrics = STEP(ts, batch)
        return ts, {"loss": torch.where(ts.step == 7, math.nan, metrics["loss"])}

    told = ", ".join(map(str, rows.tolist()))
    with pytest.raises(NonFiniteError, match=rf"step 7 is nan \(epoch 1, batch 2, rows \[{told}\]\)"):
        fit(broken, start(), STREAMS[name](), epochs=3, progress=False)


def test_a_stream_that_ends_before_the_run_is_told():
    with pytest.raises(ValueError, match=r"epoch 2 has no batch.* a stream with epochs= or steps= of its own"):
        fit(STEP, start(), data.stream(KEY, ROWS, 5, epochs=2), epochs=3, progress=False)


@given(epoch=st.integers(0, 2), batch=st.integers(0, 4))
def test_every_source_gives_the_rest_of_an_epoch(epoch, batch):
    batches = [torch.tensor(i) for i in range(4)]
    assert [int(b) for b in Feed(batches).epoch(epoch, batch)] == list(range(batch, 4))
    assert [int(b) for b in Feed(lambda e: [b + e for b in batches]).epoch(epoch, batch)] == [
        b + epoch for b in range(batch, 4)
    ]
    feed = Feed(data.stream(KEY, torch.arange(4), 1))
    if batch < 4:
        rows = random.permutation(random.fold_in(KEY, epoch), 4)
        assert [int(b) for b in feed.epoch(epoch, batch)] == rows[batch:].tolist()
