"""Every classification model of torchvision, from a key and back."""

import pytest
import torch
import torchvision

from funcnet import Model, random, tree
from tests.models import built

SMALL = ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5"]
SIZES = {"inception_v3": 299}


def names():
    every = torchvision.models.list_models(module=torchvision.models)
    fast = [name for name in every if name in SMALL]
    return [*fast, *(pytest.param(name, marks=pytest.mark.slow) for name in every if name not in SMALL)]


def test_there_are_as_many_as_ever():
    assert len(names()) >= 80


@pytest.mark.parametrize("name", names())
@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_initialises_evaluates_and_round_trips(name):
    size = SIZES.get(name, 224)
    x = random.normal(random.key(1), (1, 3, size, size))
    constructor = getattr(torchvision.models, name)
    model = Model(constructor)
    params, state = model.init(random.key(0))
    assert all(p.isfinite().all() for p in params.values())

    # Bit for bit, also against the plain module that the same key makes.
    module = built(constructor).eval()
    assert torch.equal(model(params, state, x), module(x))

    # Through a state_dict and back.
    bound = model.bind(params, state)
    loaded = built(constructor, seed=1)
    loaded.load_state_dict(bound.state_dict())
    again, params2, state2 = Model.from_module(loaded)
    tree.check_like((params2, state2), (params, state), dtype=True)
    for a, b in zip(tree.leaves((params, state)), tree.leaves((params2, state2)), strict=True):
        assert torch.equal(a, b)
    assert list(bound.state_dict()) == list(module.state_dict())
    assert repr(again) == f"Model({type(module).__name__})"
