"""`check_vmap`, `check_jit`, `check_remat` and `check_threads` find what does not survive a transform."""

import functools

import pytest
import torch
from hypothesis import given
from torch import nn

from funcnet import Model, random
from funcnet.testing import CheckError, NotApplicableError, check_jit, check_remat, check_threads, check_vmap
from funcnet.testing import strategies as fs
from tests.models import Everything, mlp
from tests.testing import broken

X = random.normal(random.key(5), (4, 4))


def model(part):
    return Model(functools.partial(broken.within, part))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (broken.module_of(broken.mixes_examples), r"another result under vmap than in a loop: leaf 'result"),
        (broken.module_of(broken.reverses_examples), r"another result under vmap than in a loop: leaf 'result"),
        (broken.module_of(broken.no_batching_rule), r"fails under vmap, and does not in a loop: RuntimeError: no rule"),
        (broken.Branches, r"fails under vmap, and does not in a loop: .*data-dependent control flow"),
        (broken.ReadsItem, r"fails under vmap, and does not in a loop: .*item\(\)"),
    ],
)
def test_vmap_finds(part, message):
    with pytest.raises(CheckError, match=message) as raised:
        check_vmap(model(part), X)
    assert raised.value.submodule == "inner.part"


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (broken.Branches, r"fails jitted, and does not in eager mode: TypeError: .*depends on a tensor's value"),
        (broken.ReadsItem, r"fails jitted, and does not in eager mode: "),
        (broken.KnowsTracing, r"another result jitted than in eager mode: leaf '0.result"),
        (broken.NumpyDraw, r"gives different results for the same arguments.*See check_pure"),
    ],
)
def test_jit_finds(part, message):
    with pytest.raises(CheckError, match=message) as raised:
        check_jit(model(part), X)
    if part in (broken.Branches, broken.KnowsTracing):
        assert raised.value.submodule == "inner.part"


def test_jit_finds_a_second_compilation():
    class Expires:
        """A setting that is equal to its copy a few times, and then no more."""

        asked = 0

        def __eq__(self, other):
            Expires.asked += 1
            return Expires.asked not in (3, 4)

        def __hash__(self):
            return 0

    with pytest.raises(CheckError, match=r"<lambda> compiles again for other numbers: 2 graphs for 2 calls"):
        check_jit(lambda x, setting: x * 2, X, Expires())


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: x if torch.is_grad_enabled() else 2 * x, r"another result under remat than without it"),
        (model(broken.KnowsGradMode), r"another result under remat than without it: leaf '(value|gradient)"),
        (broken.counting(), r"gives different results for the same arguments|another result under remat"),
        (broken.hides_a_tensor(), r"fails under remat, and does not without it: .*closes over"),
    ],
)
def test_remat_finds(f, message):
    with pytest.raises(CheckError, match=message):
        check_remat(f, X)


def test_remat_without_a_gradient_does_not_apply():
    with pytest.raises(NotApplicableError, match="no floating output"):
        check_remat(torch.argmax, X)


@pytest.mark.parametrize("part", [broken.SharesGlobal, broken.SharesClassAttribute, broken.SharesStack])
def test_threads_finds(part):
    with pytest.raises(CheckError, match=r"another result in 8 threads at once than one by one: leaf '\d") as raised:
        check_threads(model(part), X)
    assert raised.value.submodule == "inner.part"


def test_threads_finds_a_shared_variable_of_a_function():
    shared = {}

    def f(x):
        shared["x"] = x
        y = x.sin().cos().tanh()
        return y * shared["x"]

    with pytest.raises(CheckError, match=r"f gives another result in 4 threads at once"):
        check_threads(f, X, threads=4)


@pytest.mark.parametrize("check", [check_vmap, check_remat, check_threads])
@pytest.mark.parametrize(("constructor", "shape"), [(mlp, (4, 6)), (Everything, (3, 3, 5, 5))])
def test_right_models_pass(check, constructor, shape):
    check(Model(constructor), random.normal(random.key(1), shape))


@given(fs.tensors(), fs.tensors())
def test_right_functions_pass(x, y):
    for check in (check_vmap, check_remat, check_threads):
        check(lambda tree: {"sum": tree["x"].sum() + tree["y"].cos(), "x": tree["x"]}, {"x": x, "y": y})


def test_strided_and_expanded_arguments_compile_once():
    check_jit(torch.sin, X.T)
    check_jit(torch.sin, torch.ones(1).expand(3))


def test_arguments_that_are_no_tensors():
    assert check_vmap(lambda x, n, f: f(x, n), X, -1, torch.softmax) == "3 elements"
    with pytest.raises(NotApplicableError, match="takes no tensor to map over"):
        check_vmap(lambda n: torch.ones(n), 3)


def test_a_module_without_submodules_has_none_to_name():
    class Alone(nn.Module):
        def forward(self, x):
            return x if torch.is_grad_enabled() else 2 * x

    with pytest.raises(CheckError, match="under remat") as raised:
        check_remat(Alone, X)
    assert raised.value.submodule is None
