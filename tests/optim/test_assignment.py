"""The Hungarian algorithm against scipy's."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from funcnet import grad, jit, random, vmap
from funcnet.optim import assignment


def costs(seed, *shape, ties=False):
    if ties:
        return random.randint(random.key(seed), shape, 0, 4).double()
    return random.normal(random.key(seed), shape, dtype=torch.float64)


@given(seed=st.integers(0, 10**6), rows=st.integers(1, 7), columns=st.integers(1, 7), ties=st.booleans())
def test_costs_what_scipys_costs(seed, rows, columns, ties):
    matrix = costs(seed, rows, columns, ties=ties)
    i, j = assignment.hungarian_algorithm(matrix)
    assert len(set(i.tolist())) == len(set(j.tolist())) == min(rows, columns)
    assert i.tolist() == sorted(i.tolist())
    best = matrix.numpy()[linear_sum_assignment(matrix.numpy())].sum()
    np.testing.assert_allclose(matrix[i, j].sum(), best, rtol=1e-9, atol=1e-12)
    if not ties:
        np.testing.assert_array_equal(j, linear_sum_assignment(matrix.numpy())[1])


def test_equals_optax():
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    for shape in ((4, 6), (6, 4)):
        matrix = costs(3, *shape).float()
        want = optax.assignment.hungarian_algorithm(jax.numpy.asarray(matrix.numpy()))
        pairs = [
            [np.asarray(index).tolist() for index in both] for both in (assignment.hungarian_algorithm(matrix), want)
        ]
        assert set(zip(*pairs[0], strict=True)) == set(zip(*pairs[1], strict=True))  # optax's order is its own


def test_vmap_and_jit():
    matrices = costs(5, 4, 3, 5)
    want = torch.stack([assignment.hungarian_algorithm(matrix)[1] for matrix in matrices])
    assert torch.equal(vmap(assignment.hungarian_algorithm)(matrices)[1], want)
    compiled = jit(assignment.hungarian_algorithm, backend="aot_eager")
    for matrix, columns in zip(matrices, want, strict=True):
        assert torch.equal(compiled(matrix)[1], columns)
    assert compiled.compiles == 1


def test_the_slope_of_the_least_cost_is_the_assignment():
    matrix = costs(6, 4, 4)
    i, j = assignment.hungarian_algorithm(matrix)
    slope = grad(lambda c: c[assignment.hungarian_algorithm(c)].sum())(matrix)
    assert torch.equal(slope, torch.zeros_like(matrix).index_put((i, j), torch.ones(4).double()))


def test_impossible_pairs_are_avoided_and_all_impossible_ends():
    matrix = torch.tensor([[torch.inf, 1.0, torch.nan], [2.0, torch.inf, torch.inf], [3.0, torch.nan, 9.0]])
    assert assignment.hungarian_algorithm(matrix)[1].tolist() == [1, 0, 2]
    assert sorted(assignment.hungarian_algorithm(torch.full((3, 3), torch.inf))[1].tolist()) == [0, 1, 2]


def test_empty_and_wrong_shapes():
    assert assignment.hungarian_algorithm(torch.ones(0, 3))[0].shape == (0,)
    assert assignment.hungarian_algorithm(torch.ones(3, 0))[1].shape == (0,)
    with pytest.raises(ValueError, match=r"costs of shape \(2, 3, 3\)"):
        assignment.hungarian_algorithm(torch.ones(2, 3, 3))
