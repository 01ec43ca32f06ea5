"""Models and inputs written as text."""

import sys

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from funcnet import Model, random, specs

FILE = """
import random
import torch
from torch import nn
from funcnet import Model

class Small(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.layer = nn.Linear(3, width)

class Inner:
    factory = Small

built = nn.Linear(2, 2).requires_grad_(False)
model = Model(nn.Linear, 5, 2)
number = 3

def as_model(): return Model(nn.Linear, 7, 2)
def wants_arguments(a): ...
def gives_none(): ...
def reads(): return nn.Linear(3, int(torch.ones(2).sum()))
def fails(): raise KeyError("no\\nluck")
def imports_later():
    import neighbour_of_mine
    return nn.Linear(2, neighbour_of_mine.WIDTH)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a module of models in it."""
    (tmp_path / "my_models_for_specs.py").write_text(FILE.replace("nn.Linear(2, 2)", "Small()"))
    (tmp_path / "neighbour_of_mine.py").write_text("WIDTH = 9\n")
    (tmp_path / "broken_for_specs.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)
    with random.seeded(random.key(0)):
        yield tmp_path
    for name in ("my_models_for_specs", "neighbour_of_mine", "broken_for_specs"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("Small", (4, 3)),
        ("Small(6)", (6, 3)),
        ("Small(width=6)", (6, 3)),
        ("Inner.factory(5)", (5, 3)),
        ("built", (4, 3)),
        ("model", (2, 5)),
        ("as_model", (2, 7)),
        ("reads", (2, 3)),
        ("imports_later", (9, 2)),
    ],
)
def test_what_may_be_named(text, shape, folder):
    path = list(sys.path)
    factory = specs.load(f"my_models_for_specs:{text}")
    first, second = factory(), factory()
    weight = next(first.parameters())
    assert weight.shape == shape
    assert weight.device.type == "cpu"
    assert weight is not next(second.parameters())  # each call builds
    params, _ = Model(factory).init(random.key(0))
    assert sum(p.numel() for p in params.values()) == sum(p.numel() for p in first.parameters() if p.requires_grad)
    assert sys.path == path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet50", r"'resnet50' names no model\. Write torchvision:resnet50 or package\.module:factory"),
        ("torch.nn:", "names no model"),
        ("no_such_package:f", "no_such_package cannot be imported: ModuleNotFoundError: No module named"),
        ("broken_for_specs:f", "broken_for_specs cannot be imported: SyntaxError"),
        ("torch.nn:Lineer", "torch.nn has no attribute 'Lineer'; near names: Linear"),
        ("my_models_for_specs:Inner.fac", "my_models_for_specs.Inner has no attribute 'fac'; near names: factory"),
        ("my_models_for_specs:number", "gives a int, not an nn.Module. Name a module class"),
        ("my_models_for_specs:gives_none", "gives a NoneType, not an nn.Module"),
        ("my_models_for_specs:wants_arguments", "cannot be built: TypeError: .* missing 1 required"),
        ("my_models_for_specs:fails", r"cannot be built: KeyError: 'no\\nluck'"),
        ("my_models_for_specs:built(3)", "cannot be built: TypeError: it is built already"),
        ("torch.nn:Linear(n)", r"'Linear\(n\)' is neither a name nor a call with literal arguments"),
        ("torch.nn:Linear(3", "neither a name nor a call"),
        ("torchvision:resnet51", "torchvision has no model 'resnet51'; near names: resnet50"),
    ],
)
def test_what_names_nothing_is_one_line(text, message, folder):
    with pytest.raises(specs.SpecError, match=message) as error:
        specs.load(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["resnet18", "inception_v3", "fasterrcnn_mobilenet_v3_large_fpn"])
def test_torchvision_models_come_without_weights_or_warnings(name, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("downloads")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", refuse)
    with torch.device("meta"):
        assert isinstance(specs.load(f"torchvision:{name}")(), nn.Module)


SHAPES = st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple)
DTYPES = st.sampled_from(["float32", "float64", "bfloat16", "complex64", "int64", "uint8", "bool"])


@given(SHAPES, DTYPES, st.integers(1, 50))
def test_inputs(shape, name, high):
    whole = name in ("int64", "uint8")
    text = ",".join(map(str, shape)) + f":{name}" + (f":{high}" if whole else "")
    spec = specs.parse_input(text)
    assert spec == (shape, getattr(torch, name), high if whole else None)
    first, again, other = (specs.example(spec, random.key(k)) for k in (0, 0, 1))
    assert (tuple(first.shape), first.dtype) == (shape, spec.dtype)
    assert torch.equal(first, again)
    if first.numel() >= 40 and not whole and name != "bool":
        assert not torch.equal(first, other)
    if whole:
        assert ((first >= 0) & (first < high)).all()


def test_input_defaults():
    assert specs.parse_input("1,3") == ((1, 3), torch.float32, None)
    assert specs.parse_input("4:int32") == ((4,), torch.int32, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no input. Write sizes as 1,3,224,224 or with a dtype as 2,16:int64:1000"),
        ("2x3", "'2x3' is no input"),
        ("2,-3", "is no input"),
        ("2:int64:3:4", "is no input"),
        ("2:floaty", "'floaty' in '2:floaty' is no dtype of torch"),
        ("2:nn", "'nn' in '2:nn' is no dtype"),
        ("2:float32:4", "'4' in '2:float32:4' is no bound. Write one for whole numbers only"),
        ("2:int64:0", "'0' in '2:int64:0' is no bound"),
        ("2:int64:x", "is no bound"),
    ],
)
def test_wrong_inputs(text, message):
    with pytest.raises(specs.SpecError, match=message):
        specs.parse_input(text)
