"""Equality with jax itself, over shapes, types and keys."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from funcnet import random

jax = pytest.importorskip("jax")

SEEDS = st.integers(-(2**31), 2**32 - 1)
# Few shapes: jax compiles for each.
SHAPES = st.sampled_from([(), (0,), (1,), (5,), (2, 3), (4, 0, 2), (33, 31)])
few = settings(deadline=None, max_examples=25)


def _same(got: torch.Tensor, want: object) -> None:
    got = got.float() if got.dtype == torch.bfloat16 else got
    want = np.asarray(want)
    np.testing.assert_array_equal(got.numpy(), want.astype("float32") if want.dtype.name == "bfloat16" else want)


@few
@given(SEEDS, SHAPES, st.sampled_from([8, 16, 32]))
def test_bits(seed: int, shape: tuple[int, ...], width: int) -> None:
    got = random.bits(random.key(seed), shape, getattr(torch, f"uint{width}"))
    _same(got, jax.random.bits(jax.random.PRNGKey(seed), shape, f"uint{width}"))


@few
@given(SEEDS, st.sampled_from([1, 2, 9, (2, 3), (0,)]), st.integers(0, 2**32 - 1))
def test_split_and_fold_in(seed: int, num: int | tuple[int, ...], data: int) -> None:
    k, j = random.key(seed), jax.random.PRNGKey(seed)
    _same(random.split(k, num).to(torch.uint32), jax.random.split(j, num))
    _same(random.fold_in(k, data).to(torch.uint32), jax.random.fold_in(j, data))


@few
@given(SEEDS, SHAPES, st.sampled_from(["float16", "bfloat16", "float32", "float64"]))
def test_uniform_and_normal(seed: int, shape: tuple[int, ...], dtype: str) -> None:
    k, j = random.key(seed), jax.random.PRNGKey(seed)
    with jax.enable_x64(dtype == "float64"):
        _same(random.uniform(k, shape, getattr(torch, dtype)), jax.random.uniform(j, shape, dtype))
        want = np.asarray(jax.random.normal(j, shape, dtype)).astype("float64")
    got = random.normal(k, shape, getattr(torch, dtype)).double().numpy()
    # jax's float64 log1p is off by up to sixteen ulp; elsewhere four bound the difference.
    ulp = 32 if dtype == "float64" else 4
    np.testing.assert_allclose(got, want, rtol=ulp * torch.finfo(getattr(torch, dtype)).eps)


@few
@given(SEEDS, st.floats(-50, 50, width=32), st.floats(0, 50, width=32))
def test_uniform_bounds(seed: int, low: float, span: float) -> None:
    got = random.uniform(random.key(seed), (33,), minval=low, maxval=low + span)
    _same(got, jax.random.uniform(jax.random.PRNGKey(seed), (33,), minval=low, maxval=low + span))


@few
@given(SEEDS, SHAPES, st.sampled_from(["int8", "int16", "int32", "uint8"]), st.data())
def test_randint(seed: int, shape: tuple[int, ...], dtype: str, data: st.DataObject) -> None:
    info = torch.iinfo(getattr(torch, dtype))
    low, high = (data.draw(st.integers(info.min, info.max)) for _ in range(2))
    got = random.randint(random.key(seed), shape, low, high, getattr(torch, dtype))
    _same(got, jax.random.randint(jax.random.PRNGKey(seed), shape, low, high, dtype))


@few
# Under x64 jax makes both words of a negative seed from 64 bits.
@given(st.integers(0, 2**31), st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_randint_64(seed: int, low: int, high: int) -> None:
    with jax.enable_x64(True):
        want = np.asarray(jax.random.randint(jax.random.PRNGKey(seed), (9,), low, high, "int64"))
    _same(random.randint(random.key(seed), (9,), low, high, torch.int64), want)


@few
@given(SEEDS, st.sampled_from([0, 1, 2, 50, 2000]), st.booleans(), st.sampled_from([0, 1]))
def test_permutation(seed: int, n: int, independent: bool, axis: int) -> None:
    k, j = random.key(seed), jax.random.PRNGKey(seed)
    np.testing.assert_array_equal(random.permutation(k, n).numpy(), jax.random.permutation(j, n))
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    got = random.permutation(k, torch.from_numpy(x), axis, independent)
    _same(got, jax.random.permutation(j, x, axis, independent))


@few
@given(SEEDS, st.sampled_from([(), (4,), (2, 2)]), st.booleans(), st.booleans())
def test_choice(seed: int, shape: tuple[int, ...], replace: bool, weighted: bool) -> None:
    k, j = random.key(seed), jax.random.PRNGKey(seed)
    p = np.array([0.1, 0.3, 0.05, 0.25, 0.3], np.float32) if weighted else None
    x = np.arange(15, dtype=np.float32).reshape(3, 5)
    got = random.choice(k, torch.from_numpy(x), shape, replace, None if p is None else torch.from_numpy(p), 1)
    _same(got, jax.random.choice(j, x, shape, replace, p, 1))


@few
@given(SEEDS, st.sampled_from([0, 1, -1]), st.booleans())
def test_categorical(seed: int, axis: int, replace: bool) -> None:
    x = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    batch = tuple(np.delete(x.shape, axis))
    got = random.categorical(random.key(seed), torch.from_numpy(x), axis, (2, *batch), replace)
    want = jax.random.categorical(jax.random.PRNGKey(seed), x, axis, (2, *batch), replace)
    np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize("name", ["double_sided_maxwell", "weibull_min", "triangular", "pareto", "rayleigh", "wald"])
def test_families(name: str) -> None:
    args = {"double_sided_maxwell": (1.0, 2.0), "weibull_min": (2.0, 1.5), "triangular": (-1.0, 0.5, 2.0)}.get(
        name, (1.5,)
    )
    got = getattr(random, name)(random.key(7), *args, shape=(50,)).numpy()
    want = getattr(jax.random, name)(jax.random.PRNGKey(7), *(np.float32(a) for a in args), shape=(50,))
    np.testing.assert_allclose(got, want, rtol=3e-5, atol=1e-6)


def test_vectors() -> None:
    mean, cov = np.array([1.0, -2.0], np.float32), np.array([[2.0, 0.5], [0.5, 1.0]], np.float32)
    got = random.multivariate_normal(random.key(7), torch.from_numpy(mean), torch.from_numpy(cov), (6,)).numpy()
    want = jax.random.multivariate_normal(jax.random.PRNGKey(7), mean, cov, (6,))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
