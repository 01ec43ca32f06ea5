"""`check_parameter_count`, `check_seeded` and `check_dtype` find what is wrong with a model, and where."""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from funcnet import Model, random
from funcnet.testing import CheckError, check_dtype, check_parameter_count, check_seeded
from tests.models import Everything, built, lstm, mlp, transformer
from tests.testing import broken

X = random.normal(random.key(5), (4, 4))


def model(part):
    return Model(functools.partial(broken.within, part))


# Counts


def pruned():
    layer = nn.Linear(4, 4)
    layer.weight = nn.Parameter(layer.weight[:, :3])  # in_features says 4
    return nn.Sequential(nn.ReLU(), layer)


def enlarged():
    layer = nn.LayerNorm(4)
    layer.scale = nn.Parameter(torch.ones(1))
    return nn.Sequential(nn.ReLU(), layer)


@pytest.mark.parametrize(
    ("constructor", "expected", "message", "submodule"),
    [
        (pruned, None, r"submodule '1' \(Linear\) holds 16 parameters where its sizes make \(4 \+ 1\)\*4", "1"),
        (enlarged, None, r"submodule '1' \(LayerNorm\) holds 9 parameters where its sizes make 2\*4", "1"),
        (lambda: nn.Conv2d(3, 16, 3, bias=False), 448, r"the model \(Conv2d\) has 432 parameters, expected 448", None),
        (mlp, {"0": 56, "3": 24}, r"submodule '3' \(Linear\) has 27 parameters, expected 24: \(8 \+ 1\)\*3", "3"),
        (mlp, 80, r"has 83 parameters, expected 80: 0: \(6 \+ 1\)\*8; 3: \(8 \+ 1\)\*3", None),
        (transformer, {"self_attn": 1}, r"submodule 'self_attn' \(MultiheadAttention\) has 288 param", "self_attn"),
    ],
)
def test_miscounts_are_found(constructor, expected, message, submodule):
    with pytest.raises(CheckError, match=message) as raised:
        check_parameter_count(Model(constructor), expected)
    assert raised.value.submodule == submodule


def test_a_path_that_is_none():
    with pytest.raises(ValueError, match=r"Model\(mlp\) has no submodule '7' to count"):
        check_parameter_count(Model(mlp), {"7": 1})


@pytest.mark.parametrize(
    ("constructor", "count"),
    [
        (mlp, 83),
        (Everything, 140),  # a tied weight once
        (lstm, 800),
        (lambda: parametrizations.weight_norm(nn.Linear(4, 3)), 18),
        (lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU()), 448),
    ],
)
def test_right_counts_pass(constructor, count):
    assert check_parameter_count(Model(constructor), count) == f"{count} parameters"
    assert check_parameter_count(built(constructor)) == f"{count} parameters"


# Randomness


@pytest.mark.parametrize(
    ("part", "message", "submodule"),
    [
        (
            broken.AlwaysDrops,
            r"draws random numbers in evaluation: .*training=self.training",
            "inner.part",
        ),
        (broken.IgnoresKey, r"gives the same result for 64 different keys: its key is ignored", None),
        (broken.NumpyInit, r"init\(key\) is not a function of its key: params leaf 'inner.part.weight'", "inner.part"),
        (broken.NumpyDraw, r"in evaluation draws other numbers for the same key", None),
    ],
)
def test_wrong_randomness_is_found(part, message, submodule):
    state = np.random.get_state()
    with pytest.raises(CheckError, match=message) as raised:
        check_seeded(model(part), X)
    np.random.set_state(state)
    assert raised.value.submodule == submodule


def test_a_constructor_that_ignores_its_key_is_found():
    with pytest.raises(CheckError, match=r"same parameters for every key: 'weight' among them.*Model.from_module"):
        check_seeded(broken.FixedInit, X)
    check_seeded(built(broken.FixedInit), X)  # a built module is not drawn


def test_functions_of_a_key():
    assert check_seeded(random.uniform, (3,)) == "draws"
    with pytest.raises(CheckError, match=r"gives the same result for 64 different keys"):
        check_seeded(lambda key, x: F.dropout(x, 0.0), X)
    with torch.random.fork_rng(), pytest.raises(CheckError, match="draws other numbers for the same key"):
        check_seeded(lambda key, x: x + torch.empty(()).normal_(), X)


@pytest.mark.parametrize(
    ("subject", "shape", "said"),
    [
        (mlp, (4, 6), "training draws"),
        (lstm, (2, 3, 5), "training draws"),
        (transformer, (2, 3, 8), "training draws"),
        (lambda: nn.Dropout(0.01), (2,), "training draws"),  # most keys give one and the same mask
        (nn.ReLU, (3,), "draws nothing"),
        (lambda: nn.LayerNorm(3), (2, 3), "draws nothing"),  # no parameter that a key could change
    ],
)
def test_right_randomness_passes(subject, shape, said):
    assert check_seeded(Model(subject), random.normal(random.key(1), shape)) == said


# Dtypes


@pytest.mark.parametrize(
    ("part", "message", "submodule"),
    [
        (broken.Upcasts, r"in float64 raises RuntimeError: .*'after'", "after"),
        (broken.WidensState, r"in bfloat16 returns state leaf 'inner.part.mean' as float64", "inner.part"),
        (broken.ThroughNumpy, r"in bfloat16 raises RuntimeError: .*'after'", "after"),
    ],
)
def test_wrong_dtypes_inside_a_model_are_found(part, message, submodule):
    with pytest.raises(CheckError, match=message) as raised:
        check_dtype(model(part), X)
    assert raised.value.submodule == submodule


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (broken.Upcasts, r"in float64 gives output as float32 in submodule '1'\. .*x\.dtype"),
        (broken.MakesFloat32, r"in bfloat16 gives output as float32 in submodule '1'"),
        (broken.ThroughNumpy, r"in bfloat16 gives output as float64 in submodule '1'"),
    ],
)
def test_wrong_dtypes_of_outputs_are_found(part, message):
    with pytest.raises(CheckError, match=message) as raised:
        check_dtype(Model(lambda: nn.Sequential(nn.Linear(4, 4), part())), X)
    assert raised.value.submodule == "1"


def test_functions_keep_their_dtype():
    assert check_dtype(torch.sin, X) == "float64, bfloat16"
    assert check_dtype(torch.sin, X, dtypes=[torch.float16]) == "float16"
    with pytest.raises(CheckError, match=r"in bfloat16 gives output leaf 'b' as float32"):
        check_dtype(lambda x: {"a": x, "b": x.float()}, X, dtypes=[torch.float32, torch.bfloat16])


@pytest.mark.parametrize(("constructor", "shape"), [(mlp, (4, 6)), (lstm, (2, 3, 5)), (Everything, (3, 3, 5, 5))])
def test_right_dtypes_pass(constructor, shape):
    check_dtype(Model(constructor), random.normal(random.key(1), shape))
