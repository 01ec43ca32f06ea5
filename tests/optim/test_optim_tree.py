"""`optim.tree` against `optax.tree`, on the same drawn numbers; and what it is under transforms, and refuses."""

import math
import sys
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings

from funcnet import grad, jit, optim, random, tree, vmap

sys.path.insert(0, str(Path(__file__).parent))
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
    with pytest.raises(
        tree.TreeMismatchError, match=r"(tree 2 of map does not match tree 1|moments does not match updates): 1 missing"
    ):
        ALL[name](optim.tree, x, {"a": y["a"], "s": y["s"], "b": {"e": y["b"]["e"]}})


def test_inner_products_do_not_broadcast():
    x, y = torch_pair()
    with pytest.raises(tree.TreeMismatchError, match=r"tree_y does not match tree_x: 1 wrong shape"):
        optim.tree.vdot(x, y | {"a": y["s"]})
    with pytest.raises(ValueError, match=r"norm got ord=3, and knows 1, 2 and 'inf'"):
        optim.tree.norm(x, 3)
