"""`optim.tree` against `optax.tree`, on the same drawn numbers; and what it is under transforms, and refuses."""

import inspect
import math
import sys
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings

from funcnet import grad, jit, optim, random, tree, vmap
from funcnet.optim.tree.paths import DictKey, GetAttrKey, SequenceKey

sys.path.insert(0, str(Path(__file__).parent))
from make_golden import problem
from registry import LINKS, OPTIMIZERS
from running import close, example

# Both libraries sort or keep these alike; "s" is one number.
SHAPES = [{"a": (2, 3), "s": ()}, {"a": (4,), "b": {"e": (0, 3), "k": (2, 1, 2)}, "s": ()}]

SMOOTH = {
    "add": lambda t, x, y: t.add(x, y),
    "add of three": lambda t, x, y: t.add(x, y, x),
    "sub": lambda t, x, y: t.sub(x, y),
    "mul": lambda t, x, y: t.mul(x, y),
    "div": lambda t, x, y: t.div(x, y),
    "scale": lambda t, x, y: t.scale(-0.5, x),
    "scale by a tensor": lambda t, x, y: t.scale(y["s"], x),
    "add_scale": lambda t, x, y: t.add_scale(x, -0.25, y),
    "vdot": lambda t, x, y: t.vdot(x, y),
    "sum": lambda t, x, y: t.sum(x),
    "sum, associative": lambda t, x, y: t.sum(x, associative_reduction=True),
    "norm": lambda t, x, y: t.norm(x),
    "norm squared": lambda t, x, y: t.norm(x, squared=True),
    "norm 1": lambda t, x, y: t.norm(x, ord=1),
    "norm 2 squared": lambda t, x, y: t.norm(x, 2, True),
    "norm inf": lambda t, x, y: t.norm(x, ord=math.inf),
    "norm inf squared": lambda t, x, y: t.norm(x, ord="inf", squared=True),
    "conj": lambda t, x, y: t.conj(x),
    "real": lambda t, x, y: t.real(x),
    "where": lambda t, x, y: t.where(abs(x["s"]) > 0.7, x, y),
    "where True": lambda t, x, y: t.where(True, x, y),
    "batch_shape": lambda t, x, y: t.batch_shape(x, (2, 1)),
    "batch_shape of nothing": lambda t, x, y: t.batch_shape(x),
    "bias_correction": lambda t, x, y: t.bias_correction(x, 0.9, 3),
    "update_moment": lambda t, x, y: t.update_moment(x, y, 0.9, 2),
}
ORDERED = {  # of real numbers alone
    "max": lambda t, x, y: t.max(x),
    "min": lambda t, x, y: t.min(x),
    "clip": lambda t, x, y: t.clip(x, -0.5, 0.5),
    "clip below": lambda t, x, y: t.clip(x, min_value=0.1),
    "clip above by a tensor": lambda t, x, y: t.clip(x, max_value=y["s"]),
    "update_moment_per_elem_norm": lambda t, x, y: t.update_moment_per_elem_norm(x, y, 0.9, 2),
    "update_infinity_moment": lambda t, x, y: t.update_infinity_moment(x, y, 0.9, 1e-3),
}
CONSTANT = {
    "clip of nothing": lambda t, x, y: t.clip(x),
    "zeros_like": lambda t, x, y: t.zeros_like(x),
    "ones_like": lambda t, x, y: t.ones_like(x),
    "full_like": lambda t, x, y: t.full_like(x, 2.5),
    "allclose": lambda t, x, y: t.allclose(x, y),
    "allclose to itself": lambda t, x, y: t.allclose(t.scale(1 + 1e-6, x), x),
    "allclose within rtol": lambda t, x, y: t.allclose(t.scale(1.01, x), x, rtol=0.02),
    "allclose within atol": lambda t, x, y: t.allclose(x, y, atol=100.0),
    "size": lambda t, x, y: t.size(x),
}
ALL = SMOOTH | ORDERED | CONSTANT
pairs = pytest.mark.parametrize("name", ALL)
drawing = {"phases": [Phase.generate], "deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@pytest.fixture(scope="module")
def optax():
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    with jax.enable_x64(True):
        yield optax


def drawn(shapes, generator, dtype):
    if isinstance(shapes, dict):
        return {name: drawn(shape, generator, dtype) for name, shape in shapes.items()}
    values = generator.normal(size=shapes)
    if np.issubdtype(dtype, np.complexfloating):
        values = values + 1j * generator.normal(size=shapes)
    return np.asarray(values * (10 if np.issubdtype(dtype, np.integer) else 1), dtype)


def torch_pair(seed=0, dtype=np.float64, shapes=SHAPES[1]):
    generator = np.random.default_rng(seed)
    return tuple(tree.map(torch.as_tensor, drawn(shapes, generator, dtype)) for _ in range(2))


def same(got, want, rtol=1e-12, dtypes=True):
    import jax

    ours, theirs = tree.leaves(got), jax.tree.leaves(want)
    assert len(ours) == len(theirs)
    for g, w in zip(ours, theirs, strict=True):
        g, w = np.asarray(g), np.asarray(w)
        assert g.shape == w.shape
        assert g.dtype == w.dtype or not dtypes
        np.testing.assert_allclose(g, w, rtol=rtol, atol=rtol)


@settings(max_examples=3, **drawing)
@pairs
@given(data=st.data())
def test_equals_optax(optax, name, data):
    import jax

    shapes = data.draw(st.sampled_from(SHAPES))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))
    for dtype in [np.float64, np.float32] + ([np.complex128] if name in SMOOTH else []):
        x, y = drawn(shapes, generator, dtype), drawn(shapes, generator, dtype)
        got = ALL[name](optim.tree, *tree.map(torch.as_tensor, (x, y)))
        want = ALL[name](optax.tree, *jax.tree.map(jax.numpy.asarray, (x, y)))
        same(got, want, 1e-12 if dtype != np.float32 else 1e-5)


@pytest.mark.parametrize(
    "name", ["add", "mul", "sum", "vdot", "max", "min", "size", "norm 1", "where", "clip of nothing"]
)
def test_integers_stay_exact(optax, name):
    x, y = (drawn(SHAPES[1], np.random.default_rng(seed), np.int64) for seed in (1, 2))
    x["a"] = x["a"] + 2**40  # float32 has not so many digits
    got = ALL[name](optim.tree, *tree.map(torch.as_tensor, (x, y)))
    import jax

    same(got, ALL[name](optax.tree, *jax.tree.map(jax.numpy.asarray, (x, y))), rtol=0, dtypes=False)


def test_closeness_of_what_is_not_finite_or_no_float_is_optaxs(optax):
    import jax

    values = [0.0, 1.0, 1.0 + 1e-6, -1.0, math.inf, -math.inf, math.nan]
    for left in values:
        for right in values:
            for equal_nan in (False, True):
                want = optax.tree.allclose(
                    {"w": np.array([1.0, left])}, {"w": np.array([1.0, right])}, equal_nan=equal_nan
                )
                ours = ({"w": torch.tensor([1.0, v], dtype=torch.float64)} for v in (left, right))
                assert bool(optim.tree.allclose(*ours, equal_nan=equal_nan)) == bool(want), (left, right)
    for kind in (np.bool_, np.uint8, np.int32):
        for right in ([0, 1], [1, 1], [1, 0]):
            x, y = {"w": np.array([0, 1], kind)}, {"w": np.array(right, kind)}
            want = optax.tree.allclose(*jax.tree.map(jax.numpy.asarray, (x, y)))
            assert bool(optim.tree.allclose(*tree.map(torch.as_tensor, (x, y)))) == bool(want)


def test_casts_equal_optax(optax):
    import jax

    x = drawn(SHAPES[1], np.random.default_rng(3), np.float64)
    n = jax.tree.map(lambda leaf: leaf.astype(np.int32), x)
    for source in (x, n):
        ours, theirs = tree.map(torch.as_tensor, source), jax.tree.map(jax.numpy.asarray, source)
        same(optim.tree.cast(ours, torch.float32), optax.tree.cast(theirs, jax.numpy.float32))
        same(optim.tree.cast(ours, None), optax.tree.cast(theirs, None))
        same(optim.tree.full_like(ours, 3, torch.int64), optax.tree.full_like(theirs, 3, jax.numpy.int64))
        same(optim.tree.zeros_like(ours, torch.int64), optax.tree.zeros_like(theirs, jax.numpy.int64))
    other = {"a": np.int32(3), "b": {"e": np.float32(1), "k": np.float64(2)}, "s": np.float32(1)}
    ours, theirs = tree.map(torch.as_tensor, (x, other)), jax.tree.map(jax.numpy.asarray, (x, other))
    same(optim.tree.cast_like(*ours), optax.tree.cast_like(*theirs))
    assert optim.tree.cast_like({"w": torch.tensor(2)}, {"w": 1.5})["w"].dtype == torch.int64


def test_the_dtype_of_a_tree_equals_optax(optax):
    import jax

    kinds = ["int32", "int64", "float16", "bfloat16", "float32", "float64"]
    for left in kinds:
        for right in kinds:
            ours = {"a": torch.ones(2, dtype=getattr(torch, left)), "b": torch.ones(1, dtype=getattr(torch, right))}
            theirs = {"a": jax.numpy.ones(2, left), "b": jax.numpy.ones(1, right)}
            for handler in (None, "promote", "highest", "lowest"):
                try:
                    want = str(optax.tree.dtype(theirs, handler))
                except ValueError:
                    with pytest.raises(ValueError, match=r"dtype (found .* at 'a' and .* at 'b'|cannot tell which is)"):
                        optim.tree.dtype(ours, handler)
                else:
                    assert str(optim.tree.dtype(ours, handler)) == f"torch.{want}"
    assert optim.tree.dtype({}) == torch.get_default_dtype()
    with pytest.raises(ValueError, match="mixed_dtype_handler='widest': write 'promote'"):
        optim.tree.dtype({"w": torch.ones(1)}, "widest")


def test_keys_and_draws_equal_optax(optax):
    import jax

    x = drawn(SHAPES[1], np.random.default_rng(4), np.float32)
    ours = tree.map(torch.as_tensor, x)
    keys = optim.tree.split_key_like(random.key(7), ours)
    theirs = optax.tree.unwrap_random_key_data(optax.tree.split_key_like(jax.random.key(7), x))
    for got, want in zip(tree.leaves(keys), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(got.numpy().view(np.uint32), np.asarray(want))
    close(optim.tree.unwrap_random_key_data(keys), keys)
    x = jax.tree.map(jax.numpy.asarray, x)
    same(optim.tree.random_like(random.key(7), ours), optax.tree.random_like(jax.random.key(7), x), 1e-5)
    got = optim.tree.random_like(random.key(7), ours, random.uniform, torch.float64)
    same(got, optax.tree.random_like(jax.random.key(7), x, jax.random.uniform, np.float64))


def test_draws_map_over_keys():
    like = example()
    keys = random.split(random.key(5), 3)
    got = vmap(lambda key: optim.tree.random_like(key, like))(keys)
    close(got, tree.stack([optim.tree.random_like(key, like) for key in keys]))


@pytest.mark.parametrize("name", [name for name in ALL if name != "size"])
def test_mapped_is_each_alone(name):
    members = [torch_pair(seed) for seed in (1, 2, 3)]
    got = vmap(lambda x, y: ALL[name](optim.tree, x, y))(*(tree.stack(trees) for trees in zip(*members, strict=True)))
    close(got, tree.stack([ALL[name](optim.tree, *pair) for pair in members]))


def test_compiled_is_eager():
    def everything(x, y):
        return {name: f(optim.tree, x, y) for name, f in ALL.items() if name != "size"}

    close(jit(everything, backend="aot_eager")(*torch_pair()), everything(*torch_pair()))


@pytest.mark.parametrize("name", SMOOTH | ORDERED)
def test_has_the_derivative_of_what_it_computes(name):
    x, y = torch_pair(6, shapes=SHAPES[0])  # gradcheck takes no empty tensors
    leaves, treedef = tree.flatten((x, y))

    def f(*leaves):
        return tuple(tree.leaves((SMOOTH | ORDERED)[name](optim.tree, *tree.unflatten(treedef, leaves))))

    assert torch.autograd.gradcheck(f, [leaf.requires_grad_() for leaf in leaves], check_forward_ad=True)


def test_a_length_of_zero_has_a_gradient():
    zero = {"w": torch.zeros(3)}
    close(grad(optim.tree.norm)(zero), zero)  # optax's is NaN


def test_halves_are_summed_in_float32():
    many = {"w": torch.full((4096,), 1.001, dtype=torch.bfloat16), "b": torch.full((3,), 2.0, dtype=torch.float16)}
    for f, want in ((optim.tree.sum, 4102.0), (lambda t: optim.tree.vdot(t, t), 4108.0)):
        close(f(many), torch.tensor(want))
    assert optim.tree.norm(many, squared=True).dtype == optim.tree.norm(many, 1).dtype == torch.float32


def test_nothing_is_changed():
    x, y = torch_pair(8)
    before = tree.map(torch.clone, (x, y))
    for f in ALL.values():
        f(optim.tree, x, y)
    close((x, y), before, rtol=0, atol=0)


@pytest.mark.parametrize("f", [optim.tree.max, optim.tree.min, optim.tree.sum, optim.tree.norm])
def test_empty_trees_give_the_neutral_value(f):
    want = {"max": -math.inf, "min": math.inf}.get(f.__name__, 0.0)
    close(f({"e": torch.ones(0, 3)}), torch.tensor(want))
    close(f({}), torch.tensor(want))
    assert optim.tree.allclose({}, {}).item() is True


def test_numbers_are_leaves_too(optax):
    for t in (optim.tree, optax.tree):
        x, y = {"a": 2.0, "b": 3}, {"a": 0.5, "b": 7}
        assert t.add(x, y, x) == {"a": 4.5, "b": 13}
        assert float(t.sum(x)) == 5
        assert float(t.max(x)) == 3
        assert float(t.vdot(x, y)) == 22
        assert float(t.norm(x, squared=True)) == 13
        assert {name: float(v) for name, v in t.clip(x, max_value=2.5).items()} == {"a": 2.0, "b": 2.5}
        assert t.size(x) == 2
        assert bool(t.allclose(x, x))


TWO = ["add", "sub", "mul", "div", "where True", "allclose", "update_moment", "add_scale"]


@pytest.mark.parametrize("name", TWO)
def test_trees_of_two_structures_are_refused(name):
    x, y = torch_pair()
    with pytest.raises(tree.TreeMismatchError, match=r"tree 2 of map does not match tree 1: 1 missing"):
        ALL[name](optim.tree, x, {"a": y["a"], "s": y["s"], "b": {"e": y["b"]["e"]}})


def test_inner_products_do_not_broadcast():
    x, y = torch_pair()
    with pytest.raises(tree.TreeMismatchError, match=r"tree_y does not match tree_x: 1 wrong shape"):
        optim.tree.vdot(x, y | {"a": y["s"]})
    with pytest.raises(ValueError, match=r"norm got ord=3, and knows 1, 2 and 'inf'"):
        optim.tree.norm(x, 3)


# Values in states.

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


# Names.


def test_every_name_of_optax_is_there(optax):
    names = {name for name in dir(optax.tree) if not name.startswith("_")}
    assert names <= set(dir(optim.tree))
    assert len(names) > 30
    compared = 0
    for name in names:
        ours, theirs = getattr(optim.tree, name), getattr(optax.tree, name)
        assert getattr(optim.tree_utils, f"tree_{name}") is ours
        mine, other = (inspect.signature(f).parameters for f in (ours, theirs))
        assert [(p.name, p.kind) for p in mine.values()] == [(p.name, p.kind) for p in other.values()], name
        for key, parameter in other.items():
            assert callable(parameter.default) or mine[key].default == parameter.default, (name, key)
            compared += 1
    assert compared > 60
    assert {name for name in dir(optax.tree_utils) if name.startswith("tree_")} <= set(dir(optim.tree_utils))
    assert optim.tree_utils.NamedTupleKey("A", "b") == optim.tree_utils.NamedTupleKey(tuple_name="A", name="b")
    with pytest.raises(AttributeError, match=r"tree_utils has no tree_l2_norm: it has tree_add, tree_add_scale"):
        optim.tree_utils.tree_l2_norm  # noqa: B018


def test_the_librarys_own_trees_keep_their_name():
    import funcnet

    assert funcnet.tree is tree
    assert tree is not optim.tree
    assert tree.cast({"n": torch.tensor(1)}, torch.float32)["n"].dtype == torch.int64
