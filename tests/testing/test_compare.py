"""How two results are compared: what counts, and how it is said."""

from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import nn

from funcnet import random
from funcnet.testing import strategies as fs
from funcnet.testing.failures import compare, describe, explain, replay

X = random.normal(random.key(0), (3, 4))
Point, Pair = namedtuple("Point", "x y"), namedtuple("Pair", "x y")
NAN = torch.tensor([1.0, float("nan")])


@given(fs.trees(fs.tensors(dtype=fs.dtypes("floating", "complex", "integer", "boolean"), values="special")))
def test_a_tree_agrees_with_itself(t):
    assert compare(t, t) is None
    assert compare(t, t, exact=True) is None


@pytest.mark.parametrize(
    ("got", "want", "said"),
    [
        (X, X.double(), "the result is float32 of shape (3, 4), expected float64 of shape (3, 4)"),
        (X, X[0], "the result is float32 of shape (3, 4), expected float32 of shape (4,)"),
        ({"a": X}, {"b": X}, "leaf 'b' is absent, expected float32 of shape (3, 4)"),
        ({"a": X, "b": X}, {"a": X}, "leaf 'b' is float32 of shape (3, 4), expected absent"),
        ((X, 2), (X, 3), "leaf '1' is 2, expected 3"),
        ((X, 2), (X, 2.0), "leaf '1' is 2, expected 2.0"),
        ([X, 2], (X, 2), "the result is a list, expected a tuple"),
        ({"a": {}}, {"a": []}, "leaf 'a' is a dict, expected a list"),
        ({"a": {"b": {}}}, {"a": {}}, "leaf 'a' is {'b': {}}, expected {}"),
        (Point(X, 2), Pair(X, 2), "the result is a Point, expected a Pair"),
        ((1 + 1j,), (1 + 2j,), "leaf '0' is (1+1j), expected (1+2j)"),
        ({"b": b"one"}, {"b": b"two"}, "leaf 'b' is b'one', expected b'two'"),
        (np.arange(3), np.arange(3) + 1, "the result is array([0, 1, 2]), expected array([1, 2, 3])"),
        (np.arange(2), np.arange(2.0), "the result is array([0, 1]), expected array([0., 1.])"),
        (torch.arange(3), torch.tensor([0, 1, 5]), "the result at index (2,) is 2, expected 5"),
        (torch.tensor(1.0), torch.tensor(2.0), "the result is 1, expected 2"),
        (NAN, NAN.flip(0), "the result at index (0,) is 1, expected nan"),
        (torch.tensor([1.0, float("inf")]), torch.tensor([1.0, 2.0]), "the result at index (1,) is inf, expected 2"),
        ({"a": X, "b": X + torch.eye(3, 4)}, {"a": X, "b": X}, "leaf 'b' at index (0, 0)"),
    ],
)
def test_differences_are_said(got, want, said):
    assert str(compare(got, want)).startswith(said)


def test_the_worst_number_of_the_first_wrong_leaf_is_named():
    wrong = X.clone()
    wrong[1, 2], wrong[2, 3] = wrong[1, 2] + 1, wrong[2, 3] + 5
    difference = compare({"a": wrong, "b": X + 100}, {"a": X, "b": X})
    assert (difference.leaf, difference.place) == ("a", (2, 3))


def test_nan_agrees_with_nan_alone():
    assert compare(NAN, NAN.clone()) is None
    assert compare(NAN, NAN.clone(), exact=True) is None
    assert compare(NAN + 1e-9, NAN) is None
    assert compare(NAN.nan_to_num(), NAN) is not None
    assert compare((float("nan"), np.array([float("nan")])), (float("nan"), np.array([float("nan")]))) is None
    assert compare(float("nan"), 1.0) is not None


def test_one_dict_is_as_good_as_another():
    assert compare(OrderedDict(b=1, a=X), {"a": X, "b": 1}) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.complex64])
def test_rounding_passes_unless_every_number_must_be_the_same(dtype):
    x = X.to(dtype)
    rounded = x * (1 + 4 * torch.finfo(dtype).eps)
    assert compare(rounded, x) is None
    assert compare(rounded, x, exact=True) is not None
    assert compare(x * 1.2, x) is not None


def test_a_leaf_of_noise_is_measured_against_the_tree():
    noise = 1e-7 * X
    assert compare({"bias": noise, "weight": X}, {"bias": -noise, "weight": X}) is None
    assert compare({"bias": noise}, {"bias": -noise}) is not None


def test_another_class_of_tensor_is_no_match():
    class Traced(torch.Tensor):
        pass

    assert compare(nn.Parameter(X), X) is None
    assert str(compare(X.as_subclass(Traced), X)).startswith("the result is Traced of float32 of shape")


def test_words():
    assert describe("x" * 100) == "x" * 57 + "..."
    error = ValueError("two\nlines")
    error.__cause__ = KeyError("inner")
    error.__cause__.add_note("raised in submodule 'a'")
    assert explain(error) == "ValueError: two lines (raised in submodule 'a')"
    for seed in (0, 5, 2**40 + 1, 2**64 - 1):
        assert torch.equal(eval(replay(random.key(seed)).removeprefix("key=")), random.key(seed))
