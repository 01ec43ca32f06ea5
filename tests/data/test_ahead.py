"""Prefetching: the same items in the same order, no more ahead than asked, and no thread left behind."""

import threading
import time
import traceback

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from funcnet import data, random


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def until(condition):
    for _ in range(2000):
        if condition():
            return True
        time.sleep(0.001)
    return False


@given(n=st.integers(0, 30), size=st.integers(1, 5))
def test_items_come_in_order_and_the_thread_ends(n, size):
    assert list(data.prefetch(range(n), size)) == list(range(n))
    assert not threads()


def test_as_many_are_made_ahead_as_asked_and_no_more():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i

    ahead = data.prefetch(items(), 3)
    assert not made
    assert not threads()  # nothing before the first item is asked for
    for i in range(5):
        assert next(ahead) == i
        assert until(lambda i=i: len(made) == i + 4)
    time.sleep(0.02)
    assert len(made) == 8
    ahead.close()
    assert not threads()


def test_an_error_comes_after_the_items_before_it_with_its_traceback():
    def broken():
        yield 1
        yield 2
        raise OSError("the third is broken")

    ahead = data.prefetch(broken(), 5)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(OSError, match="the third is broken") as caught:
        next(ahead)
    assert "broken" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert not threads()
    assert list(ahead) == []


def test_a_break_ends_the_thread_and_the_generator_in_it():
    closed = []

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.append(threading.current_thread().name)

    for _ in data.prefetch(items()):
        break
    assert until(lambda: closed)
    assert closed == ["prefetch"]
    assert not threads()


def test_what_no_iterator_can_be_made_of_is_the_consumers_error():
    with pytest.raises(TypeError, match="not iterable"):
        next(data.prefetch(3))
    with pytest.raises(ValueError, match=r"size is 0; .* must be positive"):
        data.prefetch([], 0)
    with pytest.raises(RuntimeError, match="nonsense"):
        data.prefetch([], device="nonsense")


def test_tensors_move_and_the_rest_stays():
    rows = {"x": random.normal(random.key(0), (8, 2)), "label": torch.arange(8)}
    plain = list(data.stream(random.key(1), rows, 2, epochs=1))
    ahead = list(data.prefetch(data.stream(random.key(1), rows, 2, epochs=1), device="cpu"))
    for (p, a), (q, b) in zip(plain, ahead, strict=True):
        assert p == q
        assert type(q) is data.Position
        assert torch.equal(a["x"], b["x"])
    (position, batch) = next(data.prefetch(data.stream(random.key(1), rows, 2), device="meta"))
    assert batch["x"].device.type == "meta"
    assert position == (0, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_reach_a_gpu_whole():
    rows = random.normal(random.key(0), (512, 4096))
    ahead = data.prefetch(data.stream(random.key(1), rows, 32, epochs=3), device="cuda")
    for (_, batch), (_, expected) in zip(ahead, data.stream(random.key(1), rows, 32, epochs=3), strict=True):
        assert batch.is_cuda
        assert torch.equal((batch * 2).cpu(), expected * 2)


def test_work_overlaps():
    def slow():
        for i in range(5):
            time.sleep(0.02)
            yield i

    start = time.perf_counter()
    for _ in data.prefetch(slow()):
        time.sleep(0.02)
    assert time.perf_counter() - start < 0.19  # 0.2 one after the other, 0.12 at best


def test_the_gpu_is_the_current_one_of_the_caller(monkeypatch):
    current, seen = threading.local(), []
    current.index = 3  # of this thread; another begins with 0, as in torch

    def stop(device):
        seen.extend([device, torch.cuda.current_device()])
        raise OSError("here the test ends")

    monkeypatch.setattr(torch.cuda, "current_device", lambda: getattr(current, "index", 0))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: setattr(current, "index", device.index))
    monkeypatch.setattr(torch.cuda, "Stream", stop)
    for device in ("cuda", "cuda:2"):
        with pytest.raises(OSError, match="here the test ends"):
            next(data.prefetch(iter([torch.arange(2)]), device=device))
    assert seen == [torch.device("cuda:3"), 3, torch.device("cuda:2"), 2]
    assert current.index == 3
