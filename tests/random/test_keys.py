"""Keys, the forms of Threefry, and the check for reuse."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from funcnet import random
from funcnet.random import operator, reuse, threefry

WORDS = st.integers(0, 2**32 - 1)


def test_known_answers() -> None:
    # The published vectors of Random123, threefry2x32 with 20 rounds: key, counter, result.
    for key, counter, want in (
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ):
        assert threefry.hash_ints(*key, *counter) == want


@settings(deadline=None, max_examples=30)
@given(WORDS, WORDS, st.integers(0, 2**34), st.integers(0, 40))
def test_three_forms_agree(k0: int, k1: int, start: int, n: int) -> None:
    key = torch.tensor([k0, k1]).to(torch.int32)
    high, low = threefry.counters(n, torch.device("cpu"), start)
    a, b = (x.numpy().view("u4") for x in threefry.hash_tensors(key[0], key[1], high.expand(n).contiguous(), low))
    ints = [threefry.hash_ints(k0, k1, (start + i) >> 32, (start + i) & threefry.WORD) for i in range(n)]
    assert list(zip(a.tolist(), b.tolist(), strict=True)) == ints
    if start + n <= 2**32 or start >= 2**32:
        np.testing.assert_array_equal(threefry.fill(k0, k1, n, "bits", start), a ^ b)
        pair = threefry.fill(k0, k1, n, "pair", start)
        np.testing.assert_array_equal(pair, a.astype("u8") << np.uint64(32) | b)
        np.testing.assert_array_equal(threefry.fill(k0, k1, n, "unit", start), ((a ^ b) >> 9) * np.float32(2**-23))


def test_chunks_join() -> None:
    n = 2 * threefry.CHUNK + 3
    whole = random.bits(random.key(5), (n,))
    a, b = operator.words(random.key(5), (n,))
    assert torch.equal(whole, a ^ b)


def test_key_of_tensor_and_of_integer_agree() -> None:
    for seed in (0, 1, -1, 2**31, -(2**31), 2**32, 2**40 + 3, -(2**40), 2**63 - 1, -(2**63)):
        assert torch.equal(random.key(seed), random.key(torch.tensor(seed))), seed
    seeds = torch.arange(3)
    assert torch.equal(torch.func.vmap(random.key)(seeds), torch.stack([random.key(int(s)) for s in seeds]))


def test_fold_in_of_tensor_and_integer_agree() -> None:
    k, data = random.key(3), torch.tensor([0, 1, 2**31 - 1, -1])
    want = torch.stack([random.fold_in(k, int(d)) for d in data])
    assert torch.equal(torch.func.vmap(lambda d: random.fold_in(k, d))(data), want)
    assert torch.equal(torch.stack([random.fold_in(k, d) for d in data]), want)


def test_errors() -> None:
    for call, error, match in (
        (lambda: random.key(0.5), TypeError, "integer seed, and got float"),
        (lambda: random.key(2**64), ValueError, "at most 64 bits"),
        (lambda: random.key(torch.zeros(2, dtype=torch.int32)), TypeError, r"shape \(2,\)"),
        (lambda: random.fold_in(random.key(0), 0.5), TypeError, "integer, and got float"),
        (lambda: random.fold_in(random.key(0), 2**32), ValueError, "32 bits"),
        (lambda: random.fold_in(random.key(0), torch.zeros(2)), TypeError, "vmap"),
        (lambda: random.split(random.key(0), -1), ValueError, "num=-1"),
        (lambda: random.split(None), TypeError, "random.split needs a key"),
        (lambda: random.uniform(random.key(0), (2,), torch.int32), TypeError, "float32 or float64"),
        (lambda: random.uniform(random.key(0), (-2,)), ValueError, "not negative"),
        (lambda: random.uniform(random.key(0), (2,), minval=torch.zeros(3)), ValueError, "broadcast"),
        (lambda: random.uniform(random.key(0), "ab"), TypeError, "takes a shape"),
        (lambda: random.randint(random.key(0), (2,), 0.0, 1.0), TypeError, "integer bounds"),
        (lambda: random.randint(random.key(0), (2,), 0, 1, torch.float32), TypeError, "int64 or uint8"),
        (lambda: random.bits(random.key(0), (2,), torch.float32), TypeError, "integer dtype"),
        (lambda: random.choice(random.key(0), 3, (4,), replace=False), ValueError, "4 of 3"),
        (lambda: random.choice(random.key(0), 3, (4,), p=torch.ones(2)), ValueError, r"shape \(3,\)"),
        (lambda: random.choice(random.key(0), 0, (4,)), ValueError, "nothing to draw"),
        (lambda: random.categorical(random.key(0), torch.arange(3)), TypeError, "floating logits"),
        (lambda: random.categorical(random.key(0), torch.zeros(4, 3), shape=(5,)), ValueError, "must end in"),
        (lambda: random.permutation(random.key(0), 1.5), TypeError, "range"),
        (lambda: random.dirichlet(random.key(0), torch.tensor(1.0)), ValueError, "got a scalar"),
        (lambda: random.multivariate_normal(random.key(0), torch.zeros(2), torch.eye(3)), ValueError, "cov"),
        (lambda: random.gumbel(random.key(0), mode="x"), ValueError, "mode='high'"),
        (lambda: random.bernoulli(random.key(0), torch.tensor(1)), TypeError, "floating probability"),
    ):
        with pytest.raises(error, match=match):
            call()


def test_reuse_is_found() -> None:
    k = random.key(0)
    with random.check_reuse():
        random.uniform(k, (2,))
        with pytest.raises(random.KeyReuseError, match=r"random.uniform at .*test_keys.py:\d+, now by random.split"):
            random.split(k.clone())
    with random.check_reuse():
        a, b = random.split(k)
        random.normal(a)
        random.gamma(b, 2.0)
        with pytest.raises(random.KeyReuseError, match=r"random\.normal at .* now by random\.permutation"):
            random.permutation(a, 4)
    with random.check_reuse():
        for i in range(3):
            random.uniform(random.fold_in(k, i))
        with pytest.raises(random.KeyReuseError, match=r"now by random\.bits"):
            random.bits(random.fold_in(k, 1))


def test_reuse_ends_with_its_block_and_thread() -> None:
    k = random.key(0)
    with random.check_reuse():
        random.uniform(k)
        thread = threading.Thread(target=lambda: (random.uniform(k), random.uniform(k)))
        thread.start()
        thread.join()
        torch.func.vmap(lambda k: random.uniform(k) + random.uniform(k))(random.split(random.key(1), 3))
    random.uniform(k)
    assert not reuse.watching()
