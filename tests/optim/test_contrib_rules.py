"""Particular rules of contrib, by hand and against optax; and what goes wrong, said well."""

import sys
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch.func import grad, vmap

from funcnet import jit, optim, random, tree
from funcnet.optim import contrib

sys.path.insert(0, str(Path(__file__).parent))
from running import close, example, steps

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script.:FutureWarning")
DOUBLE = torch.float64


@pytest.fixture
def optax():
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    with jax.enable_x64(True):
        yield optax


def matrices(seed=0):
    """A tree of matrices, one a batch of three."""
    first, second, third = random.split(random.key(seed), 3)
    return {
        "heads": random.normal(first, (3, 4, 5), DOUBLE),
        "tall": random.normal(second, (6, 2), DOUBLE),
        "wide": random.normal(third, (2, 6), DOUBLE),
    }


def same_as_optax(mine, theirs, params, gradients, **tolerances):
    import jax

    state, other = mine.init(params), theirs.init(jax.tree.map(lambda p: jax.numpy.asarray(p.numpy()), params))
    for gradient in gradients:
        updates, state = mine.update(gradient, state, params)
        arrays = jax.tree.map(lambda g: jax.numpy.asarray(g.numpy()), (gradient, params))
        expected, other = theirs.update(arrays[0], other, arrays[1])
        for got, want in zip(tree.leaves(updates), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(got.numpy(), np.asarray(want), **{"rtol": 1e-9, "atol": 1e-12} | tolerances)


# muon


def numbers(library, name="MuonDimensionNumbers"):
    kind = getattr(library.contrib, name)
    return {"heads": kind((0, 1), 2), "tall": kind(), "wide": kind(1, 0)}


@pytest.mark.parametrize("preconditioning", ["frobenius", "spectral", "aol", "schatten"])
@pytest.mark.parametrize("adaptive", [True, False])
def test_muons_rule_is_optaxs_on_shapes_of_all_kinds(optax, preconditioning, adaptive):
    def build(library):
        given = numbers(library) | {"heads": library.contrib.MuonDimensionNumbers(1, 2)}  # a batch of matrices
        return library.contrib.scale_by_muon(
            ((3.0, -3.2, 1.2), (2.0, -1.5, 0.5)),
            adaptive=adaptive,
            preconditioning=preconditioning,
            weight_dimension_numbers=given,
        )

    same_as_optax(build(optim), build(optax), matrices(), [matrices(1), matrices(2)])


def test_muon_takes_functions_and_prefixes_for_dimension_numbers(optax):
    def build(library, as_function):
        given = numbers(library)
        return library.contrib.muon(0.1, muon_weight_dimension_numbers=(lambda p: given) if as_function else given)

    same_as_optax(build(optim, False), build(optax, False), matrices(), [matrices(1), matrices(2)])

    def batches(params):
        return {"net": contrib.MuonDimensionNumbers(1, 2), "bias": None}

    params = {"net": [matrices()["heads"], matrices(1)["heads"]], "bias": torch.ones(3, dtype=DOUBLE)}
    rule = contrib.muon(0.1, muon_weight_dimension_numbers=batches)
    updates, state = rule.update(params, rule.init(params), params)
    alone = contrib.muon(0.1)
    head = {"w": params["net"][1][2]}
    close(updates["net"][1][2], alone.update(head, alone.init(head), head)[0]["w"])
    assert tree.paths(state.inner_states["adam"].inner_state[0].mu) == ["bias"]


@settings(deadline=None, max_examples=20)
@given(rows=st.integers(1, 6), columns=st.integers(1, 6), seed=st.integers(0, 2**31 - 1))
def test_muon_makes_singular_values_nearly_one(rows, columns, seed):
    gradient = {"w": random.normal(random.key(seed), (rows, columns), DOUBLE)}
    rule = contrib.scale_by_muon(ns_steps=12)
    updates, _ = rule.update(gradient, rule.init(gradient), gradient)
    values = torch.linalg.svdvals(updates["w"])
    assert ((values > 0.6) & (values < 1.3)).all()


def test_muon_has_finite_derivatives_at_zero():
    rule = contrib.scale_by_muon()
    params = {"w": torch.zeros(2, 3)}
    slope = grad(lambda w: rule.update({"w": w}, rule.init(params), params)[0]["w"].sum())(torch.zeros(2, 3))
    assert slope.isfinite().all()


# GaLore


def test_galore_is_optaxs_where_signs_do_not_matter(optax):
    def build(library):
        return library.contrib.scale_by_galore(
            3, 2, 0.5, library.sgd(1.0), weight_dimension_numbers=numbers(library, "GaLoreDimensionNumbers")
        )

    same_as_optax(build(optim), build(optax), matrices(), [matrices(i) for i in range(1, 6)], rtol=1e-4, atol=1e-5)


def test_galore_projects_on_the_leading_directions_and_keeps_them():
    rule = contrib.scale_by_galore(rank=2, update_proj_gap=2, base_optimizer=optim.identity())
    params = {"w": torch.zeros(5, 4, dtype=DOUBLE), "b": torch.zeros(4, dtype=DOUBLE)}
    draws = [random.normal(random.key(i), (5, 4), DOUBLE) for i in range(3)]
    state, ways = rule.init(params), []
    for draw in draws:
        updates, state = rule.update({"w": draw, "b": draw[0]}, state, params)
        way = state.projector["w"]
        ways.append(way)
        torch.testing.assert_close(updates["w"], way @ way.T @ draw)
        assert torch.equal(updates["b"], draw[0])
    left = torch.linalg.svd(draws[0])[0][:, :2]
    torch.testing.assert_close(ways[0] @ ways[0].T, left @ left.T)
    assert torch.equal(ways[0], ways[1])
    assert not torch.allclose(ways[1], ways[2])
    assert (ways[0].abs().amax(0) == ways[0].amax(0)).all()  # a definite sign


def test_galore_has_finite_derivatives_for_gradients_of_low_rank():
    rule = contrib.scale_by_galore(rank=2)
    params = {"w": torch.zeros(4, 3)}
    slope = grad(lambda w: rule.update({"w": w}, rule.init(params), params)[0]["w"].sum())(torch.ones(4, 3))
    assert slope.isfinite().all()


# schedule-free learning


def test_schedule_free_averages_the_iterates_of_its_optimizer():
    rate, b1 = 0.3, 0.8
    gradients = [example(i, DOUBLE)["a"] for i in range(1, 8)]
    z = x = y = example(dtype=DOUBLE)["a"]
    optimizer = contrib.schedule_free_sgd(rate, b1=b1)
    state, params = optimizer.init({"w": y}), {"w": y}
    for step, g in enumerate(gradients, start=1):
        z = z - rate * g
        x = (1 - 1 / step) * x + z / step
        updates, state = optimizer.update({"w": g}, state, params)
        params = optim.apply_updates(params, updates)
        torch.testing.assert_close(params["w"], b1 * x + (1 - b1) * z)
        torch.testing.assert_close(contrib.schedule_free_eval_params(state, params)["w"], x)


def test_schedule_free_stands_still_while_the_rate_is_zero():
    optimizer = contrib.schedule_free(optim.sgd(0.0), 0.0)
    params, state = steps(optimizer, example(), [example(1)] * 3)
    close(params, example(), rtol=1e-6, atol=1e-6)
    assert all(leaf.isfinite().all() for leaf in tree.leaves(state))


def test_schedule_free_stores_z_in_a_dtype_of_choice():
    optimizer = contrib.schedule_free_sgd(0.1, state_dtype=torch.bfloat16)
    params = example()
    state = optimizer.init(params)
    updates, state = optimizer.update(example(1), state, params)
    assert state.z["a"].dtype == torch.bfloat16
    tree.check_like(updates, params, dtype=True)


# SAM


def quadratic(p):
    return (torch.arange(1.0, 4.0, dtype=p["w"].dtype) * p["w"] ** 2).sum()


def test_sam_descends_by_the_gradient_uphill():
    rate, rho = 0.1, 0.05
    w = random.normal(random.key(1), (3,), DOUBLE)
    climb = optim.chain(contrib.normalize(), optim.sgd(rho))
    transparent, opaque = contrib.sam(optim.sgd(rate), climb), contrib.sam(optim.sgd(rate), climb, opaque_mode=True)
    slope = grad(quadratic)
    states, params, hidden, at = [transparent.init({"w": w}), opaque.init({"w": w})], {"w": w}, {"w": w}, w
    for _ in range(3):
        uphill = at + rho * slope({"w": at})["w"] / slope({"w": at})["w"].norm()
        at = at - rate * slope({"w": uphill})["w"]
        for _ in range(2):
            updates, states[0] = transparent.update(slope(params), states[0], params)
            params = optim.apply_updates(params, updates)
        updates, states[1] = opaque.update(slope(hidden), states[1], hidden, grad_fn=lambda p, i: slope(p))
        hidden = optim.apply_updates(hidden, updates)
        torch.testing.assert_close(params["w"], at)
        torch.testing.assert_close(hidden["w"], at)


def test_sam_tells_the_gradient_function_which_climb_it_is():
    seen = []
    optimizer = contrib.sam(optim.sgd(0.1), optim.sgd(0.1), sync_period=4, opaque_mode=True)
    params = example()
    optimizer.update(example(1), optimizer.init(params), params, grad_fn=lambda p, i: seen.append(i) or p)
    assert seen == [0, 1, 2]


def test_normalize_leaves_zeros_and_has_finite_derivatives_there():
    rule = contrib.normalize()
    zero = {"w": torch.zeros(2)}
    assert torch.equal(rule.update(zero, rule.init(zero))[0]["w"], zero["w"])
    assert grad(lambda w: rule.update({"w": w}, ())[0]["w"].sum())(torch.zeros(2)).isfinite().all()


# reduce on plateau


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    losses=st.lists(st.floats(0.1, 10.0), min_size=4, max_size=30),
    patience=st.integers(1, 3),
    cooldown=st.integers(0, 3),
    size=st.integers(1, 3),
)
def test_reduce_on_plateau_is_optaxs_on_any_losses(optax, losses, patience, cooldown, size):
    kwargs = {"factor": 0.5, "patience": patience, "cooldown": cooldown, "accumulation_size": size, "min_scale": 0.1}
    mine, theirs = contrib.reduce_on_plateau(**kwargs), optax.contrib.reduce_on_plateau(**kwargs)
    params, array = torch.ones(1, dtype=DOUBLE), np.ones(1)
    state, other = mine.init(params), theirs.init(array)
    for loss in losses:
        _, state = mine.update(params, state, params, value=loss)
        _, other = theirs.update(array, other, array, value=np.float64(loss))
        for name in state._fields:
            np.testing.assert_allclose(getattr(state, name).numpy(), np.asarray(getattr(other, name)), err_msg=name)


def test_reduce_on_plateau_follows_torchs_scheduler():
    parameter = torch.nn.Parameter(torch.zeros(1))
    wanted = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(wanted, factor=0.5, patience=2, threshold=1e-2, cooldown=1)
    rule = contrib.reduce_on_plateau(factor=0.5, patience=3, rtol=1e-2, cooldown=1)
    state = rule.init({"w": torch.zeros(1)})
    for loss in random.uniform(random.key(0), (40,)).tolist():
        scheduler.step(loss)
        _, state = rule.update({"w": torch.ones(1)}, state, None, value=loss)
        assert state.scale.item() == wanted.param_groups[0]["lr"]


# privacy


def per_example(seed, size=4):
    return tree.stack([example(seed + i, DOUBLE) for i in range(size)])


@pytest.mark.filterwarnings("ignore:.seed. is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    "build",
    [
        lambda library: library.contrib.differentially_private_aggregate(0.7, 1.3, key=5),
        lambda library: library.contrib.dpsgd(0.1, 0.7, 1.3, seed=5, momentum=0.9, nesterov=True),
    ],
    ids=["aggregate", "dpsgd"],
)
def test_private_aggregates_are_optaxs_noise_included(optax, build):
    import jax

    mine, theirs, params = build(optim), build(optax), example(dtype=DOUBLE)
    state, other = mine.init(params), theirs.init(jax.tree.map(lambda p: jax.numpy.asarray(p.numpy()), params))
    for seed in (1, 20):
        updates, state = mine.update(per_example(seed), state, params)
        arrays = jax.tree.map(lambda g: jax.numpy.asarray(g.numpy()), per_example(seed))
        expected, other = theirs.update(arrays, other, None)
        for got, want in zip(tree.leaves(updates), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(got.numpy(), np.asarray(want), rtol=1e-9)


def test_private_aggregates_draw_fresh_noise_at_every_step_and_trace():
    rule = contrib.differentially_private_aggregate(1.0, 1.0, key=random.key(2))
    params, gradients = example(), tree.map(lambda g: g.float(), per_example(1))
    state = rule.init(params)
    first, after = rule.update(gradients, state, params)
    second, _ = rule.update(gradients, after, params)
    assert not torch.equal(first["a"], second["a"])
    compiled = jit(lambda g, s: rule.update(g, s, None), backend="aot_eager")
    close(compiled(gradients, state), (first, after), rtol=1e-6, atol=1e-6)


# Sophia


def bowl(p):
    """Its Hessian is diagonal, so that Hutchinson's estimate is exact."""
    return tree.global_norm(tree.map(lambda x: x - 0.3, p)) ** 2 + sum((x**4).sum() for x in tree.leaves(p))


def test_hutchinsons_estimate_is_optaxs():
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")  # in double precision jax draws other signs

    def f(p):
        return (p["a"] @ p["b"]["c"]).sum() ** 2 + (p["a"] ** 4).sum() * p["b"]["d"]

    mine = contrib.hutchinson_estimator_diag_hessian()
    theirs = optax.contrib.hutchinson_estimator_diag_hessian()
    params = example()
    state, other = mine.init(params), theirs.init(params)
    arrays = jax.tree.map(lambda p: jax.numpy.asarray(p.numpy()), params)
    for _ in range(3):
        got, state = mine.update(params, state, params, obj_fn=f)
        want, other = theirs.update(arrays, other, arrays, obj_fn=f)
        for g, w in zip(tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(g.numpy(), np.asarray(w), rtol=1e-5)


def test_sophia_converges_and_traces():
    optimizer = contrib.sophia(optim.cosine_decay_schedule(0.1, 200), b1=0.9, b2=0.5, weight_decay=0.0, gamma=1.0)

    def step(params, state):
        return optim.advance(optimizer, grad(bowl)(params), state, params, obj_fn=bowl)

    params, state = example(6), optimizer.init(example(6))
    compiled = jit(step, backend="aot_eager")
    got, _ = compiled(params, state)
    close(got, step(params, state)[0], rtol=1e-5, atol=1e-6)
    for _ in range(200):
        params, state = step(params, state)
    assert tree.global_norm(grad(bowl)(params)) < 1e-2


def test_sophia_estimates_at_intervals():
    rule = contrib.scale_by_sophia(update_interval=3)
    params = example()
    state, keys = rule.init(params), []
    for _ in range(4):
        _, state = rule.update(example(1), state, params, obj_fn=bowl)
        keys.append(state.hessian_fn_state.key.tolist())
    assert keys[0] == keys[1] == keys[2] != keys[3]


def test_sophia_says_how_many_elements_it_left_alone(capsys):
    rule = contrib.scale_by_sophia(verbose=True, print_win_rate_every_n_steps=2)
    params = example()
    steps_taken = [rule.update(example(1), rule.init(params), params, obj_fn=bowl)]
    assert not capsys.readouterr().out
    rule.update(example(1), steps_taken[0][1], params, obj_fn=bowl)
    assert "of all elements not clipped" in capsys.readouterr().out


# others


def test_complex_leaves_are_seen_as_pairs_of_real_ones():
    real, imaginary = example(dtype=DOUBLE), example(1, DOUBLE)
    both = tree.map(torch.complex, real, imaginary)
    optimizer = contrib.split_real_and_imaginary(optim.adam(0.1))
    got, state = steps(optimizer, both, [both, both])
    close(tree.map(lambda z: z.real, got), steps(optim.adam(0.1), real, [real, real])[0])
    close(tree.map(lambda z: z.imag.clone(), got), steps(optim.adam(0.1), imaginary, [imaginary] * 2)[0])
    assert all(not leaf.is_complex() for leaf in tree.leaves(state))


@pytest.mark.parametrize("build", [contrib.dadapt_adamw, contrib.prodigy])
def test_estimates_survive_gradients_of_zero(build):
    optimizer, params = build(), example()
    moved, state = steps(optimizer, params, [tree.zeros_like(params)] * 2)
    close(moved, params)
    assert state.estim_lr == torch.tensor(1e-6)


@pytest.mark.parametrize(
    "build",
    [
        lambda: contrib.ademamix(0.1),
        lambda: contrib.adopt(0.1),
        lambda: contrib.dadapt_adamw(),
        lambda: contrib.madgrad(0.1),
        lambda: contrib.mechanize(optim.sgd(0.1)),
        lambda: contrib.prodigy(),
        lambda: contrib.schedule_free_adamw(0.1),
        lambda: contrib.simplified_ademamix(0.1),
    ],
)
def test_derivatives_are_finite_where_gradients_are_zero(build):
    optimizer, params = build(), {"w": torch.ones(3)}

    def loss(g):
        return steps(optimizer, params, [{"w": g}, {"w": 2 * g}])[0]["w"].square().sum()

    assert grad(loss)(torch.tensor([0.0, 1.0, 0.0])).isfinite().all()


def test_mechanize_starts_from_the_parameters_of_the_first_update():
    optimizer = contrib.mechanize(optim.sgd(0.1))
    state = optimizer.init(example())
    _, state = optimizer.update(example(1), state, example(7))
    close(state.x0, example(7))
    _, state = optimizer.update(example(1), state, example(8))
    close(state.x0, example(7))


def test_an_ensemble_of_learning_rate_free_optimizers_is_one_program():
    params, gradients = example(dtype=DOUBLE), [example(i, DOUBLE) for i in (1, 2, 3)]
    firsts = torch.tensor([1e-3, 1e-2], dtype=DOUBLE)

    def run(first):
        return steps(contrib.prodigy(estim_lr0=first), params, gradients)[0]

    close(vmap(run)(firsts), tree.stack([run(first) for first in firsts]))


# errors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: contrib.acprop(0.1, b1=1.0), ValueError, r"b1 is 1\.0, and a running mean needs 0 <= b1 < 1"),
        (lambda: contrib.dadapt_adamw(betas=(0.9, 1.5)), ValueError, r"betas\[1\] is 1\.5"),
        (lambda: contrib.dog(init_step=("guess", 1.0)), ValueError, r"init_step begins with 'guess'"),
        (lambda: contrib.galore(0.1, rank=0), ValueError, r"rank is 0, and must be at least 1"),
        (lambda: contrib.galore(0.1, rank=2.0), TypeError, r"rank is a float, and must be an int"),
        (
            lambda: contrib.scale_by_galore(
                weight_dimension_numbers={"heads": contrib.GaLoreDimensionNumbers(), "tall": None, "wide": None}
            ).init(matrices()),
            ValueError,
            r"leaf of shape \(3, 4, 5\), and needs every axis in one of the two",
        ),
        (lambda: contrib.mechanize(optim.sgd(0.1), num_betas=0), ValueError, r"num_betas is 0"),
        (lambda: contrib.mechanize(optim.sgd), TypeError, r"no gradient transformation: call the factory"),
        (
            lambda: steps(contrib.momo(), example(), [example(1)]),
            ValueError,
            r"momo needs value: write optimizer.update\(grads, state, params, value=loss\)",
        ),
        (lambda: contrib.scale_by_muon(((1.0, 2.0, 3.0),) * 6), ValueError, r"ns_coeffs has 6 rows and ns_steps is 5"),
        (lambda: contrib.scale_by_muon((1.0, 2.0)), ValueError, r"ns_coeffs has shape \(2,\)"),
        (lambda: contrib.muon(0.1, "fast"), ValueError, r"ns_coeffs is 'fast'"),
        (lambda: contrib.muon(0.1, preconditioning="none"), ValueError, r"preconditioning is 'none'"),
        (
            lambda: steps(contrib.scale_by_muon(), {"b": torch.ones(3)}, [{"b": torch.ones(3)}]),
            ValueError,
            r"scale_by_muon works on matrices, and got a leaf of shape \(3,\)",
        ),
        (
            lambda: steps(
                contrib.scale_by_muon(weight_dimension_numbers=contrib.MuonDimensionNumbers(0, 0)),
                {"w": torch.ones(3, 2, 2)},
                [{"w": torch.ones(3, 2, 2)}],
            ),
            ValueError,
            r"the reduction axes \(0,\) and the output axes \(0,\)",
        ),
        (
            lambda: contrib.muon(0.1, muon_weight_dimension_numbers={"w": None}).init({"v": torch.ones(2, 2)}),
            ValueError,
            r"The tree of dimension numbers does not fit the parameters at its root",
        ),
        (lambda: contrib.differentially_private_aggregate(1.0, 1.0), ValueError, r"needs one key"),
        (lambda: contrib.differentially_private_aggregate(1.0, 1.0, 1, seed=1), ValueError, r"needs one key"),
        (lambda: contrib.reduce_on_plateau(factor=1.0), ValueError, r"factor is 1\.0, and must be between 0 and 1"),
        (lambda: contrib.reduce_on_plateau(rtol=0.0), ValueError, r"rtol is 0\.0 and atol 0\.0"),
        (lambda: contrib.reduce_on_plateau(atol=-1.0), ValueError, r"atol -1\.0"),
        (lambda: contrib.sam(optim.sgd(0.1), optim.sgd(0.1), 0), ValueError, r"sync_period is 0"),
        (
            lambda: contrib.sam(optim.sgd(0.1), optim.sgd(0.1), batch_axis_name="batch"),
            ValueError,
            r"batch_axis_name is 'batch', but vmap has no named axes",
        ),
        (
            lambda: steps(contrib.sam(optim.sgd(0.1), optim.sgd(0.1), opaque_mode=True), example(), [example(1)]),
            ValueError,
            r"sam with opaque_mode=True needs grad_fn",
        ),
        (lambda: contrib.schedule_free_sgd(b1=0.0), ValueError, r"b1 is 0\.0, and must be above 0"),
        (
            lambda: contrib.schedule_free_eval_params(optim.EmptyState(), example()),
            ValueError,
            r"schedule_free_eval_params got a EmptyState",
        ),
        (lambda: contrib.sophia(0.1, verbose=True), ValueError, r"print_win_rate_every_n_steps"),
        (
            lambda: steps(contrib.sophia(0.1), example(), [example(1)]),
            ValueError,
            r"hutchinson_estimator_diag_hessian needs obj_fn",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        call()


@pytest.mark.parametrize(
    "build",
    [contrib.cocob, contrib.dadapt_adamw, contrib.dog, contrib.dowg, contrib.prodigy, lambda: contrib.madgrad(0.1)],
)
def test_parameters_are_asked_for(build):
    optimizer = build()
    state = optimizer.init(example())
    with pytest.raises(ValueError, match="needs the parameters"):
        optimizer.update(example(1), state)
