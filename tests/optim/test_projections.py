"""Projections: optimal, feasible, idempotent; against optax; derivatives; errors."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad, vmap

from funcnet import jit, optim, random, tree
from funcnet.optim import projections as project

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script.:FutureWarning")

SHAPES = {"b": (3,), "w": {"k": (2, 2), "s": ()}}  # jax sorts the keys of dicts


def drawn(seed, scale=1.0, dtype=torch.float64):
    keys = random.split(random.key(seed), 3)
    leaves = [
        scale * random.normal(key, shape, dtype=torch.float64)
        for key, shape in zip(keys, [(3,), (2, 2), ()], strict=True)
    ]
    first, second, third = (leaf.to(dtype) for leaf in leaves)
    return {"b": first, "w": {"k": second, "s": third}}


def flat(x):
    return tree.ravel(x)[0]


NORMAL, UPPER = drawn(100), tree.map(lambda x: x.abs() + 0.1, drawn(101))
LOWER = tree.map(lambda x: -x, UPPER)

# A projection, whether a point lies in its set, and the same in optax.
SETS = {
    "projection_non_negative": ((), lambda p: (flat(p) >= 0).all()),
    "projection_box": ((LOWER, UPPER), lambda p: (flat(p).abs() <= flat(UPPER)).all()),
    "projection_hypercube": ((UPPER,), lambda p: ((flat(p) >= 0) & (flat(p) <= flat(UPPER))).all()),
    "projection_simplex": ((1.7,), lambda p: (flat(p) >= 0).all() and close(flat(p).sum(), 1.7)),
    "projection_l1_sphere": ((1.7,), lambda p: close(flat(p).abs().sum(), 1.7)),
    "projection_l1_ball": ((1.7,), lambda p: flat(p).abs().sum() <= 1.7 + 1e-12),
    "projection_l2_sphere": ((1.7,), lambda p: close(flat(p).norm(), 1.7)),
    "projection_l2_ball": ((1.7,), lambda p: flat(p).norm() <= 1.7 + 1e-12),
    "projection_linf_ball": ((0.7,), lambda p: flat(p).abs().max() <= 0.7),
    "projection_vector": (
        (NORMAL,),
        lambda p: close(flat(p) @ flat(NORMAL), flat(p).norm() * flat(NORMAL).norm(), True),
    ),
    "projection_hyperplane": ((NORMAL, 0.4), lambda p: close(flat(p) @ flat(NORMAL), 0.4)),
    "projection_halfspace": ((NORMAL, 0.4), lambda p: flat(p) @ flat(NORMAL) <= 0.4 + 1e-12),
}
every = pytest.mark.parametrize("name", SETS)


def close(a, b, up_to_sign=False):
    a = abs(a) if up_to_sign else a
    return abs(a - b) < 1e-12 * max(1.0, abs(float(b)))


def test_every_projection_is_in_the_table():
    assert {
        name for name, value in vars(project).items() if inspect.isfunction(value) and name in project.__all__
    } == set(SETS)


@every
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.1, 1.0, 10.0]))
def test_lies_in_the_set_stays_there_and_nothing_in_it_is_nearer(name, seed, scale):
    args, inside = SETS[name]
    f = getattr(project, name)
    x = drawn(seed, scale)
    p = f(x, *args)
    tree.check_like(p, x, dtype=True)
    assert inside(p)
    torch.testing.assert_close(flat(f(p, *args)), flat(p), rtol=1e-10, atol=1e-10)
    for other in range(5):
        q = f(drawn(seed + 1 + other, scale), *args)
        assert (flat(x) - flat(p)).norm() <= (flat(x) - flat(q)).norm() + 1e-9


@pytest.fixture(scope="module")
def optax():
    pytest.importorskip("jax")
    return pytest.importorskip("optax")


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_optax(optax, name, dtype):
    import jax

    def theirs(value):
        return jax.tree.map(lambda x: jax.numpy.asarray(x.numpy()), value) if isinstance(value, dict) else value

    for seed, scale in ((1, 1.0), (2, 0.05), (3, 30.0)):
        args = [tree.cast(a, dtype) if isinstance(a, dict) else a for a in SETS[name][0]]
        x = drawn(seed, scale, dtype)
        with jax.enable_x64(dtype == torch.float64):
            if name == "projection_hypercube":  # optax's takes no trees
                want = jax.tree.map(optax.projections.projection_hypercube, theirs(x), theirs(args[0]))
            else:
                want = getattr(optax.projections, name)(theirs(x), *map(theirs, args))
        got = getattr(project, name)(x, *args)
        rtol = 1e-9 if dtype == torch.float64 else 1e-5
        for g, w in zip(tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(g.numpy(), np.asarray(w), rtol=rtol, atol=rtol * scale)


def test_signatures_are_optaxs(optax):
    for name in SETS:
        mine, other = (inspect.signature(getattr(room, name)).parameters for room in (project, optax.projections))
        assert list(mine) == list(other)
        assert [p.default for p in mine.values()] == [p.default for p in other.values()]


@every
def test_derivatives(name):
    args, _ = SETS[name]
    f = getattr(project, name)
    for seed, scale in ((4, 1.0), (5, 0.1)):  # outside, and inside the balls
        vector, unravel = tree.ravel(drawn(seed, scale))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            leaf = vector.clone().requires_grad_()
            assert torch.autograd.gradcheck(lambda v: flat(f(unravel(v), *args)), leaf, check_forward_ad=True)  # noqa: B023
            assert torch.autograd.gradgradcheck(lambda v: flat(f(unravel(v), *args)), leaf)  # noqa: B023
        got = grad(lambda v: flat(f(unravel(v), *args)).sin().sum())(vector)  # noqa: B023
        torch.testing.assert_close(got, torch.autograd.grad(flat(f(unravel(leaf), *args)).sin().sum(), leaf)[0])


@pytest.mark.parametrize("name", [n for n, (args, _) in SETS.items() if args and isinstance(args[-1], float)])
def test_sizes_are_differentiable_and_vmapped(name):
    f, others = getattr(project, name), SETS[name][0][:-1]
    x = drawn(6)
    sizes = torch.tensor([0.3, 0.9, 40.0], dtype=torch.float64)
    got = vmap(lambda s: flat(f(x, *others, s)))(sizes)
    torch.testing.assert_close(got, torch.stack([flat(f(x, *others, s.item())) for s in sizes]))
    assert torch.autograd.gradcheck(lambda s: flat(f(x, *others, s)), sizes[0].clone().requires_grad_())


@every
def test_vmap_and_jit(name):
    args, _ = SETS[name]
    f = getattr(project, name)
    many = [drawn(seed) for seed in (7, 8, 9)]
    want = tree.stack([f(x, *args) for x in many])
    torch.testing.assert_close(vmap(lambda x: f(x, *args))(tree.stack(many)), want)
    torch.testing.assert_close(jit(lambda x: f(x, *args), backend="aot_eager")(many[0]), f(many[0], *args))


@every
def test_half_precision_keeps_its_dtype(name):
    args = [tree.cast(a, torch.bfloat16) if isinstance(a, dict) else a for a in SETS[name][0]]
    x = drawn(10, dtype=torch.bfloat16)
    got = getattr(project, name)(x, *args)
    tree.check_like(got, x, dtype=True)
    torch.testing.assert_close(
        flat(got).double(), flat(getattr(project, name)(drawn(10), *SETS[name][0])), rtol=0.05, atol=0.05
    )


def test_the_sphere_is_reached_from_zeros_and_ties():
    p = project.projection_l1_sphere(torch.tensor([0.0, 0.0, -0.0]))
    torch.testing.assert_close(p.abs().sum(), torch.tensor(1.0))
    torch.testing.assert_close(project.projection_simplex(torch.full((4,), 7.0)), torch.full((4,), 0.25))


def test_simplex_of_huge_values_and_nan():
    huge = torch.tensor([1e8, 1e8 - 16, -1e30])
    torch.testing.assert_close(project.projection_simplex(huge), torch.tensor([1.0, 0.0, 0.0]))
    assert project.projection_simplex(torch.tensor([1.0, torch.nan])).isnan().any()


def test_projected_gradient_descent_finds_the_constrained_minimum():
    target = {"w": torch.tensor([2.0, 0.1, -3.0])}
    rule = optim.sgd(0.2)
    params, state = {"w": torch.zeros(3)}, rule.init(target)
    for _ in range(60):
        gradient = grad(lambda p: ((p["w"] - target["w"]) ** 2).sum())(params)
        updates, state = rule.update(gradient, state, params)
        params = project.projection_simplex(optim.apply_updates(params, updates))
    torch.testing.assert_close(params, project.projection_simplex(target), atol=1e-5, rtol=0)


ERRORS = [
    (lambda: project.projection_box(NORMAL, 1.0, -1.0), ValueError, "lower=1.0 and upper=-1.0"),
    (lambda: project.projection_box(NORMAL, {"b": 0.0}, 1.0), ValueError, "lower does not match tree"),
    (lambda: project.projection_simplex(NORMAL, 0.0), ValueError, "projection_simplex got scale=0.0"),
    (lambda: project.projection_l1_sphere(NORMAL, -1.0), ValueError, "projection_l1_sphere got scale=-1.0"),
    (lambda: project.projection_l1_ball(NORMAL, -1.0), ValueError, "projection_l1_ball got scale=-1.0"),
    (lambda: project.projection_l2_sphere(NORMAL, -1.0), ValueError, "projection_l2_sphere got scale=-1.0"),
    (lambda: project.projection_l2_ball(NORMAL, -1.0), ValueError, "projection_l2_ball got scale=-1.0"),
    (lambda: project.projection_linf_ball(NORMAL, 0.0), ValueError, "projection_linf_ball got scale=0.0"),
    (lambda: project.projection_simplex(NORMAL, torch.ones(2)), ValueError, r"scale has shape \(2,\)"),
    (lambda: project.projection_vector(NORMAL, {"b": torch.ones(3)}), ValueError, "a does not match x"),
    (lambda: project.projection_hyperplane(NORMAL, {}, 1.0), ValueError, "a does not match x"),
    (lambda: project.projection_halfspace(NORMAL, NORMAL, "one"), TypeError, "b is a str"),
]


@pytest.mark.parametrize(("call", "error", "match"), ERRORS, ids=[match for _, _, match in ERRORS])
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call()
