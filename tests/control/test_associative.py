"""`associative_scan` against jax.lax and loops, under transforms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from funcnet import grad, jit, jvp, random, tree, vmap
from funcnet.control import associative_scan

KEY = random.key(8)


def normal(n, shape):
    return random.normal(random.fold_in(KEY, n), shape, torch.float64)


def close(got, want):
    tree.map(torch.testing.assert_close, got, want)


def linear(a, b):
    """Two steps of `h -> decay * h + drive` as one: associative and not commutative."""
    return {"decay": a["decay"] * b["decay"], "drive": b["decay"] * a["drive"] + b["drive"]}


def prefixes(fn, xs, reverse=False):
    rows = tree.unstack(xs)
    out = []
    for row in rows[::-1] if reverse else rows:
        out.append(fn(out[-1], row) if out else row)
    return tree.stack(out[::-1] if reverse else out)


@settings(max_examples=6, deadline=None)
@given(st.sampled_from([1, 2, 5, 8]), st.booleans(), st.sampled_from([0, -1]), st.integers(0, 2**31))
def test_it_is_that_of_lax(length, reverse, axis, seed):
    jax = pytest.importorskip("jax")
    shape = [2, 3]
    shape.insert(axis if axis >= 0 else 2, length)
    xs = {"decay": random.normal(random.key(seed), shape), "drive": random.normal(random.key(seed + 1), shape)}
    with jax.disable_jit():
        arrays = tree.map(lambda t: jax.numpy.asarray(t.numpy()), xs)
        # jax itself takes no negative axis in reverse.
        want = jax.lax.associative_scan(linear, arrays, reverse=reverse, axis=axis % len(shape))
    got = associative_scan(linear, xs, reverse=reverse, axis=axis)
    for name in xs:
        np.testing.assert_allclose(got[name].numpy(), np.asarray(want[name]), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("length", [0, 1, 2, 7, 8])
@pytest.mark.parametrize("reverse", [False, True])
def test_matrices_in_order_under_transforms(length, reverse):
    xs = normal(0, (length, 3, 3))
    fn = (lambda a, b: b @ a) if reverse else torch.matmul
    f = lambda xs: associative_scan(fn, xs, reverse=reverse)  # noqa: E731
    if not length:
        return close(f(xs), xs)
    loop = lambda xs: prefixes(fn, xs, reverse)  # noqa: E731
    close(f(xs), loop(xs))
    close(grad(lambda xs: (f(xs) ** 2).sum())(xs), grad(lambda xs: (loop(xs) ** 2).sum())(xs))
    close(jvp(f, (xs,), (xs + 1,)), jvp(loop, (xs,), (xs + 1,)))
    many = torch.stack([xs, xs + 1])
    close(vmap(f)(many), torch.stack([loop(xs), loop(xs + 1)]))


def test_compiled():
    xs = normal(1, (6, 3, 3))
    f = grad(lambda xs: associative_scan(torch.matmul, xs).sum())
    close(jit(f, backend="aot_eager")(xs), f(xs))


def test_the_number_of_calls_is_logarithmic():
    calls = []
    associative_scan(lambda a, b: calls.append(1) or a + b, torch.arange(1024))
    assert len(calls) < 20


@pytest.mark.parametrize(
    ("elems", "fn", "match"),
    [
        (
            {"a": normal(2, (4, 3)), "b": normal(3, (2,))},
            torch.add,
            r"along axis 0, and found 4 at 'a', 2 at",
        ),
        ({"a": torch.tensor(1.0)}, torch.add, r"with an axis 0, not float32 of shape \(\) at 'a'"),
        (normal(2, (4, 3)), lambda a, b: (a + b).sum(0), r"Its only leaf is float64 of shape \(2, 3\) in one and"),
        ({"a": normal(2, (4,))}, lambda a, b: {}, r"of one structure.*\n.*'a' is missing"),
        ({}, torch.add, "found no tensor"),
    ],
)
def test_bad_input(elems, fn, match):
    with pytest.raises((TypeError, ValueError), match=match):
        associative_scan(fn, elems)
