"""Curvature products and diagonals, against explicit matrices and optax."""

import inspect
import warnings

import numpy as np
import pytest
import torch
from torch.func import vmap

from funcnet import jit, losses, random, tree
from funcnet.optim import second_order
from funcnet.transforms import grad, hessian, jacrev

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script.:FutureWarning")

DOUBLE = torch.float64


def normal(seed, *shape):
    return random.normal(random.key(seed), shape, dtype=DOUBLE)


PARAMS = {"b": normal(1, 3), "w": {"k": normal(2, 2, 3)}}  # jax sorts the keys of dicts
INPUTS, LABELS = normal(3, 6, 2), torch.tensor([0, 2, 1, 1, 0, 2])
VECTOR, UNRAVEL = tree.ravel(PARAMS)
DIRECTION = normal(4, len(VECTOR))


def model(params, inputs):
    return torch.tanh(inputs @ params["w"]["k"] + params["b"]) * 2


def risk(predictions, labels):
    return losses.softmax_cross_entropy_with_integer_labels(predictions, labels).mean()


def loss(params, inputs, targets):
    return risk(model(params, inputs), targets)


def matrix():
    return hessian(lambda v: loss(UNRAVEL(v), INPUTS, LABELS))(VECTOR)


def flat(x):
    return tree.ravel(x)[0]


@pytest.mark.parametrize("v", [DIRECTION, UNRAVEL(DIRECTION)], ids=["vector", "tree"])
def test_hvp_is_the_matrix_times_the_vector(v):
    got = second_order.hvp(loss, v, PARAMS, INPUTS, LABELS)
    tree.check_like(got, PARAMS, dtype=True)
    torch.testing.assert_close(flat(got), matrix() @ DIRECTION)


def test_hessian_diag_is_the_matrixs():
    torch.testing.assert_close(second_order.hessian_diag(loss, PARAMS, INPUTS, LABELS), matrix().diagonal())


def test_fisher_diag_is_the_gradients_square():
    want = grad(lambda v: loss(UNRAVEL(v), INPUTS, LABELS))(VECTOR) ** 2
    torch.testing.assert_close(second_order.fisher_diag(loss, PARAMS, INPUTS, LABELS), want)


def gauss_newton():
    outputs = model(PARAMS, INPUTS)
    jacobian = jacrev(lambda v: model(UNRAVEL(v), INPUTS))(VECTOR).reshape(outputs.numel(), -1)
    inner = hessian(lambda out: risk(out.reshape(outputs.shape), LABELS))(outputs.reshape(-1))
    return jacobian.T @ inner @ jacobian


@pytest.mark.parametrize("v", [DIRECTION, UNRAVEL(DIRECTION)], ids=["vector", "tree"])
def test_ggn_is_the_matrix_times_the_vector(v):
    got = second_order.ggn(model, risk, v, PARAMS, INPUTS, LABELS)
    tree.check_like(got, PARAMS, dtype=True)
    torch.testing.assert_close(flat(got), gauss_newton() @ DIRECTION)
    assert torch.linalg.eigvalsh(gauss_newton()).min() > -1e-12
    assert torch.linalg.eigvalsh(matrix()).min() < -1e-3  # where the Hessian itself is not positive


def test_ggn_of_cross_entropy_is_the_fisher_matrix():
    """The mean over examples, and over labels drawn from the model, of the gradient's outer square."""

    def score(v, x, label):
        return losses.softmax_cross_entropy_with_integer_labels(model(UNRAVEL(v), x), label)

    fisher = torch.zeros(len(VECTOR), len(VECTOR), dtype=DOUBLE)
    for x in INPUTS:
        for label in range(3):
            g = grad(score)(VECTOR, x, torch.tensor(label))
            fisher = fisher + model(PARAMS, x).softmax(-1)[label] * torch.outer(g, g) / len(INPUTS)
    torch.testing.assert_close(gauss_newton(), fisher)


def test_fisher_diag_over_examples_by_vmap():
    each = vmap(lambda x, y: second_order.fisher_diag(loss, PARAMS, x, y))(INPUTS, LABELS)
    want = [second_order.fisher_diag(loss, PARAMS, x, y) for x, y in zip(INPUTS, LABELS, strict=True)]
    torch.testing.assert_close(each, torch.stack(want))


CALLS = {
    "hvp": lambda v, p: second_order.hvp(loss, v, p, INPUTS, LABELS),
    "ggn": lambda v, p: second_order.ggn(model, risk, v, p, INPUTS, LABELS),
    "hessian_diag": lambda v, p: second_order.hessian_diag(loss, p, INPUTS, LABELS) * v,
    "fisher_diag": lambda v, p: second_order.fisher_diag(loss, p, INPUTS, LABELS) * v,
}


@pytest.mark.parametrize("name", CALLS)
def test_under_vmap_jit_and_grad(name):
    f = CALLS[name]
    many = normal(5, 3, len(VECTOR))
    want = tree.stack([f(v, PARAMS) for v in many])
    torch.testing.assert_close(vmap(lambda v: f(v, PARAMS))(many), want)
    torch.testing.assert_close(jit(f, backend="aot_eager")(many[0], PARAMS), f(many[0], PARAMS))
    slope = grad(lambda v: flat(f(DIRECTION, UNRAVEL(v))).sum())(VECTOR)
    numeric = (
        flat(f(DIRECTION, UNRAVEL(VECTOR + 1e-6 * DIRECTION))).sum()
        - flat(f(DIRECTION, UNRAVEL(VECTOR - 1e-6 * DIRECTION))).sum()
    ) / 2e-6
    torch.testing.assert_close(slope @ DIRECTION, numeric, rtol=1e-6, atol=1e-8)


def test_equal_optax():
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")

    def theirs(params, inputs, targets):
        logits = jax.numpy.tanh(inputs @ params["w"]["k"] + params["b"]) * 2
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        params = jax.tree.map(lambda x: jax.numpy.asarray(x.numpy()), PARAMS)
        data = (params, jax.numpy.asarray(INPUTS.numpy()), jax.numpy.asarray(LABELS.numpy()))
        product = optax.second_order.hvp(theirs, jax.numpy.asarray(DIRECTION.numpy()), *data)
        diagonals = [getattr(optax.second_order, name)(theirs, *data) for name in ("hessian_diag", "fisher_diag")]
    got = second_order.hvp(loss, DIRECTION, PARAMS, INPUTS, LABELS)
    for mine, want in zip(tree.leaves(got), jax.tree.leaves(product), strict=True):
        np.testing.assert_allclose(mine.numpy(), np.asarray(want), rtol=1e-9)
    for name, want in zip(("hessian_diag", "fisher_diag"), diagonals, strict=True):
        mine = getattr(second_order, name)(loss, PARAMS, INPUTS, LABELS)
        np.testing.assert_allclose(mine.numpy(), np.asarray(want), rtol=1e-9)
    for name in ("hvp", "hessian_diag", "fisher_diag"):
        signatures = [
            list(inspect.signature(getattr(room, name)).parameters) for room in (second_order, optax.second_order)
        ]
        assert signatures[0] == signatures[1]


@pytest.mark.parametrize("name", ["hvp", "ggn"])
def test_a_vector_of_another_size_is_an_error(name):
    with pytest.raises(ValueError, match="v does not match params"):
        CALLS[name](DIRECTION[:-1], PARAMS)
    with pytest.raises(ValueError, match="v does not match params"):
        CALLS[name]({"b": PARAMS["b"]}, PARAMS)
