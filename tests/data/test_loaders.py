"""Loaders: the same batches from the same key, whatever the workers and wherever they start."""

import random as python_random
import threading

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from funcnet import data, random
from funcnet.data import Position

# jax, where a test has imported it in this process, warns of every fork.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*")


class Noisy(torch.utils.data.Dataset):
    """Examples with a draw from each global generator."""

    def __init__(self, n):
        self.n, self.loaded = n, []

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i >= self.n:
            raise IndexError
        self.loaded.append(i)
        return i, torch.rand(2), np.random.rand(), python_random.random()


class Streamed(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        shift = python_random.randrange(100)
        for i in range(self.n):
            yield i, torch.rand(2), np.random.rand(), shift + python_random.random()


def collate(examples):
    """A collation that draws too, as one that mixes images does."""
    return *torch.utils.data.default_collate(examples), torch.rand(1)


def same(a, b):
    assert [p for p, _ in a] == [p for p, _ in b]
    for (_, x), (_, y) in zip(a, b, strict=True):
        assert len(x) == len(y)
        assert all(torch.equal(u, v) for u, v in zip(x, y, strict=True))


def states():
    return torch.get_rng_state().tolist(), str(np.random.get_state()), python_random.getstate()


@pytest.mark.parametrize("make", [Noisy, Streamed])
@settings(max_examples=15)
@given(
    n=st.integers(1, 20), size=st.integers(1, 6), seed=st.integers(0, 2**32 - 1), drop=st.booleans(), at=st.integers(0)
)
def test_a_loader_goes_on_from_anywhere_and_leaves_the_generators_alone(make, n, size, seed, drop, at):
    size = min(size, n)
    before = states()
    options = {"key": random.key(seed), "drop_last": drop, "collate": collate}
    found = list(data.loader(make(n), size, epochs=3, **options))
    assert states() == before
    count = n // size if drop else -(-n // size)
    assert [tuple(p) for p, _ in found] == [divmod(i, count) for i in range(1, 3 * count + 1)]
    at %= len(found)
    rest = list(data.loader(make(n), size, epochs=3, start=found[at][0], **options))
    same(rest, found[at + 1 :])
    assert states() == before


def test_the_order_is_that_of_a_stream_and_draws_differ():
    found = list(data.loader(Noisy(9), 2, key=random.key(5), epochs=2, drop_last=False))
    rows = data.stream(random.key(5), torch.arange(9), 2, epochs=2, drop_last=False)
    for (p, batch), (q, expected) in zip(found, rows, strict=True):
        assert p == q
        assert torch.equal(batch[0], expected)
    for column in range(1, 4):
        drawn = torch.cat([batch[column].flatten() for _, batch in found])
        assert len(drawn.unique()) == len(drawn)
    plain = list(data.loader(Noisy(9), 2, key=random.key(5), epochs=1, shuffle=False))
    assert torch.equal(torch.cat([batch[0] for _, batch in plain]), torch.arange(8))
    assert torch.equal(plain[0][1][1], found[0][1][1])  # what a batch draws depends on its number alone


def test_what_is_behind_is_not_loaded():
    dataset = Noisy(10)
    position, _ = next(data.loader(dataset, 2, key=random.key(0), start=(7, 3)))
    assert position == Position(7, 4)
    assert len(dataset.loaded) == 2


def test_torch_collates_the_same():
    rows = TensorDataset(random.normal(random.key(1), (6, 2)), torch.arange(6))
    order = random.permutation(random.fold_in(random.key(2), 0), 6).tolist()
    reference = list(DataLoader(rows, batch_sampler=[order[:3], order[3:]], generator=torch.Generator()))
    found = [batch for _, batch in data.loader(rows, 3, key=random.key(2), epochs=1)]
    for a, b in zip(found, reference, strict=True):
        assert all(torch.equal(u, v) for u, v in zip(a, b, strict=True))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_make_the_same_batches(workers):
    before = states()
    options = {"key": random.key(3), "epochs": 2, "drop_last": False, "collate": collate}
    expected = list(data.loader(Noisy(7), 2, **options))
    same(list(data.loader(Noisy(7), 2, workers=workers, **options)), expected)
    same(list(data.loader(Noisy(7), 2, workers=workers, start=(0, 3), **options)), expected[3:])
    assert states() == before


def test_workers_start_while_another_thread_makes_a_batch():
    made, begun, over = [], threading.Event(), threading.Event()

    class Slow(Noisy):
        def __getitem__(self, i):
            begun.set()
            over.wait()
            return super().__getitem__(i)

    options = {"key": random.key(3), "epochs": 1}
    slow = threading.Thread(target=lambda: list(data.loader(Slow(2), 2, **options)), daemon=True)
    fast = threading.Thread(target=lambda: made.extend(data.loader(Noisy(4), 2, workers=1, **options)), daemon=True)
    slow.start()
    begun.wait()
    fast.start()
    fast.join(60)
    over.set()
    slow.join()
    assert len(made) == 2


def test_an_endless_loader_can_be_left():
    before = torch.get_rng_state()
    for workers in (0, 1):
        endless = data.prefetch(data.loader(Noisy(4), 2, key=random.key(0), workers=workers))
        assert [next(endless)[0] for _ in range(5)][-1] == Position(2, 1)
        endless.close()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dataset", [Noisy(6), Streamed(6)])
def test_steps_end_a_loader(dataset):
    found = list(data.loader(dataset, 2, key=random.key(0), steps=5))
    assert found[-1][0] == Position(1, 2)
    assert len(found) == 5
    assert len(list(data.loader(dataset, 2, key=random.key(0), steps=5, start=(0, 2)))) == 3
    assert list(data.loader(dataset, 2, key=random.key(0), steps=0)) == []


class Failing(Noisy):
    def __getitem__(self, i):
        if i == 3:
            raise OSError("picture 3 is broken")
        return super().__getitem__(i)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_comes_at_its_batch(workers):
    before = states()
    found = data.loader(Failing(6), 2, key=random.key(0), workers=workers, shuffle=False)
    assert next(found)[1][0].tolist() == [0, 1]
    with pytest.raises(OSError, match="picture 3 is broken"):
        next(found)
    assert states() == before


@pytest.mark.parametrize(
    ("dataset", "arguments", "message"),
    [
        (Noisy(5), {"batch_size": 6}, r"batch_size is 6 and the data has 5 rows"),
        (Noisy(5), {"workers": -1}, r"workers is -1"),
        (Noisy(5), {"start": (0, 3)}, r"start is batch 3 of epoch 0, and an epoch has 2"),
        (Streamed(5), {"batch_size": 0}, r"batch_size is 0"),
        (Streamed(5), {"workers": 2}, r"each would give every example of an iterable.*prefetch"),
        (Streamed(5), {"steps": 9, "start": (1, 0)}, r"nobody knows how many batches.*End it by epochs"),
        (Streamed(5), {"epochs": 1, "steps": 1}, r"epochs=1 or after steps=1"),
    ],
)
def test_loaders_that_cannot_be_are_explained_at_once(dataset, arguments, message):
    with pytest.raises(ValueError, match=message):
        data.loader(dataset, **{"batch_size": 2, "key": random.key(0)} | arguments)


def test_a_spent_generator_is_explained():
    found = data.loader((i for i in range(4)), 2, key=random.key(0))
    assert len([next(found), next(found)]) == 2
    with pytest.raises(ValueError, match=r"epoch 1 has 0 batches of 2.*A generator is spent after one epoch"):
        next(found)
    with pytest.raises(ValueError, match=r"epoch 0 has 2 batches of 2, and was to have 5 at least"):
        next(data.loader(Streamed(4), 2, key=random.key(0), start=(0, 5)))
