"""Pytrees: round trips on random trees, errors by path, and the one concatenation behind ravel's gradient."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch.func import grad, jacrev, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from funcnet import jit, tree

# torch.func.jvp scripts its decompositions on the first call
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script.:FutureWarning")


class Pair(NamedTuple):
    first: object
    second: object


@tree.register_dataclass
@dataclass
class Box:
    inside: object
    empty: object = None


NAMES = st.text("abc", min_size=1, max_size=3)
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@st.composite
def tensors(draw, dtypes=(torch.float32,)):
    shape, dtype = draw(SHAPES), draw(st.sampled_from(dtypes))
    count = torch.Size(shape).numel()
    values = draw(st.lists(st.integers(-8, 8), min_size=count, max_size=count))
    return torch.tensor(values, dtype=torch.float64).to(dtype).reshape(shape)


def trees(leaves):
    return st.recursive(
        leaves | st.none(),
        lambda child: (
            st.dictionaries(NAMES, child, max_size=3)
            | st.dictionaries(NAMES, child, max_size=3).map(OrderedDict)
            | st.lists(child, max_size=3)
            | st.lists(child, max_size=3).map(tuple)
            | st.builds(Pair, child, child)
            | st.builds(Box, child, child)
        ),
        max_leaves=8,
    )


dicts = st.recursive(tensors(), lambda child: st.dictionaries(NAMES, child, max_size=3), max_leaves=8).filter(
    lambda value: isinstance(value, dict)
)


def same(a, b):
    tree.check_like(a, b, dtype=True)
    assert tree.structure(a) == tree.structure(b)
    return all(torch.equal(x, y) for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True))


@given(trees(tensors()))
def test_flatten_and_unflatten_are_inverse(value):
    leaves, treedef = tree.flatten(value)
    assert same(tree.unflatten(treedef, leaves), value)
    assert type(tree.unflatten(treedef, leaves)) is type(value)
    assert treedef.num_leaves == len(leaves) == len(tree.paths(value))
    assert [id(leaf) for _, leaf in tree.leaves_with_path(value)] == [id(leaf) for leaf in leaves]
    assert hash(treedef) == hash(tree.structure(value))


@given(trees(tensors()))
def test_map_applies_to_every_leaf(value):
    doubled = tree.map(lambda a, b: a + b, value, value)
    assert same(doubled, tree.map(lambda a: 2 * a, value))


def test_none_is_an_empty_tree():
    assert tree.leaves({"w": None, "b": 1}) == [1]
    assert tree.leaves(None) == []
    assert tree.map(lambda x: x + 1, (None, 1, Box(2))) == (None, 2, Box(3))


def test_paths_name_every_kind_of_node():
    value = {"a": [1, (2,)], "b": Pair(3, {"c": 4}), "d": Box(5), "e.f": 6}
    assert tree.paths(value) == ["a.0", "a.1.0", "b.first", "b.second.c", "d.inside", "e.f"]
    assert tree.paths(1) == [""]


def test_order_of_keys_counts_for_flatten_and_not_for_map():
    assert tree.structure({"a": 0, "b": 0}) != tree.structure({"b": 0, "a": 0})
    assert list(tree.map(lambda x, y: (x, y), {"b": 1, "a": 2}, OrderedDict(a=3, b=4)).items()) == [
        ("b", (1, 4)),
        ("a", (2, 3)),
    ]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"a": 1}, r"tree 2 of map does not match tree 1: 1 missing.*\n  'b' is missing"),
        ({"a": 1, "b": 2, "c": 3}, r"1 unexpected.*\n  'c' is unexpected"),
        ({"a": 1, "b": (2,)}, r"'b' is missing"),
        ({"a": 1, "b": None}, r"'b' is missing"),
        ([1, 2], r"'a' is missing"),
    ],
)
def test_map_refuses_other_structures(other, message):
    with pytest.raises(tree.TreeMismatchError, match=f"(?s){message}"):
        tree.map(lambda x, y: x, {"a": 1, "b": 2}, other)


def test_map_names_containers_that_differ():
    with pytest.raises(
        tree.TreeMismatchError, match=r"the names agree, the containers do not \(a is a list, not a tuple"
    ):
        tree.map(lambda x, y: x, {"a": (1,)}, {"a": [1]})
    with pytest.raises(tree.TreeMismatchError, match=r"a\.b is a list, not a tuple"):
        tree.map(lambda x, y: x, {"a": {"b": (1,)}}, {"a": {"b": [1]}})


def test_unflatten_counts_leaves():
    with pytest.raises(ValueError, match="got 1 leaves for a structure of 2"):
        tree.unflatten(tree.structure((1, 2)), [1])


# split and merge


@given(dicts, st.lists(st.sampled_from(["a", "b", "*a", "*.b*"]), max_size=3))
def test_split_and_merge_are_inverse(value, wanted):
    def chooser(glob):
        return lambda name, leaf: glob.strip("*.") in name

    parts = tree.split(value, *[chooser(glob) for glob in wanted])
    assert len(parts) == len(wanted) + 1
    assert sorted(p for part in parts for p in tree.paths(part)) == sorted(tree.paths(value))
    merged = tree.merge(*parts, like=value)
    assert same(merged, value)
    assert list(merged) == list(value)
    tree.check_like(tree.merge(*parts), value)


def test_split_gives_a_leaf_to_the_first_pattern():
    params = {"fc.weight": 1, "fc.bias": 2, "body.0.bias": 3, "body.0.weight": 4}
    assert tree.split(params, ("fc.w*", "body.*.weight"), "*bias") == (
        {"fc.weight": 1, "body.0.weight": 4},
        {"fc.bias": 2, "body.0.bias": 3},
        {},
    )
    assert tree.split(params, lambda name, leaf: leaf > 2)[0] == {"body.0.bias": 3, "body.0.weight": 4}
    assert tree.split(params, "fc.*", "*.bias")[1] == {"body.0.bias": 3}
    assert tree.split({"fc": {"w": 1, "b": None}, "e": {}}, "fc.w") == ({"fc": {"w": 1}}, {"fc": {"b": None}, "e": {}})


def test_split_says_what_is_near():
    with pytest.raises(
        tree.UnknownNameError, match=r"no name that matches 'fc.wieght' among 2; near it: 'fc.weight'"
    ) as e:
        tree.split({"fc.weight": 1, "x": 2}, "fc.wieght")
    assert isinstance(e.value, KeyError)
    with pytest.raises(tree.UnknownNameError, match="nothing, the tree is empty"):
        tree.split({}, "a")
    with pytest.raises(TypeError, match=r"'a' is a list"):
        tree.split({"a": [1]}, "a*")
    with pytest.raises(TypeError, match="a glob, a tuple of globs or a predicate"):
        tree.split({"a": 1}, ["a"])


def test_merge_refuses_a_name_twice():
    with pytest.raises(ValueError, match=r"merge found 'a.b' in two trees"):
        tree.merge({"a": {"b": 1}}, {"a": {"c": 1}}, {"a": {"b": 1}})
    with pytest.raises(ValueError, match=r"'a' in two trees"):
        tree.merge({"a": {"b": 1}}, {"a": 1})


def test_merge_leaves_its_arguments_alone():
    one, two = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert tree.merge(one, two) == {"a": {"b": 1, "c": 2}}
    assert (one, two) == ({"a": {"b": 1}}, {"a": {"c": 2}})


# ravel

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@given(trees(tensors(FLOATS)))
def test_ravel_and_unravel_are_inverse(value):
    vector, unravel = tree.ravel(value)
    assert vector.shape == (tree.size(value),)
    assert same(unravel(vector), value)
    again, other = tree.ravel(unravel(vector))
    assert torch.equal(again, vector)
    assert other == unravel
    assert hash(other) == hash(unravel)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(NAMES, tensors(), min_size=1, max_size=4))
def test_ravel_agrees_with_jax(value):
    flatten_util = pytest.importorskip("jax.flatten_util")
    ordered = dict(sorted(value.items()))  # jax sorts keys
    vector, _ = flatten_util.ravel_pytree({k: v.numpy() for k, v in value.items()})
    np.testing.assert_array_equal(np.asarray(vector), tree.ravel(ordered)[0].numpy())


PARAMS = {"w": torch.linspace(-1, 2, 6).reshape(3, 2), "b": torch.linspace(1, 2, 4), "c": torch.tensor(0.7)}


def objective(params):
    return params["w"].sin().sum() * params["b"].square().sum() + params["c"] ** 3


def test_gradient_of_unravel_is_one_concatenation():
    vector, unravel = tree.ravel(PARAMS)
    graph = make_fx(grad(lambda v: objective(unravel(v))))(vector).graph
    ops = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert ops.count("aten.cat.default") == 1
    fills = ("zero", "full", "slice_backward", "select_backward", "as_strided")
    assert not [op for op in ops if any(fill in op for fill in fills)], ops
    assert "aten.add.Tensor" not in ops[ops.index("aten.ones_like.default") :]


def test_ravel_composes_with_transforms():
    vector, unravel = tree.ravel(PARAMS)

    def f(v):
        return objective(unravel(v))

    gradient = tree.ravel(grad(objective)(PARAMS))[0]
    torch.testing.assert_close(grad(f)(vector), gradient)
    torch.testing.assert_close(jvp(f, (vector,), (gradient,))[1], gradient @ gradient)
    batch = torch.stack([vector, 2 * vector])
    torch.testing.assert_close(vmap(grad(f))(batch), torch.stack([grad(f)(v) for v in batch]))
    hessian = jacrev(grad(f))(vector)
    torch.testing.assert_close(hessian, hessian.T)
    assert hessian.abs().sum() > 0
    back = grad(lambda p: (tree.ravel(p)[0] ** 2).sum())(PARAMS)
    torch.testing.assert_close(back, tree.map(lambda p: 2 * p, PARAMS))


def test_ravel_gradients_pass_through_mixed_dtypes():
    params = {"a": torch.ones(2, dtype=torch.bfloat16), "b": torch.ones(2), "c": torch.ones(1, dtype=torch.complex64)}
    vector, unravel = tree.ravel(params)
    assert vector.dtype == torch.complex64
    assert tree.map(lambda x: x.dtype, unravel(vector)) == tree.map(lambda x: x.dtype, params)
    gradient = grad(lambda v: (unravel(v)["a"].float() * 3).sum() + unravel(v)["b"].sum())(vector)
    assert gradient.real.tolist() == [3, 3, 1, 1, 0]
    with pytest.raises(TypeError, match=r"unravel got torch.float32 for a tree of mixed dtypes.*torch.complex64"):
        unravel(torch.ones(5))


def test_ravel_errors():
    _, unravel = tree.ravel(PARAMS)
    with pytest.raises(ValueError, match=r"vector of shape \(3,\) for a tree of 11 elements in 3 leaves"):
        unravel(torch.zeros(3))
    with pytest.raises(ValueError, match=r"write vmap\(unravel\)"):
        unravel(torch.zeros(2, 11))
    with pytest.raises(TypeError, match=r"'n.step', which is torch.int64"):
        tree.ravel({"w": torch.zeros(2), "n": {"step": torch.tensor(1)}})
    assert tree.ravel({"i": torch.tensor([1, 2]), "u": torch.tensor([True])})[0].tolist() == [1, 2, 1]


def test_ravel_of_one_leaf_is_a_copy():
    leaf = torch.zeros(3)
    assert tree.ravel(leaf)[0].data_ptr() != leaf.data_ptr()


# numbers


@given(trees(tensors((torch.float32, torch.float64))))
def test_global_norm_is_the_vectors_length(value):
    vector, _ = tree.ravel(value)
    torch.testing.assert_close(tree.global_norm(value).double(), torch.linalg.vector_norm(vector.double()))


def test_global_norm_accumulates_in_float32_and_has_finite_gradients_at_zero():
    half = {"w": torch.full((1000,), 300.0, dtype=torch.float16)}  # a sum of squares of 9e7 overflows float16
    torch.testing.assert_close(tree.global_norm(half), torch.tensor(300 * 1000**0.5))
    complex_leaf = torch.tensor([3 + 4j])
    assert tree.global_norm([complex_leaf]).item() == 5
    zero = {"w": torch.zeros(3)}
    assert torch.equal(grad(tree.global_norm)(zero)["w"], torch.zeros(3))
    assert torch.isfinite(jacrev(grad(lambda w: tree.global_norm([w])))(torch.zeros(3))).all()
    torch.testing.assert_close(grad(tree.global_norm)({"w": torch.tensor([3.0, 4.0])})["w"], torch.tensor([0.6, 0.8]))
    assert tree.global_norm({}).item() == 0
    assert tree.global_norm({"w": torch.tensor([float("nan")])}).isnan()


def test_casts_and_counts():
    value = {"w": torch.ones(2, 3), "n": torch.tensor(1), "z": torch.ones(1, dtype=torch.complex128), "k": None}
    cast = tree.cast(value, torch.float32)
    assert tree.map(lambda x: x.dtype, cast) == {
        "w": torch.float32,
        "n": torch.int64,
        "z": torch.complex64,
        "k": None,
    }
    assert tree.size(value) == 8
    assert tree.nbytes(value) == 24 + 8 + 16
    assert tree.zeros_like(value, torch.float64)["w"].dtype == torch.float64
    assert torch.equal(tree.ones_like({"w": torch.zeros(2)})["w"], torch.ones(2))
    assert tree.to(value, "meta")["w"].is_meta


@given(trees(tensors()))
def test_stack_and_unstack_are_inverse(value):
    if not tree.leaves(value):
        return
    members = [value, tree.map(lambda x: x + 1, value)]
    stacked = tree.stack(members)
    assert all(same(a, b) for a, b in zip(tree.unstack(stacked), members, strict=True))


def test_stack_errors():
    with pytest.raises(tree.TreeMismatchError, match=r"trees\[1\] does not match trees\[0\]: 1 wrong shape"):
        tree.stack([{"w": torch.ones(2)}, {"w": torch.ones(3)}])
    with pytest.raises(ValueError, match="stack got no trees"):
        tree.stack([])
    with pytest.raises(tree.TreeMismatchError, match=r"'b' has shape \(3,\) and 'a' \(2,\)"):
        tree.unstack({"a": torch.ones(2), "b": torch.ones(3)})


# check_like

MODEL = {"fc1.weight": torch.zeros(4, 3), "fc1.bias": torch.zeros(4), "fc2.weight": torch.zeros(2, 4)}


@given(trees(tensors()))
def test_check_like_accepts_a_tree_like_itself(value):
    tree.check_like(tree.map(lambda x: x + 1, value), value, dtype=True)
    tree.check_like(value, tree.to(value, "meta"), dtype=True)


@pytest.mark.parametrize(
    ("got", "message"),
    [
        ({}, r"3 missing\. params is empty: make it first, as in `params, state = model.init\(key\)`"),
        (
            {f"module.{k}": v for k, v in MODEL.items()},
            r"prefix 'module\.': strip it, \{k\.removeprefix\('module\.'\): v for k, v in params\.items\(\)\}",
        ),
        ({"state_dict": MODEL}, r"prefix 'state_dict\.'"),
        (MODEL | {"bn.running_mean": torch.zeros(4)}, r"1 unexpected\. The unexpected names are buffers: .* in state"),
        ({"a": torch.zeros(1)}, r"No name is common to both"),
        ({k: torch.stack([v] * 5) for k, v in MODEL.items()}, r"leading axis of 5, an ensemble or a batch.*vmap"),
        (MODEL | {"fc1.weight": torch.zeros(3, 4)}, r"params\['fc1.weight'\] looks transposed.*\.mT"),
        (MODEL | {"fc1.weight": torch.zeros(12)}, r"as many elements as it should: write leaf.reshape\(\(4, 3\)\)"),
        (MODEL | {"fc1.bias": torch.zeros(1)}, r"would broadcast, which is never done silently"),
        (
            MODEL | {"fc1.bias": torch.zeros(4).double()},
            r"float64 is what numpy makes .*tree.cast\(params, torch.float32\)",
        ),
        (MODEL | {"fc1.bias": np.zeros(4)}, r"1 not a tensor\. Make them tensors: tree.map\(torch.as_tensor, params\)"),
        (
            {("fc1.wieght" if k == "fc1.weight" else k): v for k, v in MODEL.items()},
            r"'fc1.weight' is missing, a float32 of shape \(4, 3\) \(near 'fc1.wieght'\)",
        ),
    ],
)
def test_check_like_names_the_likely_cause(got, message):
    with pytest.raises(tree.TreeMismatchError, match=f"(?s)^params does not match model: .*{message}"):
        tree.check_like(got, MODEL, dtype=True)


def test_check_like_says_which_shape_and_shows_five():
    want = {f"w{i}": torch.zeros(2, 3) for i in range(9)}
    with pytest.raises(tree.TreeMismatchError) as error:
        tree.check_like({k: torch.zeros(2, 4) for k in want}, want, "grads", "params")
    lines = str(error.value).splitlines()
    assert lines[0] == "grads does not match params: 9 wrong shape."
    assert lines[1] == "  'w0' has shape (2, 4), params wants (2, 3)"
    assert len(lines) == 7
    assert lines[-1] == "  and 4 more"


def test_check_like_hints():
    kernel = {"conv.weight": torch.zeros(8, 3, 5, 5)}
    with pytest.raises(tree.TreeMismatchError, match=r"jax kernel \(h, w, in, out\): write leaf.permute\(3, 2, 0, 1\)"):
        tree.check_like({"conv.weight": torch.zeros(5, 5, 3, 8)}, kernel)
    with pytest.raises(tree.TreeMismatchError, match=r"ensemble has a leading axis of 2 that params lacks"):
        tree.check_like(MODEL, tree.stack([MODEL, MODEL]), against="ensemble")
    with pytest.raises(tree.TreeMismatchError, match=r"prefix 'net\.': add it, \{'net\.' \+ k: v for"):
        tree.check_like(MODEL, {f"net.{k}": v for k, v in MODEL.items()})
    extra = {"params": MODEL, "step": torch.tensor(1)}
    with pytest.raises(tree.TreeMismatchError, match=r"The leaves lie under 'params': hand over params\['params'\]"):
        tree.check_like(extra, MODEL)
    tree.check_like({"a": torch.zeros(2)}, {"a": torch.ones(3)}, shape=False)
    tree.check_like({"a": torch.zeros(2).double()}, {"a": torch.ones(2)})


def test_trees_compile_without_a_break():
    params = {"a": Pair(torch.ones(2), None), "b": [torch.ones(3)]}

    def step(p):
        tree.check_like(p, p, dtype=True)
        head, rest = tree.split({"x.y": p["b"][0], "z": p["a"].first}, "x.*")
        return tree.map(lambda a, b: a + b, p, p), tree.global_norm(p), tree.merge(head, rest), tree.ravel(p)[0]

    compiled = jit(step, backend="aot_eager")(params)
    torch.testing.assert_close(compiled[3], torch.ones(5))
    torch.testing.assert_close(compiled[0]["a"].first, torch.full((2,), 2.0))
