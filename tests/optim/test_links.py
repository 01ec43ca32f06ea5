"""The families and links of cases_moments: what the registry cannot say of them."""

import inspect
import math
import sys
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch.func import grad, jacrev, jvp, vmap

from funcnet import jit, optim, random, tree
from funcnet.optim import fast

sys.path.insert(0, str(Path(__file__).parent))
import cases_moments
from running import close, example, steps

CASES = cases_moments.OPTIMIZERS + cases_moments.LINKS
every = pytest.mark.parametrize("case", CASES, ids=str)
DOUBLE = torch.float64
# torch.func.jvp scripts its decompositions on the first call
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script.:FutureWarning")


@pytest.fixture(scope="module")
def optax():
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    with jax.enable_x64(True):
        yield optax


def draw(seed, *shape):
    return random.normal(random.key(seed), shape, DOUBLE)


# every rule


def numbers(case):
    """The hyperparameters of a case that are numbers, defaults included."""
    parameters = inspect.signature(getattr(optim, case.name)).parameters
    values = {name: p.default for name, p in parameters.items()} | case.kwargs
    return {name: value for name, value in values.items() if isinstance(value, float)}


@pytest.mark.parametrize("case", [case for case in CASES if numbers(case)], ids=str)
def test_hyperparameters_may_be_tensors_to_map_over_and_differentiate(case):
    values = numbers(case)
    params, gradients = example(dtype=DOUBLE), [example(1, DOUBLE), example(2, DOUBLE)]

    def run(values):
        return steps(case.build(optim, **values), params, gradients, case=case)[0]

    def as_tensors(factor):
        return {name: torch.tensor(factor * value, dtype=DOUBLE) for name, value in values.items()}

    rtol = 1e-12 if case.rtol == 1e-9 else case.rtol  # where there is a float32 within
    close(run(as_tensors(1.0)), run(values), rtol=rtol, atol=1e-14)
    members = [as_tensors(1.0), as_tensors(0.9)]
    close(vmap(run)(tree.stack(members)), tree.stack([run(member) for member in members]), rtol=rtol, atol=1e-14)
    slopes = jacrev(lambda values: tree.ravel(run(values))[0].sum())(as_tensors(1.0))
    assert all(slope.isfinite() for slope in tree.leaves(slopes))


@every
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_derivatives_are_finite_at_zero_gradients(case, dtype):
    rule, params = case.build(optim), example(dtype=dtype)

    def loss(gradient):
        doubled = tree.map(lambda g: 2 * g, gradient)
        return tree.ravel(steps(rule, params, [gradient, doubled], case=case)[0])[0].sum()

    slopes = grad(loss)(tree.zeros_like(params))
    assert tree.ravel(slopes)[0].isfinite().all()


@every
def test_empty_leaves_and_empty_trees_pass(case):
    rule = case.build(optim, **{key: True for key in case.kwargs if key.endswith("mask")})
    params = {"none": torch.zeros(0, 3), "some": torch.ones(2, 2)}
    moved, _ = steps(rule, params, [tree.map(lambda p: p + 0.5, params)] * 2, case=case)
    assert moved["none"].shape == (0, 3)
    assert moved["some"].isfinite().all()
    rule.update({}, rule.init({}), {}, **case.keywords(0))


COMPLEX = [
    case
    for case in CASES
    if case.name not in ("sm3", "scale_by_sm3", "clip", "keep_params_nonnegative", "rprop", "scale_by_rprop")
    and not any(key.endswith("mask") for key in case.kwargs)
    and case.kwargs.get("mode") != "smooth"  # tanh of a complex number is no direction
]


@pytest.mark.parametrize("case", COMPLEX, ids=str)
def test_complex_parameters_move(case):
    params = {"w": torch.complex(draw(0, 3), draw(1, 3)), "s": torch.complex(draw(2), draw(3))}
    gradient = {"w": torch.complex(draw(4, 3), draw(5, 3)), "s": torch.complex(draw(6), draw(7))}
    rule = case.build(optim)
    moved, _ = steps(rule, params, [gradient, gradient], case=case)
    tree.check_like(moved, params, dtype=True)
    assert tree.ravel(moved)[0].isfinite().all()
    # what is done to a gradient does not depend on its direction: on the real axis it is the real rule
    real = tree.map(lambda x: x.real, (params, gradient))
    want, _ = steps(rule, real[0], [real[1]], case=case)
    got, _ = steps(rule, *(tree.map(lambda x: x + 0j, part) for part in (real[0], [real[1]])), case=case)
    if "noise" not in str(case) and "noisy" not in str(case):
        close(tree.map(lambda x: x.real, got), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        (name, argument, 1.0)
        for name in sorted({case.name for case in CASES})
        for argument in inspect.signature(getattr(optim, name)).parameters
        if argument in ("b1", "b3", "rho", "decay", "beta", "momentum") or (argument == "b2" and "sm3" not in name)
        if not (name in ("lars", "rmsprop") and argument == "momentum")
        if not ("optimistic" in name and argument == "beta")
    ],
)
def test_decays_lie_below_one(name, argument, value):
    factory = getattr(optim, name)
    needed = {"learning_rate": 0.1} if "learning_rate" in inspect.signature(factory).parameters else {}
    own = "b1" if (name, argument) == ("sm3", "momentum") else "decay" if argument in ("beta", "momentum") else argument
    with pytest.raises(ValueError, match=rf"{own} is 1.0, and a running mean needs 0 <= {own} < 1"):
        factory(**needed, **{argument: value})


PARAMS_NEEDED = [
    "scale_by_novograd",
    "scale_by_factored_rms",
    "scale_by_trust_ratio",
    "scale_by_distance_over_gradients",
    "scale_by_param_block_norm",
    "scale_by_param_block_rms",
    "keep_params_nonnegative",
]


@pytest.mark.parametrize("name", PARAMS_NEEDED)
def test_rules_that_need_the_parameters_say_so(name):
    rule, params = getattr(optim, name)(), example()
    with pytest.raises(ValueError, match=f"{name} needs the parameters"):
        rule.update(params, rule.init(params))


@every
def test_a_gradient_of_another_shape_is_refused(case):
    rule, params = case.build(optim), example()
    state = rule.init(params)
    for wrong in (tree.map(lambda g: g[None], params), {"a": params["a"]}):
        with pytest.raises((tree.TreeMismatchError, ValueError), match=r"does not match|does not fit"):
            optim.apply_updates(params, rule.update(wrong, state, params, **case.keywords(0))[0])


def test_wrong_words_are_refused():
    with pytest.raises(ValueError, match="mode is 'soft', and scale_by_lion knows 'hard', 'smooth', 'refined'"):
        optim.scale_by_lion(mode="soft")
    with pytest.raises(ValueError, match="variant is 'sps-', and scale_by_polyak knows \"sps\""):
        optim.polyak_sgd(variant="sps-")
    with pytest.raises(ValueError, match=r"polyak needs value: write optimizer\.update"):
        optim.polyak_sgd().update(example(), optim.polyak_sgd().init(example()), example())
    for factory in (optim.optimistic_adam, optim.sm3, optim.rprop):
        with pytest.raises(TypeError, match="learning_rate is a function, not a number"):
            factory(optim.constant_schedule(0.1))
    with pytest.raises(ValueError, match=r"'w' is one: write torch\.view_as_real"):
        optim.sm3(0.1).init({"w": torch.ones(2) + 0j})


# against torch.optim, in double precision


@pytest.mark.parametrize("quick", [True, False], ids=["fast", "reference"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (optim.adadelta(0.7, 0.8, 1e-4), lambda p: torch.optim.Adadelta(p, 0.7, 0.8, 1e-4)),
        (optim.adadelta(0.7, weight_decay=0.1), lambda p: torch.optim.Adadelta(p, 0.7, weight_decay=0.1)),
        (optim.adagrad(0.1, 0.2, 0.0), lambda p: torch.optim.Adagrad(p, 0.1, initial_accumulator_value=0.2, eps=0.0)),
        (optim.adamax(0.1, 0.8, 0.9, 1e-4), lambda p: torch.optim.Adamax(p, 0.1, (0.8, 0.9), 1e-4)),
        (optim.rmsprop(0.1, 0.9, 1e-4, eps_in_sqrt=False), lambda p: torch.optim.RMSprop(p, 0.1, 0.9, 1e-4)),
        (
            optim.rmsprop(0.1, 0.9, 1e-4, eps_in_sqrt=False, centered=True, momentum=0.5),
            lambda p: torch.optim.RMSprop(p, 0.1, 0.9, 1e-4, centered=True, momentum=0.5),
        ),
        (
            optim.amsgrad(0.1, eps=1e-4, bias_correction_nu=False, bias_correction_mu=False),
            lambda p: AmsgradByHand(p),
        ),
    ],
    ids=["adadelta", "adadelta with decay", "adagrad", "adamax", "rmsprop", "centred", "amsgrad"],
)
def test_equals_torch_optim(ours, theirs, quick, monkeypatch):
    if not quick:
        monkeypatch.setattr(fast, "usable", lambda *columns: False)
    params, gradients = example(dtype=DOUBLE), [example(i, DOUBLE) for i in range(1, 9)]
    leaves = [torch.nn.Parameter(leaf.clone()) for leaf in tree.leaves(params)]
    optimizer = theirs(leaves)
    for gradient in gradients:
        for leaf, g in zip(leaves, tree.leaves(gradient), strict=True):
            leaf.grad = g.clone()
        optimizer.step()
    want = tree.unflatten(tree.structure(params), [leaf.detach() for leaf in leaves])
    close(steps(ours, params, gradients)[0], want, rtol=1e-12, atol=1e-13)


class AmsgradByHand:
    """Reddi et al.'s algorithm 2, without corrections, as a loop."""

    def __init__(self, leaves):
        self.leaves, self.state = leaves, [(0.0, 0.0, torch.zeros_like(leaf)) for leaf in leaves]

    def step(self):
        for i, leaf in enumerate(self.leaves):
            m, v, largest = self.state[i]
            m, v = 0.9 * m + 0.1 * leaf.grad, 0.999 * v + 0.001 * leaf.grad**2
            largest = torch.maximum(largest, v)
            self.state[i] = (m, v, largest)
            leaf.data -= 0.1 * m / (largest.sqrt() + 1e-4)


# particular rules, by hand


def test_a_constant_gradient_has_no_negative_variance():
    rule, params = optim.rmsprop(0.01, centered=True), {"w": torch.ones(3)}
    gradient = {"w": torch.tensor([0.7, 1.3, 100.1])}
    moved, _ = steps(rule, params, [gradient] * 400)
    assert moved["w"].isfinite().all()


def test_a_nan_gradient_is_not_hidden_by_its_sign():
    gradient = {"w": torch.tensor([float("nan"), 2.0])}
    for rule in (optim.scale_by_sign(), optim.scale_by_lion(), optim.signum(1.0)):
        for many in (True, False):
            params = {"w": torch.ones(2)} | ({"b": torch.ones(1)} if many else {})
            given = gradient | ({"b": torch.ones(1)} if many else {})
            updates, _ = rule.update(given, rule.init(params), params)
            assert updates["w"].isnan().tolist() == [True, False]


def test_radam_waits_as_the_paper_says():
    rule, w = optim.scale_by_radam(b1=0.0, b2=0.999, eps=0.0), torch.zeros(1, dtype=DOUBLE)
    state = rule.init({"w": w})
    longest = 2 / (1 - 0.999) - 1
    for t in range(1, 9):
        updates, state = rule.update({"w": w + 2.0}, state, None)
        rho = longest - 2 * t * 0.999**t / (1 - 0.999**t)
        want = 2.0
        if rho >= 5:
            want = math.sqrt((rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho))
        assert updates["w"].item() == pytest.approx(want, rel=1e-9)
    assert want < 1


def test_fromage_keeps_the_papers_step():
    params, gradient = {"w": draw(0, 4)}, {"w": draw(1, 4)}
    moved, _ = steps(optim.fromage(0.3), params, [gradient])
    w, g = params["w"], gradient["w"]
    torch.testing.assert_close(moved["w"], (w - 0.3 * g * w.norm() / g.norm()) / math.sqrt(1 + 0.3**2))


@pytest.mark.parametrize("name", ["lamb", "lars", "fromage"])
def test_trust_ratios_fit_a_line(name):
    inputs, want = draw(0, 40, 5), {"w": draw(1, 5)}
    rule = getattr(optim, name)(optim.cosine_decay_schedule({"lars": 30.0}.get(name, 0.1), 400))

    def loss(params):
        return (inputs @ (params["w"] - want["w"])).square().mean()

    params = {"w": draw(2, 5)}
    first, state = loss(params), rule.init(params)
    for _ in range(400):
        params, state = optim.advance(rule, grad(loss)(params), state, params)
    assert loss(params) < 1e-3 * first


@pytest.mark.parametrize(
    "rule",
    [
        optim.adafactor(0.1, 2, momentum=0.9, dtype_momentum=DOUBLE),
        optim.scale_by_distance_over_gradients(0.1, param_dtype=DOUBLE),
    ],
    ids=["adafactor", "distance"],
)
def test_slopes_of_what_keeps_float32_by_default(rule):
    start, unravel = tree.ravel((example(1, DOUBLE), example(dtype=DOUBLE)))

    def moved(v):
        gradient, params = unravel(v)
        return tree.ravel(steps(rule, params, [gradient, tree.map(lambda g: 2 * g, gradient)])[0])[0]

    torch.autograd.gradcheck(moved, (start.requires_grad_(),))


def test_trust_ratio_leaves_alone_what_has_no_length():
    rule, zero, one = optim.scale_by_trust_ratio(), torch.zeros(2), torch.ones(2)
    updates, _ = rule.update({"w": one, "v": zero}, rule.init(None), {"w": zero, "v": one})
    assert torch.equal(updates["w"], one)
    assert torch.equal(updates["v"], zero)


def test_sm3_by_hand_and_its_memory():
    g, params = draw(0, 3, 4), {"w": torch.zeros(3, 4, dtype=DOUBLE), "s": torch.tensor(1.0, dtype=DOUBLE)}
    rule = optim.scale_by_sm3(b1=0.0, eps=0.0)
    state = rule.init(params)
    assert tree.map(lambda x: tuple(x.shape), state.mu) == {"w": [(3,), (4,)], "s": [(1,)]}
    rows, columns, s = torch.zeros(3, dtype=DOUBLE), torch.zeros(4, dtype=DOUBLE), 0.0
    for step in range(3):
        gradient = g * (step + 1)
        updates, state = rule.update({"w": gradient, "s": gradient[0, 0]}, state, params)
        want = torch.empty_like(g)
        for i in range(3):
            for j in range(4):
                want[i, j] = torch.minimum(rows[i], columns[j]) + gradient[i, j] ** 2
        rows, columns = want.amax(1), want.amax(0)
        s = s + gradient[0, 0] ** 2
        torch.testing.assert_close(updates["w"], gradient / want.sqrt())
        torch.testing.assert_close(updates["s"], gradient[0, 0] / s.sqrt())
        torch.testing.assert_close(state.mu["w"], [rows, columns])


def test_adafactor_keeps_rows_and_columns():
    params = {"w": torch.zeros(3, 200, 150), "v": torch.zeros(200, 100), "b": torch.zeros(7)}
    state = optim.adafactor(0.1).init(params)[0]
    assert tree.map(lambda x: tuple(x.shape), state.v_row) == {"w": (3, 150), "v": (1,), "b": (1,)}
    assert tree.map(lambda x: tuple(x.shape), state.v_col) == {"w": (3, 200), "v": (1,), "b": (1,)}
    assert tree.map(lambda x: tuple(x.shape), state.v) == {"w": (1,), "v": (200, 100), "b": (7,)}


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (3, 3), (5, 2, 4), (4, 5, 2), (2, 4, 5)])
def test_factoring_equals_optax_for_every_order_of_axes(optax, shape):
    import jax

    g, p = draw(0, *shape), {"w": draw(1, *shape)}
    kwargs = {"min_dim_size_to_factor": 2, "decay_rate_fn": lambda count, rate: 0.1 * count}
    ours, theirs = optim.scale_by_factored_rms(**kwargs), optax.scale_by_factored_rms(**kwargs)
    state, other = ours.init(p), theirs.init(jax.tree.map(jax.numpy.asarray, tree.map(torch.Tensor.numpy, p)))
    for step in range(4):
        updates, state = ours.update({"w": (step + 1) * g}, state, p)
        wanted, other = theirs.update({"w": (step + 1) * g.numpy()}, other, {"w": p["w"].numpy()})
        np.testing.assert_allclose(updates["w"].numpy(), np.asarray(wanted["w"]), rtol=1e-12)


def test_optimism_finds_the_middle_of_a_game_that_descent_circles():
    def gradients(z):  # min over x, max over y, of x * y
        return {"x": z["y"], "y": -z["x"]}

    def distance(rule):
        z = {"x": torch.tensor(1.0), "y": torch.tensor(1.0)}
        state = rule.init(z)
        for _ in range(300):
            z, state = optim.advance(rule, gradients(z), state, z)
        return tree.global_norm(z)

    assert distance(optim.optimistic_gradient_descent(0.2)) < 1e-2
    assert distance(optim.sgd(0.2)) > 10


def test_polyak_reaches_a_known_minimum_at_once():
    x = {"w": draw(0, 5)}  # |x| has slope 1, so that the step of the distance is right

    def loss(p):
        return tree.global_norm(p)

    updates, _ = optim.polyak_sgd(max_learning_rate=100.0).update(
        grad(loss)(x), optim.polyak_sgd().init(x), x, value=loss(x)
    )
    assert tree.global_norm(optim.apply_updates(x, updates)) < 1e-12
    below = optim.scale_by_polyak(f_min=1.0, variant="sps+")
    assert not below.update(x, below.init(x), x, value=0.5)[0]["w"].any()
    assert not below.update(tree.zeros_like(x), below.init(x), x, value=2.0)[0]["w"].any()


def test_dog_needs_no_learning_rate_and_keeps_scalars():
    target = draw(0)
    rule, params = optim.scale_by_distance_over_gradients(global_scale=-1.0), {"s": draw(1)}
    state = rule.init(params)
    for _ in range(2000):
        params, state = optim.advance(rule, {"s": params["s"] - target}, state, params)
    assert params["s"].shape == ()
    torch.testing.assert_close(params["s"], target, rtol=1e-3, atol=1e-3)


# noise


def test_noise_fades_and_is_fresh_every_step():
    rule, zero = optim.add_noise(eta=4.0, gamma=1.0, key=1), {"w": torch.zeros(20000)}
    state, seen = rule.init(zero), []
    for t in range(1, 4):
        updates, state = rule.update(zero, state)
        seen.append(updates["w"])
        assert updates["w"].std().item() == pytest.approx(2 / math.sqrt(t), rel=0.03)
    assert abs(torch.corrcoef(torch.stack(seen))[0, 1]) < 0.03
    again, _ = rule.update(zero, rule.init(zero))
    assert torch.equal(again["w"], seen[0])


def test_noise_takes_keys_and_numbers():
    def first(**kwargs):
        rule = optim.noisy_sgd(0.1, **kwargs)
        return rule.update(example(), rule.init(example()), example())[0]

    key = random.key(7)
    state = optim.add_noise(0.1, 0.5, key).init(example())
    assert torch.equal(state.rng_key, key)
    assert state.rng_key.data_ptr() != key.data_ptr()
    close(first(key=key), first(key=7), rtol=0, atol=0)
    with pytest.warns(DeprecationWarning, match="seed of add_noise is now called key"):
        close(first(seed=7), first(key=7), rtol=0, atol=0)
    with pytest.warns(UserWarning, match="add_noise got no key"):
        close(first(), first(key=0), rtol=0, atol=0)
    with pytest.raises(ValueError, match="both key and seed"):
        optim.add_noise(0.1, 0.5, 1, seed=1)
    keys = random.split(key, 3)
    many = vmap(lambda k: first(key=k)["a"])(keys)
    close(many, torch.stack([first(key=k)["a"] for k in keys]))


# clipping


@given(st.integers(0, 2**31 - 1), st.floats(0.01, 4.0), st.booleans())
def test_per_example_clipping_is_a_loop_over_examples(seed, limit, uniform):
    grads = {"w": draw(seed, 5, 3, 2), "b": 3 * draw(seed + 1, 5)}
    got, count = optim.per_example_global_norm_clip(grads, limit)
    examples = tree.unstack(grads)
    factors = [min(1.0, limit / tree.global_norm(e).item()) for e in examples]
    want = tree.map(lambda *gs: sum(f * g for f, g in zip(factors, gs, strict=True)), *examples)
    close(got, want, rtol=1e-12, atol=1e-13)
    assert count.item() == sum(f < 1 for f in factors)
    got, counts = optim.per_example_layer_norm_clip(grads, limit, uniform)
    shares = {"w": 1 / 2, "b": 1 / 2} if uniform else {"w": 6 / 7, "b": 1 / 7}
    for name, g in grads.items():
        alone, clipped = optim.per_example_global_norm_clip(g, limit * shares[name] ** 0.5)
        close(got[name], alone)
        assert counts[name] == clipped


@pytest.mark.parametrize("uniform", [True, False])
def test_per_example_clipping_equals_optax(optax, uniform):
    grads = {"w": draw(0, 4, 3, 2).numpy(), "b": np.zeros((4, 2))}
    for name, options in (("per_example_global_norm_clip", ()), ("per_example_layer_norm_clip", (uniform,))):
        got, count = getattr(optim, name)(tree.map(torch.as_tensor, grads), 0.5, *options)
        want, wanted = getattr(optax, name)(grads, 0.5, *options)
        for key in grads:
            np.testing.assert_allclose(got[key].numpy(), np.asarray(want[key]), rtol=1e-12)
        assert tree.map(int, count) == (int(wanted) if not options else {k: int(v) for k, v in wanted.items()})


def test_per_example_clipping_needs_examples():
    with pytest.raises(ValueError, match=r"'b' has shape \(\), and 'w' \(4, 2\)"):
        optim.per_example_global_norm_clip({"w": torch.ones(4, 2), "b": torch.ones(())}, 1.0)
    with pytest.raises(ValueError, match=r"'b' has shape \(3,\), and 'w' \(4, 2\)"):
        optim.per_example_layer_norm_clip({"w": torch.ones(4, 2), "b": torch.ones(3)}, 1.0, uniform=False)
    total = grad(lambda g: optim.per_example_global_norm_clip({"w": g}, 1.0)[0]["w"].sum())(torch.zeros(2, 3))
    assert torch.equal(total, torch.ones(2, 3))


@pytest.mark.parametrize(
    "shape", [(), (4,), (1, 4, 1), (3, 4), (2, 3, 4), (2, 3, 4, 5), (2, 3, 4, 5, 2), (1, 1, 1, 1, 1, 4), (2, 1)]
)
def test_units_are_optaxs(optax, shape):
    from optax.transforms import unitwise_norm

    x = draw(0, *shape)
    np.testing.assert_allclose(optim.unitwise_norm(x).numpy(), np.asarray(unitwise_norm(x.numpy())), rtol=1e-12)
    if x.ndim > 1:
        own = optim.unitwise_norm(x, axis=tuple(range(1, x.ndim)))
        torch.testing.assert_close(own, x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1)).expand(x.shape))


def test_unitwise_clipping_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"up to 5 axes, and got \(2, 2, 2, 2, 2, 2\)"):
        optim.unitwise_norm(torch.ones(2, 2, 2, 2, 2, 2))
    with pytest.raises(ValueError, match=r"of one shape, and got \(1,\), \(2,\), \(2,\)"):
        optim.unitwise_clip(torch.ones(1), torch.ones(2), torch.ones(2))


def test_parameters_stay_nonnegative_in_training():
    rule = optim.chain(optim.adam(0.3), optim.keep_params_nonnegative())
    params = tree.map(torch.abs, example())
    moved, _ = steps(rule, params, [tree.map(torch.ones_like, params)] * 20)
    assert all((leaf == 0).all() for leaf in tree.leaves(moved))


def test_zero_nans_tells_where():
    rule = optim.zero_nans()
    params = example()
    broken = params | {"a": params["a"].clone().index_fill_(0, torch.tensor([1]), float("nan"))}
    updates, state = rule.update(broken, rule.init(params), params)
    assert tree.map(bool, state.found_nan) == {"a": True, "b": {"c": False, "d": False}}
    assert torch.equal(updates["a"][1], torch.zeros(3))
    assert torch.equal(updates["a"][0], params["a"][0])
    slopes = grad(lambda g: rule.update({"w": g}, None)[0]["w"].sum())(torch.tensor([float("nan"), 1.0]))
    assert torch.equal(slopes, torch.tensor([0.0, 1.0]))


# functions


# A vector has neither of the norms that are named.
NORMS = [(o, axis) for o in (None, 1, 2, math.inf, "fro", "nuc") for axis in (None, 0, (0, 1))]


@pytest.mark.parametrize(("ord", "axis"), [(o, axis) for o, axis in NORMS if not isinstance(o, str) or axis != 0])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("low", [0.0, 1.3, 100.0])
def test_safe_norm_is_optaxs(optax, ord, axis, keepdims, low):
    x = draw(0, 3, 4)
    got, want = optim.safe_norm(x, low, ord, axis, keepdims), optax.safe_norm(x.numpy(), low, ord, axis, keepdims)
    assert got.shape == want.shape
    np.testing.assert_allclose(got.numpy(), np.asarray(want), rtol=1e-12)


def test_safe_lengths_have_slopes_at_zero():
    for length in (optim.safe_norm, optim.safe_root_mean_squares):
        for low in (0.0, 1e-3):
            assert torch.equal(grad(length)(torch.zeros(3), low), torch.zeros(3))
            torch.autograd.gradcheck(lambda x, low=low, length=length: length(x, low), (draw(0, 4).requires_grad_(),))
    many = vmap(lambda x: optim.safe_norm(x, 1.0))(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    assert torch.equal(many, torch.tensor([5.0, 1.0]))


def test_running_means_are_optaxs(optax):
    g, m = {"w": draw(0, 3)}, {"w": draw(1, 3).abs()}
    as_numpy = tree.map(torch.Tensor.numpy, (g, m))
    for name, rest in (
        ("update_moment", (0.9, 1)),
        ("update_moment", (0.9, 3)),
        ("update_moment_per_elem_norm", (0.9, 2)),
        ("update_moment_per_elem_norm", (0.9, 3)),
        ("update_infinity_moment", (0.9, 1e-3)),
    ):
        got, want = getattr(optim, name)(g, m, *rest), getattr(optax, name)(*as_numpy, *rest)
        np.testing.assert_allclose(got["w"].numpy(), np.asarray(want["w"]), rtol=1e-12)
    got, want = optim.bias_correction(m, 0.9, 3), optax.bias_correction(as_numpy[1], 0.9, 3)
    np.testing.assert_allclose(got["w"].numpy(), np.asarray(want["w"]), rtol=1e-12)


def test_a_measured_mean_is_optaxs(optax):
    def run(library, measure):
        rule = library.measure_with_ema(measure, 0.8)
        params = {"w": draw(0, 3)} if library is optim else {"w": draw(0, 3).numpy()}
        state, seen = rule.init(params), []
        for step in range(5):
            value, state = rule.update({"w": params["w"] * step}, state, params)
            seen.append(float(value))
        return seen

    want = run(optax, lambda u: abs(u["w"]).max())
    np.testing.assert_allclose(run(optim, lambda u: u["w"].abs().max()), want, rtol=1e-12)


def test_counts_do_not_overflow():
    for dtype in (torch.int32, torch.int8, torch.uint8):
        top = torch.iinfo(dtype).max
        assert optim.safe_increment(torch.tensor(top, dtype=dtype)) == top
        assert optim.safe_increment(torch.tensor(top - 1, dtype=dtype)) == top
    assert optim.safe_int32_increment(torch.tensor(2.5)) == 3.5
    top = torch.finfo(torch.float32).max
    assert optim.safe_increment(torch.tensor(top)) == top
    assert optim.safe_increment(4) == 5
    with pytest.raises(ValueError, match=r"counts in integers or floats, and count is torch\.bool"):
        optim.safe_increment(torch.tensor(True))


@pytest.mark.parametrize("factor", [-1.0, 0.0, 1.0, 2.5, torch.tensor(0.3)])
def test_scaled_gradients(factor):
    inputs, number = {"w": torch.tensor([2.0, -3.0]), "s": torch.tensor(4.0)}, float(factor)

    def loss(tree_):
        out = optim.scale_gradient(tree_, factor)
        return out["w"].square().sum() * out["s"]

    plain = {"w": 2 * inputs["w"] * 4, "s": inputs["w"].square().sum()}
    want = tree.map(lambda g: number * g, plain)
    torch.testing.assert_close(loss(inputs), torch.tensor(52.0))
    close(grad(loss)(inputs), want)
    close(jvp(loss, (inputs,), (inputs,))[1], (want["w"] * inputs["w"]).sum() + want["s"] * inputs["s"])
    close(vmap(grad(loss))(tree.stack([inputs, inputs])), tree.stack([want, want]))
    close(jit(grad(loss), backend="aot_eager")(inputs), want)


def test_global_norm_is_the_trees():
    assert torch.equal(optim.global_norm(example()), tree.global_norm(example()))


# linear algebra


def positive(seed, n, spread=1.0):
    """A symmetric positive matrix."""
    q, _ = torch.linalg.qr(draw(seed, n, n))
    return q @ torch.diag(torch.logspace(0, -spread, n, dtype=DOUBLE)) @ q.mT


@given(st.integers(0, 2**31 - 1), st.integers(1, 6))
def test_power_iteration_finds_the_largest_eigenvalue(seed, n):
    matrix = positive(seed, n)
    value, vector = optim.power_iteration(matrix, num_iters=2000, error_tolerance=1e-10)
    torch.testing.assert_close(value, torch.tensor(1.0, dtype=DOUBLE), rtol=1e-8, atol=0)
    torch.testing.assert_close(matrix @ vector, value * vector, rtol=0, atol=1e-8)
    torch.testing.assert_close(vector.norm(), torch.tensor(1.0, dtype=DOUBLE))


def test_power_iteration_is_optaxs_and_takes_trees(optax):
    import jax

    matrix = positive(3, 4)
    value, vector = optim.power_iteration(matrix, num_iters=7)
    wanted, other = optax.power_iteration(matrix.numpy(), num_iters=7)
    np.testing.assert_allclose(value.item(), float(wanted), rtol=1e-12)
    np.testing.assert_allclose(vector.numpy(), np.asarray(other), rtol=1e-9)
    value, vector = optim.power_iteration(matrix, key=random.key(5), num_iters=3)
    wanted, other = optax.power_iteration(matrix.numpy(), key=jax.random.key(5), num_iters=3)
    np.testing.assert_allclose(vector.numpy(), np.asarray(other), rtol=1e-9)

    def multiply(v):
        return {"a": 3 * v["a"], "b": 2 * v["b"]}

    value, vector = optim.power_iteration(multiply, v0={"a": draw(0, 2), "b": draw(1)})
    assert value.item() == pytest.approx(3, rel=1e-5)
    assert abs(vector["b"]) < 1e-2
    with pytest.raises(ValueError, match="power_iteration needs v0"):
        optim.power_iteration(multiply)
    with pytest.raises(ValueError, match=r"one square matrix, and got shape \(2, 3\)"):
        optim.power_iteration(torch.ones(2, 3))


@pytest.mark.parametrize("p", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("n", [1, 4])
def test_inverse_roots_against_eigenvalues(p, n):
    matrix = positive(p, n)
    got, error = optim.matrix_inverse_pth_root(matrix, p, ridge_epsilon=1e-12, error_tolerance=1e-9)
    values, vectors = torch.linalg.eigh(matrix)
    torch.testing.assert_close(got, vectors @ torch.diag(values ** (-1 / p)) @ vectors.mT, rtol=1e-7, atol=1e-8)
    assert error < 1e-8


def test_inverse_roots_are_optaxs_and_compile_and_vmap(optax):
    matrices = torch.stack([positive(0, 4), 2 * positive(1, 4, 0.5)])
    got = [optim.matrix_inverse_pth_root(matrix, 4)[0] for matrix in matrices]
    for matrix, own in zip(matrices, got, strict=True):
        want, _ = optax.matrix_inverse_pth_root(matrix.numpy(), 4)
        np.testing.assert_allclose(own.numpy(), np.asarray(want), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(vmap(lambda m: optim.matrix_inverse_pth_root(m, 4)[0])(matrices), torch.stack(got))
    compiled = jit(lambda m: optim.matrix_inverse_pth_root(m, 4)[0], backend="aot_eager")
    torch.testing.assert_close(compiled(matrices[0]), got[0])
    with pytest.raises(ValueError, match="p is 0, and matrix_inverse_pth_root takes positive integers"):
        optim.matrix_inverse_pth_root(matrices[0], 0)


def test_nonnegative_least_squares(optax):
    A, b = draw(0, 8, 4), draw(1, 8)
    got = optim.nnls(A, b, 3000)
    slope = A.mT @ (A @ got - b)
    assert (got >= 0).all()
    assert (slope >= -1e-8).all()
    assert abs(got @ slope) < 1e-8  # the conditions of Karush, Kuhn and Tucker
    two = optim.nnls(A, torch.stack([b, -b], 1), 3000)
    torch.testing.assert_close(two[:, 0], got)
    np.testing.assert_allclose(optim.nnls(A, b, 5).numpy(), np.asarray(optax.nnls(A.numpy(), b.numpy(), 5)), rtol=1e-9)
    torch.testing.assert_close(jit(lambda A, b: optim.nnls(A, b, 20), backend="aot_eager")(A, b), optim.nnls(A, b, 20))
    with pytest.raises(ValueError, match=r"got \(8, 4\), \(7,\)"):
        optim.nnls(A, b[:7], 5)
