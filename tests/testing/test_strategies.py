"""The strategies draw what they say, replay to the bit, and shrink."""

import inspect

import pytest
import torch
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from funcnet import Model, optim, random, tree
from funcnet.testing import strategies as fs
from funcnet.testing.strategies.layers import Residual


@given(fs.keys())
def test_keys_are_keys(key):
    random.check_key(key)


@given(fs.shapes(min_dims=1, max_dims=2, min_side=0, max_side=3))
def test_shapes_are_within_bounds(shape):
    assert 1 <= len(shape) <= 2
    assert all(0 <= side <= 3 for side in shape)


@given(st.data(), fs.dtypes("floating", "complex", "integer", "boolean"))
def test_tensors_have_shape_and_dtype(data, dtype):
    x = data.draw(fs.tensors((2, 0, 3), dtype))
    assert (x.shape, x.dtype) == ((2, 0, 3), dtype)
    y = data.draw(fs.tensors(dtype=dtype))
    assert y.dtype == dtype
    assert torch.isfinite(y).all()


@given(fs.tensors((3, 4), contiguous=True))
def test_contiguous_tensors_are_contiguous(x):
    assert x.is_contiguous()


@pytest.mark.parametrize(
    ("strategy", "wanted"),
    [
        (fs.tensors((3, 4)), lambda x: not x.is_contiguous()),
        (fs.tensors((3, 4)), lambda x: x.storage_offset() > 0),
        (fs.tensors((3, 4)), lambda x: x.stride() == (1, 3)),
        (fs.tensors(fs.shapes(min_side=0)), lambda x: x.numel() == 0 and x.ndim > 1),
        (fs.tensors((8,), values="extreme"), lambda x: (x.abs() == torch.finfo(x.dtype).max).any()),
        (fs.tensors((8,), values="extreme"), lambda x: ((x != 0) & (x.abs() < torch.finfo(x.dtype).tiny)).any()),
        (fs.tensors((8,), values="special"), lambda x: x.isnan().any() and x.isinf().any()),
        (fs.trees(), lambda t: isinstance(t, dict) and any(isinstance(v, list) for v in t.values())),
        (fs.trees(), lambda t: len(tree.leaves(t)) > 3),
        (fs.architectures(), lambda a: a.tokens is not None),
        (fs.architectures("dense"), lambda a: "Residual(Sequential(" in repr(a) and "BatchNorm1d" in repr(a)),
        (fs.architectures("recurrent"), lambda a: "LSTM" in repr(a) and "bidirectional" in repr(a)),
        (fs.architectures("attention"), lambda a: "TransformerEncoderLayer" in repr(a)),
        (fs.optimizers(), lambda r: r.factory is optim.adamw and isinstance(r.kwargs["learning_rate"], fs.Recipe)),
    ],
)
def test_what_the_strategies_promise_is_drawn(strategy, wanted):
    drawing = settings(max_examples=2000, database=None, derandomize=True, phases=[Phase.generate])
    find(strategy, wanted, settings=drawing)


def test_extreme_tensors_are_finite():
    @given(fs.tensors(fs.shapes(min_dims=1), fs.dtypes(), values="extreme"))
    def check(x):
        assert torch.isfinite(x).all()

    check()


def test_a_tensor_shrinks_by_its_shape():
    quick = settings(max_examples=2000, database=None, derandomize=True)
    x = find(fs.tensors(fs.shapes(min_dims=2, max_dims=2)), lambda x: x.shape[1] > 1, settings=quick)
    assert x.shape == (1, 2)
    assert torch.equal(x, random.normal(random.key(0), (1, 2)))
    assert x.is_contiguous()


@given(fs.trees(fs.tensors((2,))))
def test_trees_are_trees_of_their_leaves(t):
    assert all(isinstance(leaf, Tensor) and leaf.shape == (2,) for leaf in tree.leaves(t))


@given(fs.architectures(), fs.keys())
def test_architectures_take_their_examples(architecture, key):
    model = Model(architecture)
    params, state = model.init(key)
    output, _ = model.apply(params, state, architecture.example(key), key=key, train=True)
    assert output.shape[0] == architecture.shape[0]
    assert model(params, state, architecture.example(key, batch=1)).shape == (1, *output.shape[1:])


@given(fs.architectures("dense"))
def test_the_text_of_an_architecture_builds_it(architecture):
    names = vars(nn) | {"Residual": Residual}
    with random.seeded(random.key(0)):
        again, module = eval(repr(architecture.layer), dict(names)), architecture()
    assert str(again) == str(module)


def test_an_unknown_kind_of_architecture():
    with pytest.raises(ValueError, match="architectures draws no kind 'dens'; there are dense, convolutional"):
        fs.architectures("dens")


@given(fs.optimizers(), fs.trees(fs.tensors((2, 2), contiguous=True)))
def test_optimizers_update_drawn_trees(recipe, params):
    optimizer = recipe()
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    tree.check_like(updates, params)


@given(fs.schedules(), st.integers(0, 20))
def test_schedules_are_functions_of_the_count(recipe, count):
    assert float(recipe()(torch.tensor(count))) >= 0


def test_every_optimizer_and_schedule_is_registered():
    factories = {name: f for name, f in vars(optim).items() if inspect.isfunction(f)}
    others = ("scale_by_schedule", "plot_schedule", "sgdr_schedule")  # the last takes schedules' arguments in a list
    schedules = {f for name, f in factories.items() if name.endswith("_schedule") and name not in others}
    assert set(fs.SCHEDULES) == schedules
    links = ("scale_by", "inject")
    with_rate = {
        f
        for n, f in factories.items()
        if "learning_rate" in inspect.signature(f).parameters and not n.startswith(links)
    } - {optim.lbfgs}  # which needs the loss as well
    assert set(fs.OPTIMIZERS) == with_rate


def test_without_hypothesis_the_checks_remain(pytester):
    pytester.makepyfile(
        script="""
        import sys
        sys.modules["hypothesis"] = None  # as if it were not installed
        from funcnet import testing
        try:
            from funcnet.testing import strategies
        except ImportError as error:
            print(testing.check_pure.__name__, error)
        """
    )
    result = pytester.runpython("script.py")
    result.stdout.fnmatch_lines(['check_pure *which is not installed: pip install "funcnet[[]test[]]"*'])


pytest_plugins = ["pytester"]
