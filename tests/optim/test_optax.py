"""The same numbers as optax: from a recorded file, and directly where optax is installed."""

import json
import sys
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from funcnet import optim, tree

sys.path.insert(0, str(Path(__file__).parent))
from make_golden import FILE, problem, run
from registry import COSINE, LINKS, OPTIMIZERS, SCHEDULES, Case

GOLDEN = json.loads(FILE.read_text())


def close(got, want, rtol=1e-12):
    np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=rtol, atol=1e-14)


@pytest.mark.parametrize("case", OPTIMIZERS + LINKS, ids=str)
def test_updates_are_those_recorded_from_optax(case):
    params, gradients = tree.map(torch.as_tensor, problem())
    seen = run(case.build(optim), params, gradients, optim.apply_updates)
    for got, want in zip(seen, GOLDEN["updates"][str(case)], strict=True):
        # A schedule's value is float32 in torch, whose default dtype it has, and float64 in jax with x64.
        tree.map(lambda g, w: close(g, w, 3e-7 if case.schedule else 1e-12), got, tree.map(np.asarray, _arrays(want)))


def _arrays(want):
    return {"a": np.array(want["a"]), "b": {"c": np.array(want["b"]["c"]), "d": np.array(want["b"]["d"])}}


@pytest.mark.parametrize("case", SCHEDULES, ids=str)
def test_schedules_are_those_recorded_from_optax(case):
    schedule = case.build(optim)
    got = [float(schedule(torch.tensor(step, dtype=torch.int32))) for step in range(14)]
    np.testing.assert_allclose(got, GOLDEN["schedules"][str(case)], rtol=2e-6, atol=1e-7)


@pytest.fixture(scope="module")
def optax():
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    with jax.enable_x64(True):
        yield optax


def test_the_recorded_version_is_known():
    assert GOLDEN["optax"] == "0.2.8"
    assert set(GOLDEN["updates"]) == {str(case) for case in OPTIMIZERS + LINKS}


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("case", [c for c in OPTIMIZERS + LINKS if "mask" not in c.kwargs], ids=str)
@given(
    shapes=st.lists(st.lists(st.integers(0, 3), max_size=2).map(tuple), min_size=1, max_size=4), seed=st.integers(0, 99)
)
def test_updates_equal_optax_on_random_trees(optax, case, shapes, seed):
    generator = np.random.default_rng(seed)

    def draw():
        return {f"p{i}": generator.normal(size=shape) for i, shape in enumerate(shapes)}

    params, gradients = draw(), [draw() for _ in range(3)]
    ours = run(
        case.build(optim),
        tree.map(torch.as_tensor, params),
        tree.map(torch.as_tensor, gradients),
        optim.apply_updates,
    )
    theirs = run(case.build(optax), params, gradients, optax.apply_updates)
    for got, want in zip(ours, theirs, strict=True):
        tree.map(lambda g, w: close(g, w, 1e-6 if case.schedule else 1e-12), got, tree.map(np.asarray, dict(want)))


@pytest.mark.parametrize("case", OPTIMIZERS + LINKS, ids=str)
def test_states_have_optaxs_structure(optax, case):
    import jax

    params, _ = problem()
    ours = case.build(optim).init(tree.map(torch.as_tensor, params))
    theirs = case.build(optax).init(params)
    names = [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, _ in jax.tree_util.tree_leaves_with_path(theirs)
    ]
    assert tree.paths(ours) == names
    for got, want in zip(tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (tuple(got.shape), str(got.dtype).removeprefix("torch.")) == (want.shape, str(want.dtype))


def test_signatures_are_optaxs(optax):
    import inspect

    for name in {case.name for case in OPTIMIZERS + LINKS + SCHEDULES} | {"join_schedules", "chain", "apply_updates"}:
        ours, theirs = (inspect.signature(getattr(library, name)).parameters for library in (optim, optax))
        assert {k: (p.default, p.kind) for k, p in ours.items()} == {
            k: (p.default, p.kind) for k, p in theirs.items()
        }, name


def test_join_schedules_equals_optax(optax):
    def build(library):
        parts = [case.build(library) for case in (SCHEDULES[0], SCHEDULES[1], Case(*COSINE))]
        return library.join_schedules(parts, [2, 6])

    ours, theirs = build(optim), build(optax)
    np.testing.assert_allclose([float(ours(t)) for t in range(14)], [float(theirs(t)) for t in range(14)], rtol=2e-6)
