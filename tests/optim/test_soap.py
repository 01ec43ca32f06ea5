"""SOAP: against a loop in numpy, and the contracts of the registry, where optax has nothing to compare with."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import grad

from funcnet import optim, random, tree

sys.path.insert(0, str(Path(__file__).parent))
import test_contracts as contracts
from cases import Case
from running import close, example, steps

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script.:FutureWarning")


def by_hand(gradients, b1, b2, b3, eps, frequency):
    """The updates of a matrix (Vyas et al., algorithm 3, with the authors' first step and bias corrections)."""
    rows, columns = gradients[0].shape
    left, right, mean, square = np.zeros((rows, rows)), np.zeros((columns, columns)), 0.0, 0.0
    basis_left = basis_right = None
    seen = []
    for step, g in enumerate(gradients):
        if step:
            turned = basis_left.T @ g @ basis_right
            mean = b1 * mean + (1 - b1) * g
            square = b2 * square + (1 - b2) * turned**2
            turned_mean = basis_left.T @ mean @ basis_right / (1 - b1**step)
            seen.append(basis_left @ (turned_mean / (np.sqrt(square / (1 - b2**step)) + eps)) @ basis_right.T)
        else:
            seen.append(np.zeros_like(g))
        left, right = b3 * left + (1 - b3) * g @ g.T, b3 * right + (1 - b3) * g.T @ g
        if not step:
            basis_left, basis_right = np.linalg.eigh(left)[1][:, ::-1], np.linalg.eigh(right)[1][:, ::-1]
        elif step % frequency == 0:
            order = np.argsort(-np.diag(basis_left.T @ left @ basis_left), kind="stable")
            square, basis_left = square[order], np.linalg.qr(left @ basis_left[:, order])[0]
            order = np.argsort(-np.diag(basis_right.T @ right @ basis_right), kind="stable")
            square, basis_right = square[:, order], np.linalg.qr(right @ basis_right[:, order])[0]
    return seen


@pytest.mark.parametrize("shape", [(3, 3), (2, 3), (4, 3), (1, 2)])
@pytest.mark.parametrize("frequency", [1, 3, 100])
@pytest.mark.parametrize("b3", [None, 0.8])
def test_updates_are_those_of_a_loop(shape, frequency, b3):
    gradients = [random.normal(random.key(i), shape, torch.float64) for i in range(10)]
    rule = optim.contrib.scale_by_soap(0.9, 0.95, b3, 1e-8, frequency)
    params = {"w": torch.zeros(shape, dtype=torch.float64)}
    want = by_hand([g.numpy() for g in gradients], 0.9, 0.95, 0.95 if b3 is None else b3, 1e-8, frequency)
    state = rule.init(params)
    for gradient, expected in zip(gradients, want, strict=True):
        updates, state = rule.update({"w": gradient}, state, params)
        np.testing.assert_allclose(updates["w"].numpy(), expected, rtol=1e-7, atol=1e-9)


def test_a_leaf_without_bases_gets_adam():
    params, gradients = example(dtype=torch.float64), [example(i, torch.float64) for i in range(1, 6)]
    rule, adam = optim.contrib.scale_by_soap(0.9, 0.99, max_precond_dim=1), optim.scale_by_adam(0.9, 0.99)
    state, other = rule.update(gradients[0], rule.init(params), params)[1], adam.init(params)
    assert not tree.leaves(state.bases)
    for gradient in gradients[1:]:
        updates, state = rule.update(gradient, state, params)
        want, other = adam.update(gradient, other, params)
        close(updates, want)


def test_every_axis_of_a_tensor_has_a_basis():
    params = {"k": torch.zeros(2, 3, 4), "v": torch.zeros(3)}
    state = optim.contrib.scale_by_soap(precondition_1d=True, max_precond_dim=3).init(params)
    assert [leaf.shape for leaf in tree.leaves(state.bases)] == [(2, 2), (3, 3), (3, 3)]
    _, state = steps(
        optim.contrib.scale_by_soap(precondition_frequency=1),
        params,
        [{"k": random.normal(random.key(i), (2, 3, 4)), "v": torch.ones(3)} for i in range(4)],
    )
    for basis in tree.leaves(state.bases):
        torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis)), rtol=0, atol=1e-5)


def test_updates_turn_with_the_axes():
    turn = torch.linalg.qr(random.normal(random.key(9), (3, 3), torch.float64))[0]
    gradients = [random.normal(random.key(i), (3, 4), torch.float64) for i in range(6)]
    params = {"w": torch.zeros(3, 4, dtype=torch.float64)}
    optimizer = optim.contrib.soap(0.1, weight_decay=0.0, precondition_frequency=2)
    plain = steps(optimizer, params, [{"w": g} for g in gradients])[0]["w"]
    turned = steps(optimizer, params, [{"w": turn @ g} for g in gradients])[0]["w"]
    torch.testing.assert_close(turned, turn @ plain, rtol=1e-6, atol=1e-8)


def test_derivatives_are_finite_and_right_where_the_bases_are_constant():
    rule, params = optim.contrib.scale_by_soap(), {"w": torch.zeros(4, 2, dtype=torch.float64)}
    first = {"w": random.normal(random.key(1), (4, 2), torch.float64)}
    _, state = rule.update(first, rule.init(params), params)
    second = random.normal(random.key(2), (4, 2), torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda g: rule.update({"w": g}, state, params)[0]["w"], second)
    slope = grad(lambda g: steps(rule, params, [{"w": g}, {"w": 2 * g}])[0]["w"].sum())(first["w"])
    assert slope.isfinite().all()


CASES = [
    Case("soap", {"learning_rate": 0.1, "weight_decay": 0.0}, room="contrib"),
    Case("soap", {"learning_rate": 0.1, "weight_decay": 0.1, "precondition_frequency": 2}, room="contrib"),
]
every = pytest.mark.parametrize("case", CASES, ids=str)


@every
def test_contracts(case, tmp_path):
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        contracts.test_keeps_dtypes_shapes_and_structure(case, dtype)
    contracts.test_changes_nothing_it_was_given(case)
    contracts.test_init_never_aliases(case)
    contracts.test_vmap_over_parameters_equals_a_loop(case)
    contracts.test_vmap_over_learning_rates_equals_a_loop(case, torch.float32)
    contracts.test_gradient_through_two_steps_is_the_slope(case)
    contracts.test_traces_to_the_same_values_without_kernels_for_many(case)
    contracts.test_scans(case)
    contracts.test_states_survive_pickling_and_safetensors(case, tmp_path)


@every
def test_compiles_once(case):
    contracts.test_compiles_once(case)


@every
@pytest.mark.parametrize("valley", contracts.VALLEYS)
def test_converges(case, valley):
    contracts.test_converges(case, valley)
