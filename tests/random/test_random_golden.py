"""Equality with jax, from a file, without jax. The file is written by make_random_golden.py and holds jax's version."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from funcnet import random

GOLDEN = np.load(Path(__file__).parent / "golden" / "jax.npz")
K = random.key(42)
P = torch.tensor([0.1, 0.2, 0.3, 0.4])
ROWS = torch.arange(30).reshape(10, 3)

EXACT: dict[str, Callable[[], torch.Tensor]] = {
    **{f"bits/{n}": lambda n=n: random.bits(K, (5, 7), getattr(torch, f"uint{n}")) for n in (8, 16, 32)},
    "bits/64": lambda: random.bits(K, (9,), torch.uint64),
    "split": lambda: random.split(K, 5).to(torch.uint32),
    "split/shape": lambda: random.split(K, (2, 3)).to(torch.uint32),
    "fold_in": lambda: torch.stack([random.fold_in(K, i) for i in (0, 1, 2**31 - 1, 2**32 - 1)]).to(torch.uint32),
    **{f"uniform/{d}": lambda d=d: random.uniform(K, (40,), getattr(torch, d)) for d in ("float16", "bfloat16")},
    "uniform/float32": lambda: random.uniform(K, (40,)),
    "uniform/float64": lambda: random.uniform(K, (40,), torch.float64),
    "uniform/bounds": lambda: random.uniform(K, (200,), minval=-0.37, maxval=11.3),
    "bernoulli": lambda: random.bernoulli(K, 0.3, (40,)),
    "rademacher": lambda: random.rademacher(K, (40,)),
    **{
        f"randint/{d}": lambda d=d: random.randint(K, (40,), 3, 120, getattr(torch, d))
        for d in ("int8", "int16", "int32", "uint8")
    },
    "randint/wide": lambda: random.randint(K, (40,), -(2**31), 2**31 - 1),
    "randint/int64": lambda: random.randint(K, (40,), -5, 10**15, torch.int64),
    "permutation": lambda: random.permutation(K, 100),
    "permutation/rows": lambda: random.permutation(K, ROWS),
    "permutation/independent": lambda: random.permutation(K, ROWS, 1, independent=True),
    "choice": lambda: random.choice(K, 7, (40,)),
    "choice/p": lambda: random.choice(K, 4, (40,), p=P),
    "choice/without": lambda: random.choice(K, 9, (4,), replace=False),
    "choice/p without": lambda: random.choice(K, 4, (3,), replace=False, p=P),
    "categorical": lambda: random.categorical(K, torch.log(P), shape=(40,)),
}
CLOSE = ("exponential", "gumbel", "laplace", "cauchy", "logistic", "maxwell")


@pytest.mark.parametrize("name", EXACT)
def test_exact(name: str) -> None:
    got = EXACT[name]()
    got = got.float() if got.dtype == torch.bfloat16 else got
    np.testing.assert_array_equal(got.numpy(), GOLDEN[name])


@pytest.mark.parametrize("name", CLOSE)
def test_close(name: str) -> None:
    got = getattr(random, name)(K, (40,)).numpy()
    np.testing.assert_allclose(got, GOLDEN[name], rtol=4 * 2**-23, atol=4 * 2**-23)


def test_normal_is_within_four_ulp() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        want = GOLDEN[f"normal/{dtype}".replace("torch.", "")]
        got = random.normal(K, (40,), dtype).float().numpy()
        np.testing.assert_allclose(got, want, rtol=4 * torch.finfo(dtype).eps)
    got = random.truncated_normal(K, -0.5, 2.0, (40,)).numpy()
    np.testing.assert_allclose(got, GOLDEN["truncated_normal"], rtol=8 * 2**-23, atol=2**-23)


def test_orthogonal() -> None:
    np.testing.assert_allclose(random.orthogonal(K, 4).numpy(), GOLDEN["orthogonal"], atol=2e-6)
