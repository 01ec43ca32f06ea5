"""A draw depends on its arguments, so not on torch's default dtype and device."""

from collections.abc import Iterator

import pytest
import torch
from random_registry import SCALAR, Entry, ids

from funcnet import random

every = pytest.mark.parametrize("entry", SCALAR, ids=ids)
SHAPE = (3000,)


@pytest.fixture
def defaults() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@pytest.mark.usefixtures("defaults")
def test_default_dtype_changes_no_bit(entry: Entry, dtype: torch.dtype) -> None:
    keys = random.split(random.key(0), 2)
    plain = entry.draw(keys[0], SHAPE), torch.func.vmap(lambda k: entry.draw(k, SHAPE))(keys)
    torch.set_default_dtype(dtype)
    assert torch.equal(entry.draw(keys[0], SHAPE), plain[0])
    assert torch.equal(torch.func.vmap(lambda k: entry.draw(k, SHAPE))(keys), plain[1])


@every
@pytest.mark.usefixtures("defaults")
def test_default_device_is_not_the_keys(entry: Entry) -> None:
    key = random.key(0)
    plain = entry.draw(key, SHAPE)
    torch.set_default_device("meta")
    assert torch.equal(entry.draw(key, SHAPE), plain)


@pytest.mark.usefixtures("defaults")
def test_keys_are_on_the_keys_device() -> None:
    key = random.key(0)
    f = (
        lambda: random.split(key),
        lambda: random.split(key, 30),
        lambda: random.fold_in(key, 7),
        lambda: random.permutation(key, 10),
        lambda: random.choice(key, 10, (4,)),
        lambda: random.choice(key, 10, (4,), replace=False),
        lambda: random.orthogonal(key, 3),
    )
    plain = [g() for g in f]
    torch.set_default_device("meta")
    for g, want in zip(f, plain, strict=True):
        assert torch.equal(g(), want)
