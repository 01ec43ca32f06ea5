"""Values found, set and mapped in states by `optim.tree`, against `optax.tree`."""

import sys
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from funcnet import jit, optim, tree, vmap
from funcnet.optim.tree.paths import DictKey, GetAttrKey, SequenceKey

sys.path.insert(0, str(Path(__file__).parent))
from make_golden import problem
from registry import LINKS, OPTIMIZERS
from running import close, example


@pytest.fixture(scope="module")
def optax():
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    with jax.enable_x64(True):
        yield optax


Inner = namedtuple("Inner", ["count", "nested"])
Outer = namedtuple("Outer", ["count", "inner", "extra"])


def nest(leaf=lambda number: number):
    """A name at many depths: in a NamedTuple, behind a tuple, in a dict, and in the value of its own name."""
    one, two, three, four, five = (leaf(float(n)) for n in range(1, 6))
    return (
        Outer(count=one, inner=(Inner(two, {"count": three}),), extra={"count": {"count": four}, "other": None}),
        [Inner(count=five, nested=())],
    )


def rendered(found):
    return ["".join(str(step) for step in path) for path, _ in found]


@pytest.mark.parametrize("key", ["count", "other", "Inner", "Outer", "nested", "absent"])
def test_values_are_found_where_optax_finds_them(optax, key):
    ours = optim.tree.get_all_with_path(nest(), key)
    theirs = optax.tree.get_all_with_path(nest(), key)
    assert rendered(ours) == rendered(theirs)
    assert [value for _, value in ours] == [value for _, value in theirs]

    def deep(path, value):
        return any(str(step) == "Outer.inner" for step in path)

    kept = optim.tree.get_all_with_path(nest(), key, deep)
    assert rendered(kept) == rendered(optax.tree.get_all_with_path(nest(), key, deep))
    if key == "count":
        assert 0 < len(kept) < len(ours)


@pytest.mark.parametrize("case", OPTIMIZERS + LINKS, ids=str)
def test_states_are_searched_and_mapped_as_optax_does(optax, case):
    import jax

    params, _ = problem()
    ours, theirs = case.build(optim), case.build(optax)
    state, other = ours.init(tree.map(torch.as_tensor, params)), theirs.init(params)
    for key in ("count", "mu", "nu", "inner_state", "learning_rate", "ScaleByAdamState", "a"):
        found = optim.tree.get_all_with_path(state, key)
        assert rendered(found) == rendered(optax.tree.get_all_with_path(other, key))

    arguments = {
        "transform_non_params": lambda leaf: "other",
        "is_leaf": lambda node: type(node).__name__ == "MaskedNode",
    }

    def marked(leaf):
        return leaf if type(leaf).__name__ == "MaskedNode" else "parameter"

    got = optim.tree.map_params(ours, marked, state, **arguments)
    close(optim.tree.map_params(ours.init, lambda leaf: leaf, state), state)
    if case.name == "flatten":  # the vector is no tree like the parameters; optax fails
        assert set(tree.leaves(got)) == {"other"}
    elif "muon_weight_dimension_numbers" in case.kwargs:  # optax fails, unless a function makes them
        assert tree.leaves(got).count("parameter") == 5
    else:
        assert tree.leaves(got) == jax.tree.leaves(optax.tree.map_params(theirs, marked, other, **arguments))


def test_one_value_is_read():
    optimizer = optim.chain(optim.add_noise(0.1, 0.9, key=3), optim.adam(0.1))
    state = optimizer.init(example())
    assert optim.tree.get(state, "rng_key") is state[0].rng_key
    assert optim.tree.get(state, "ScaleByAdamState") is state[1][0]
    assert optim.tree.get(state, "absent") is None
    assert optim.tree.get(state, "absent", 7) == 7

    def of_noise(path, value):
        return path[-1].tuple_name == "AddNoiseState" and path[-1].name == "count"

    assert optim.tree.get(state, "count", filtering=of_noise) is state[0].count
    with pytest.raises(KeyError, match=r"2 values of 'count': \[0\]AddNoiseState.count, \[1\]\[0\]ScaleByAdam"):
        optim.tree.get(state, "count")
    state = optim.inject_hyperparams(optim.sgd)(learning_rate=lambda count: 1 / (count + 1)).init(example())
    with pytest.raises(KeyError, match=r"hyperparams\['learning_rate'\], Inject.*State.hyperparams_states\["):
        optim.tree.get(state, "learning_rate")
    found = optim.tree.get(state, "learning_rate", filtering=lambda path, value: isinstance(value, torch.Tensor))
    assert found is state.hyperparams["learning_rate"]


def test_values_are_set_as_optax_sets_them(optax):
    import jax

    flat = {"b": Inner(1.0, [2.0]), "a": {"count": 3.0, "else": 4.0}}
    for library in (optim, optax):
        got = library.tree.set(flat, count=9.0)
        assert got == {"b": Inner(9.0, [2.0]), "a": {"count": 9.0, "else": 4.0}}
        got = library.tree.set(flat, lambda path, value: value == 3.0, count=9.0)
        assert got == {"b": Inner(1.0, [2.0]), "a": {"count": 9.0, "else": 4.0}}
        assert library.tree.set(flat, Inner="whole", count=(5.0,)) == {
            "b": "whole",
            "a": {"count": (5.0,), "else": 4.0},
        }
    assert flat["b"].count == 1.0
    # What optax's own documentation says of all, it does of the outermost.
    assert tree.leaves(optim.tree.set(nest(), count=9.0)) == [9.0] * 5
    assert jax.tree.leaves(optax.tree.set(nest(), count=9.0)) == [9.0, 2.0, 3.0, 9.0, 9.0]


def test_setting_keeps_what_trees_are_made_of():
    @tree.register_dataclass
    @dataclass
    class Point:
        x: float
        count: float

    state = OrderedDict(z=Point(1.0, 2.0), a=[Inner(3.0, (None,))])
    got = optim.tree.set(state, count=5.0)
    assert got == OrderedDict(z=Point(1.0, 5.0), a=[Inner(5.0, (None,))])
    assert [type(node) for node in (got, got["a"], got["a"][0])] == [OrderedDict, list, Inner]
    assert [path[0] for path, _ in optim.tree.get_all_with_path(state, "count")] == [DictKey("z"), DictKey("a")]
    assert [path[1] for path, _ in optim.tree.get_all_with_path(state, "count")] == [
        GetAttrKey("count"),
        SequenceKey(0),
    ]


def test_a_name_that_is_not_there_cannot_be_set():
    state = optim.adam(0.1).init(example())
    with pytest.raises(KeyError, match=r"set found no 'counts' in the tree, which has count\.$"):
        optim.tree.set(state, counts=1)
    with pytest.raises(KeyError, match=r"no 'zzz' in the tree, which has ScaleByAdamState, count, mu, nu, a, b, c"):
        optim.tree.set(state, zzz=1)
    with pytest.raises(KeyError, match=r"set found 'mu' at \[0\]ScaleByAdamState.mu, and filtering passes none"):
        optim.tree.set(state, lambda path, value: False, mu=1)


def test_a_learning_rate_is_set_and_mapped_over():
    params, gradient = example(), example(1)
    rule = optim.inject_hyperparams(optim.sgd)(learning_rate=0.5)
    state = rule.init(params)

    def updated(rate):
        return rule.update(gradient, optim.tree.set(state, learning_rate=rate), params)[0]

    rates = torch.tensor([0.1, 0.2])
    close(vmap(updated)(rates), tree.stack([tree.map(lambda g, r=r: -r * g, gradient) for r in rates]))
    close(jit(updated, backend="aot_eager")(rates[1]), updated(rates[1]))


def test_parameters_are_mapped_with_trees_like_them():
    params = example()
    mask = {"a": True, "b": {"c": False, "d": True}}
    rule = optim.masked(optim.adam(0.1), mask, outside="zero")
    state = rule.init(params)
    names = {"a": "A", "b": {"d": "D", "c": "C"}}
    with pytest.raises(tree.TreeMismatchError, match=r"tree 2 of map does not match tree 1: 1 unexpected"):
        optim.tree_map_params(rule, lambda leaf, name: name, state, names)
    got = optim.tree_map_params(
        rule, lambda leaf, name: name, state, names, is_leaf=lambda node: isinstance(node, optim.MaskedNode)
    )
    assert got.inner_state[0].mu == {"a": "A", "b": {"c": "C", "d": "D"}}
    assert got.inner_state[0].count is state.inner_state[0].count
    with pytest.raises(tree.TreeMismatchError, match="map_params got a state that this optimizer does not make: at "):
        optim.tree_map_params(optim.sgd(0.1, 0.9), lambda leaf: leaf, state)
    with pytest.raises(tree.TreeMismatchError, match=r"at \[0\] it has a TraceState with TraceState.trace, not a S"):
        optim.tree_map_params(optim.adam(0.1), lambda leaf: leaf, optim.sgd(0.1, 0.9).init(params))
    with pytest.raises(tree.TreeMismatchError, match=r"at its root it has a list with \[0\], \[1\], not a tuple with"):
        optim.tree_map_params(optim.adam(0.1), lambda leaf: leaf, list(optim.adam(0.1).init(params)))
