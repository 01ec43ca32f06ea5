"""`check_gradients` finds wrong derivatives of every kind, and names the number that is wrong."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import nn

from funcnet import Model, random
from funcnet.testing import CheckError, NotApplicableError, check_gradients
from funcnet.testing import strategies as fs
from tests.models import Everything, cnn, mlp
from tests.testing import broken

X = random.normal(random.key(5), (4, 4))
WIDE = random.normal(random.key(6), (20, 5))  # beyond what gradcheck is asked about


@pytest.mark.parametrize("x", [X, WIDE], ids=["small", "large"])
@pytest.mark.parametrize(
    ("f", "message"),
    [
        (broken.wrong_backward, r"wrong derivative \(reverse mode\): that of leaf 'argument 0' at index \(\d+, 1\)"),
        (broken.wrong_tangent, r"wrong derivative \(forward mode\).*expected .* as in reverse mode"),
        (broken.wrong_second_order, r"wrong derivative \(second order, reverse over reverse\).*is 0, expected"),
        (lambda x: x.detach() * x, r"wrong derivative \(reverse mode\).* by differences"),
        (lambda x: torch.where(x > 0, x.sqrt(), x), r"wrong derivative \(reverse mode\).* is nan"),
        (broken.wrong_for_a_batch, r"wrong derivative \(a batch of cotangents\).*as for each alone"),
        (lambda x: torch.tensor(x.detach().numpy()) + x, r"cannot be differentiated|wrong derivative"),
    ],
)
def test_wrong_derivatives_are_found(f, message, x):
    with pytest.raises(CheckError, match=message) as raised:
        check_gradients(f, x, key=random.key(2))
    assert raised.value.check == "gradients"


@pytest.mark.parametrize(
    ("f", "index"),
    [(broken.wrong_backward, (0, 1)), (lambda x: torch.cat([x[:, :3], 2 * x[:, 3:].detach()], 1), (0, 3))],
)
def test_the_number_with_the_wrong_derivative_is_named(f, index):
    with pytest.raises(CheckError, match="Already with the first row of 4") as raised:
        check_gradients(f, X)
    assert (raised.value.leaf, raised.value.index) == ("argument 0", index)


def test_of_many_leaves_the_wrong_one_is_named():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            two = torch.nn.functional.linear(x, self.two.weight.detach(), self.two.bias)
            return self.three((self.one(x) + two).tanh())

    with pytest.raises(CheckError, match=r"that of leaf 'params.two.weight' at index") as raised:
        check_gradients(Model(Frozen), X)
    assert raised.value.submodule == "two"


@pytest.mark.parametrize("f", [broken.wrong_backward, broken.wrong_tangent, broken.wrong_second_order])
def test_a_wrong_function_inside_a_model_is_found(f):
    with pytest.raises(CheckError, match=r"Model\(partial\) in evaluation has a wrong derivative"):
        check_gradients(Model(functools.partial(broken.within, broken.module_of(f))), X)


def test_what_is_not_asked_for_is_not_checked():
    assert check_gradients(broken.wrong_second_order, X, order=1) == "1 leaf, order 1, with gradcheck"
    assert check_gradients(broken.wrong_tangent, X, order=1, forward=False) == "1 leaf, order 1, with gradcheck"


def test_gradcheck_is_asked_too():
    """Which sees that two backward passes differ, by far less than differences can tell."""
    noise = np.random.default_rng(0)
    noisy = broken.autograd_function(lambda x, g: broken.right(x, g) * (1 + 1e-12 * noise.random()), broken.right)
    with pytest.raises(CheckError, match=r"\(torch.autograd.gradcheck\).*not reentrant"):
        check_gradients(noisy, X)


def test_differences_that_are_not_sure_of_themselves_accuse_nobody():
    check_gradients(lambda x: torch.sin(1e6 * x), WIDE)


def test_a_missing_derivative_says_what_can_be_left_out():
    class NoTangent(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x * x

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, g):
            return 2 * ctx.saved_tensors[0] * g

        @staticmethod
        def vmap(info, dims, x):
            return NoTangent.apply(x), dims[0]

    with pytest.raises(CheckError, match=r"cannot be differentiated: .*jvp.*pass order=1, forward=False"):
        check_gradients(NoTangent.apply, X)
    check_gradients(NoTangent.apply, X, forward=False)


@pytest.mark.parametrize(
    ("f", "args", "message"),
    [
        (lambda i: i + 1, (torch.arange(3),), "no floating argument"),
        (lambda x: x.argmax(), (X,), "no floating output"),
    ],
)
def test_nothing_to_differentiate(f, args, message):
    with pytest.raises(NotApplicableError, match=message):
        check_gradients(f, *args)


def test_a_model_of_float32_only_is_named():
    with pytest.raises(CheckError, match=r"does not run in float64: it raises .*dtype"):
        check_gradients(lambda x: x @ torch.ones(4, 2), X)


SMOOTH_OR_NOT = {
    "relu": torch.relu,  # kinks, at the very point
    "abs": torch.abs,
    "amax": lambda x: x.amax(-1),
    "tree": lambda x: {"a": (x.exp(), x.argmax()), "b": None},
    "empty": lambda x: x[:0],
}


@pytest.mark.parametrize("name", SMOOTH_OR_NOT)
@pytest.mark.parametrize("x", [X, torch.zeros(3, 2)], ids=["drawn", "zeros"])
def test_right_derivatives_pass(name, x):
    check_gradients(SMOOTH_OR_NOT[name], x)


def test_singular_values_pass_where_they_have_a_derivative():
    check_gradients(torch.linalg.svdvals, X)


@given(fs.tensors(values="finite"))
def test_right_derivatives_pass_at_drawn_points(x):
    check_gradients(lambda x: (x.sin() * x).sum(), x, order=1)


@pytest.mark.parametrize(("constructor", "shape"), [(mlp, (4, 6)), (cnn, (2, 3, 5, 5)), (Everything, (3, 3, 5, 5))])
def test_right_models_pass(constructor, shape):
    check_gradients(Model(constructor), random.normal(random.key(1), shape))
