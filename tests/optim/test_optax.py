"""The same numbers as optax: from recorded files, and directly where optax is installed."""

import inspect
import json
import sys
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings

from funcnet import optim, tree

sys.path.insert(0, str(Path(__file__).parent))
from cases import COSINE, Case
from make_golden import FOLDER, RECORDED, problem, run
from registry import LINKS, OPTIMIZERS, ROOMS, SCHEDULES

FILES = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in [*ROOMS, "schedules"]}
GOLDEN = {name: value for file in FILES.values() for name, value in file["entries"].items()}
# jax sorts the keys of dicts
SHAPES = [{"b": (3,), "w": (2, 3)}, {"s": ()}, {"a": (4,), "m": {"e": (0, 3), "k": (2, 1, 2)}}]


@pytest.fixture(autouse=True)
def double():
    """A schedule's value has torch's default dtype, as it has jax's."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def close(got, want, rtol, where=""):
    assert got.dtype == torch.as_tensor(np.asarray(want)).dtype
    np.testing.assert_allclose(got.numpy(), np.asarray(want), rtol=rtol, atol=rtol * 1e-2, err_msg=where)


@pytest.mark.parametrize("case", OPTIMIZERS + LINKS, ids=str)
def test_updates_are_those_recorded_from_optax(case):
    params, gradients = tree.map(torch.as_tensor, problem())
    seen = run(case, optim, params, gradients)
    for step, want in zip(RECORDED, GOLDEN[str(case)], strict=True):
        for (path, got), values in zip(tree.leaves_with_path(seen[step]), want, strict=True):
            close(got, np.array(values), case.rtol, f"{path} at step {step}")


@pytest.mark.parametrize("case", SCHEDULES, ids=str)
def test_schedules_are_those_recorded_from_optax(case):
    schedule = case.build(optim)
    got = [float(schedule(torch.tensor(step, dtype=torch.int32))) for step in range(14)]
    np.testing.assert_allclose(got, GOLDEN[str(case)], rtol=1e-9, atol=1e-12)


def test_every_file_holds_its_entries_from_the_known_version():
    for name, file in FILES.items():
        cases = SCHEDULES if name == "schedules" else ROOMS[name].OPTIMIZERS + ROOMS[name].LINKS
        assert file["optax"] == "0.2.8"
        assert set(file["entries"]) == {str(case) for case in cases}, f"write it again: make_golden.py {name}"


@pytest.fixture(scope="module")
def optax():
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    with jax.enable_x64(True):
        yield optax


def compare_on_random_trees(optax, case, data, dtype, rtol):
    shapes = data.draw(st.sampled_from(SHAPES[:2] if "empty" in case.without else SHAPES))
    overrides = {name: data.draw(strategy, label=name) for name, strategy in case.drawn.items()}
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))

    def draw(shapes):
        if isinstance(shapes, dict):
            return {name: draw(shape) for name, shape in shapes.items()}
        return np.asarray(generator.normal(size=shapes), dtype)

    params, gradients = draw(shapes), [draw(shapes) for _ in range(25)]
    ours = run(case, optim, *tree.map(torch.as_tensor, (params, gradients)), **overrides)
    import jax

    theirs = run(case, optax, *jax.tree.map(jax.numpy.asarray, (params, gradients)), **overrides)
    for step, (got, want) in enumerate(zip(ours, theirs, strict=True)):
        for (path, g), w in zip(tree.leaves_with_path(got), jax.tree.leaves(want), strict=True):
            scale = max(1e-3, float(np.abs(np.asarray(w)).max(initial=0)))
            np.testing.assert_allclose(
                g.numpy(), np.asarray(w), rtol=rtol, atol=rtol * scale, err_msg=f"{path} at step {step}"
            )


# Masks, labels and dimension numbers are made for one tree.
SPECIAL = ("mask", "labels", "dimension")
GENERAL = [case for case in OPTIMIZERS + LINKS if not any(word in k for k in case.kwargs for word in SPECIAL)]
# A seed does not shrink.
drawing = {"phases": [Phase.generate], "deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@settings(max_examples=2, **drawing)
@pytest.mark.parametrize("case", GENERAL, ids=str)
@given(data=st.data())
def test_updates_equal_optax_on_random_trees(optax, case, data):
    compare_on_random_trees(optax, case, data, np.float64, case.rtol)


@pytest.mark.slow
@settings(max_examples=30, **drawing)
@pytest.mark.parametrize("case", GENERAL, ids=str)
@given(data=st.data())
def test_updates_equal_optax_on_many_random_trees(optax, case, data):
    double = "single" in case.without or data.draw(st.booleans(), label="double")
    torch.set_default_dtype(torch.float64 if double else torch.float32)  # the last example may have had the other
    if double:
        compare_on_random_trees(optax, case, data, np.float64, case.rtol)
    else:
        compare_on_random_trees(optax, case, data, np.float32, max(case.single, case.rtol))


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


# What differs on purpose: the reason stands in the docstring.
DIFFERENT = {"masked", "matrix_inverse_pth_root", "power_iteration"}


def test_signatures_are_optaxs(optax):
    rooms = [("", name) for name in dir(optim)] + [("contrib", name) for name in dir(optim.contrib)]
    compared = 0
    for room, name in rooms:
        ours = getattr(getattr(optim, room) if room else optim, name)
        theirs = getattr(getattr(optax, room) if room else optax, name, None)
        if not inspect.isfunction(ours) or not inspect.isfunction(theirs) or name in DIFFERENT:
            continue
        mine, other = (inspect.signature(f).parameters for f in (ours, theirs))
        assert list(mine)[: len(other)] == list(other), name
        for key, parameter in other.items():
            assert mine[key].kind == parameter.kind, (name, key)
            # a function of jax is another of torch, as is a transformation
            if not callable(parameter.default) and not isinstance(parameter.default, optax.GradientTransformation):
                assert mine[key].default == parameter.default, (name, key)
        compared += 1
    assert compared > 20


def test_join_schedules_equals_optax(optax):
    def build(library):
        parts = [case.build(library) for case in (SCHEDULES[0], SCHEDULES[1], Case(*COSINE))]
        return library.join_schedules(parts, [2, 6])

    ours, theirs = build(optim), build(optax)
    np.testing.assert_allclose([float(ours(t)) for t in range(14)], [float(theirs(t)) for t in range(14)], rtol=1e-9)
