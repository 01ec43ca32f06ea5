"""The check of many tensors at once says yes to nothing that differs in kind."""

import gc
import sys
import weakref

import pytest
import torch
from torch import nn

from funcnet import _compat, random, vmap

KEY = random.key(5)


def drawn(shape=(3, 2)):
    return random.normal(KEY, shape)


OTHERS = {
    "shape": lambda: drawn((2, 3)),
    "strides": lambda: drawn((2, 3)).T,
    "dtype": lambda: drawn().double(),
    "device": lambda: drawn().to("meta"),
    "layout": lambda: drawn().to_sparse(),
    "requires_grad": lambda: drawn().requires_grad_(),
    "class": lambda: nn.Parameter(drawn(), requires_grad=False),
    "no tensor": lambda: 1.0,
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_no_to_another_kind(other):
    fits = _compat.guards([drawn((4,)), drawn()])
    assert fits(drawn((4,)), drawn() + 1)
    assert not fits(drawn((4,)), other())


def test_no_inside_a_transform_and_to_inference():
    fits = _compat.guards([drawn()])
    seen = []
    vmap(lambda x: (seen.append(fits(x)), x)[1])(random.normal(KEY, (4, 3, 2)))
    with torch.inference_mode():
        seen.append(fits(drawn()))
    assert seen == [False, False]


def test_another_count_is_an_error():
    with pytest.raises(TypeError, match="length"):
        _compat.guards([drawn()])(drawn(), drawn())


def test_no_tensor_is_kept_alive():
    tensor = drawn()
    fits, gone = _compat.guards([tensor]), weakref.ref(tensor)
    del tensor
    gc.collect()
    assert gone() is None
    assert fits(drawn())


def test_none_where_torch_has_none_or_takes_no_such_thing(monkeypatch):
    assert _compat.guards([1.0]) is None
    assert _compat.guards([drawn()] * 2) is None
    monkeypatch.setattr(sys.modules["funcnet._compat.guards"], "_guards", None)  # the function has the room's name
    assert _compat.guards([drawn()]) is None
