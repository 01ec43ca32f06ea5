"""`check_pure` finds every impurity and names it, and finds none where there is none."""

import functools
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from funcnet import Model, random
from funcnet.testing import CheckError, check_pure
from funcnet.testing import strategies as fs
from tests.models import Counter, Everything, cnn, lstm, mlp, transformer
from tests.testing import broken
from tests.testing.broken import within

X = random.normal(random.key(5), (4, 4))
NAN = float("nan")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (broken.NumpyDraw, r"moves numpy.random in submodule 'inner.part'.*Draw from a key"),
        (broken.PythonDraw, r"moves Python's random in submodule 'inner.part'"),
        (broken.OwnGenerator, r"keeps 'generator' in submodule 'inner.part' .* is a Generator with another content"),
        (broken.FreshGenerator, r"another result in a second call .* outputs differ first in submodule 'inner.part'"),
        (
            broken.CountsInGlobal,
            r"changes global 'COUNT' of tests.testing.broken in submodule 'inner.part'.*was \d+, is",
        ),
        (broken.AppendsToGlobal, r"changes global 'LOG' of tests.testing.broken in submodule 'inner.part'"),
        (broken.AppendsInside, r"changes global 'SEEN' of tests.testing.broken in submodule 'inner.part'"),
        (broken.FillsGlobalCache, r"changes global 'CACHE' of tests.testing.broken in submodule 'inner.part'"),
        (broken.WritesClassAttribute, r"changes class attribute WritesClassAttribute.last in submodule 'inner.part'"),
        (broken.MutableDefault, r"changes default argument 0 of forward in submodule 'inner.part'"),
        (broken.StaleAttribute, r"keeps 'mean' in submodule 'inner.part' .*was absent.*Keep it in a buffer"),
        (broken.StaleObject, r"keeps 'box.value' in submodule 'inner.part' from one call to the next"),
        (broken.CachesWeights, r"keeps 'doubled' in submodule 'inner.part'"),
        (broken.CountsCalls, r"keeps 'calls' in submodule 'inner.part' .*: it was (absent|0), is 1"),
        (broken.WritesData, r"writes into its arguments in submodule 'inner.part': leaf 'params.inner.part.weight'"),
        (
            broken.WritesParameter,
            r"writes into its arguments in submodule 'inner.part': leaf 'params.inner.part.weight'",
        ),
    ],
)
def test_impure_modules_are_found_and_located(part, message):
    broken.CACHE.clear()
    numpy_state = np.random.get_state()
    with pytest.raises(CheckError, match=message) as raised:
        check_pure(Model(functools.partial(within, part)), X, key=random.key(3))
    np.random.set_state(numpy_state)
    assert raised.value.submodule == "inner.part"
    assert raised.value.check == "pure"
    assert "Replay with key=random.key(3)" in str(raised.value)


def _closure():
    seen = {}

    def f(x):
        return seen.setdefault("x", x) * x

    return f


def _attribute(x):
    _attribute.calls = getattr(_attribute, "calls", 0) + 1
    return x


class _Callable:
    def __init__(self):
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        return x


@pytest.mark.parametrize(
    ("f", "args", "message"),
    [
        (lambda x: x.add_(1), (X,), r"<lambda> writes into its arguments: leaf 'argument 0'"),
        (lambda x: x.mul_(1), (X,), r"<lambda> writes into its arguments: leaf 'argument 0'"),
        (lambda x: x + 1e-7 * time.monotonic_ns(), (X.double(),), r"another result in a second call"),
        (lambda t: t["b"]["c"].data.mul_(2), ({"a": X, "b": {"c": X}},), r"leaf 'argument 0.b.c'"),
        (lambda t: t.pop("a"), ({"a": X, "b": X},), r"leaf 'argument 0.a' is no longer what it was"),
        (lambda x, rows: rows.append(1), (X, []), r"leaf 'argument 1.0'"),
        (lambda x: x * torch.empty(()).normal_(), (X,), r"moves torch's global generator"),
        (lambda x: x * broken.SHARED.setdefault("n", x), (X,), r"changes global 'SHARED' of tests.testing.broken"),
        (_closure(), (X,), r"f changes closure variable 'seen'"),
        (_attribute, (X,), r"changes attribute _attribute.calls"),
        (_Callable(), (X,), r"_Callable changes .calls"),
    ],
)
def test_impure_functions_are_found(f, args, message):
    broken.SHARED.clear()
    before = X.clone()
    with torch.random.fork_rng(), pytest.raises(CheckError, match=message):
        check_pure(f, *args)
    assert torch.equal(X, before)  # the check runs on copies


def test_a_module_that_a_function_closes_over_is_watched():
    with random.seeded(random.key(0)):
        module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(CheckError, match=r"changes closure variable 'module'.1.running_mean"):
        check_pure(lambda x: module(x), X)


def test_the_counterexample_is_small():
    with pytest.raises(CheckError, match=r"Already with the first row of 4\."):
        check_pure(lambda x: x.mul_(2), X)
    with pytest.raises(CheckError, match=r"Already with the first 2 rows of 4\."):
        check_pure(lambda x: x.mul_(2) if len(x) > 1 else x, X)


class Inspects(nn.Module):
    """Leaves its activations on itself for others to look at, which changes no result."""

    def forward(self, x):
        self.seen = [x]
        return 2 * x


class UsesItsStatistics(nn.BatchNorm1d):
    """Reads in training what it wrote before in the same call."""

    def __init__(self):
        super().__init__(4)

    def forward(self, x):
        super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var)


class MentionsNan(nn.Module):
    """Mentions a global that is not equal to itself."""

    def forward(self, x):
        return x.nan_to_num(NAN)


@pytest.mark.parametrize("part", [Inspects, UsesItsStatistics, MentionsNan, nn.Identity, nn.Dropout, Counter])
def test_pure_modules_pass(part):
    x = X[:, :3] if part is Counter else X
    assert check_pure(part, x) == "8 calls"


@pytest.mark.parametrize(
    ("constructor", "shape"),
    [(mlp, (4, 6)), (cnn, (4, 3, 8, 8)), (lstm, (2, 3, 5)), (transformer, (2, 3, 8)), (Everything, (4, 3, 8, 8))],
)
def test_the_models_of_this_suite_are_pure(constructor, shape):
    check_pure(Model(constructor), random.normal(random.key(1), shape))


@given(fs.tensors(), st.sampled_from([torch.sin, torch.cumsum, torch.sort]))
def test_pure_functions_pass(x, f):
    check_pure(f, x, *([-1] if f is torch.cumsum and x.ndim else [0] if f is torch.cumsum else []))


def test_an_error_of_the_function_itself_is_raised_as_it_is():
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        check_pure(Model(nn.Linear, 3, 2), X)
