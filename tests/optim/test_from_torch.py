"""`from_torch` against torch.optim itself, and the contracts of all rules for what the registry cannot hold."""

import inspect
import pickle
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import Phase, given, settings
from torch.func import grad, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from funcnet import jit, optim, random, scan, tree
from funcnet.optim.torch_like import _RULES

sys.path.insert(0, str(Path(__file__).parent))
from running import close, example, steps

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script.:FutureWarning")

STEPS = 50
DOUBLE = torch.float64


@pytest.fixture(params=[torch.float32, DOUBLE], ids=["float32 scalars", "float64 scalars"])
def default(request):
    """ASGD and NAdam keep numbers in torch's default dtype."""
    torch.set_default_dtype(request.param)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def double():
    torch.set_default_dtype(DOUBLE)
    yield
    torch.set_default_dtype(torch.float32)


# what is drawn

zero_or = lambda strategy: st.one_of(st.just(0.0), strategy)  # noqa: E731
RATE, DECAY, WEIGHT = st.floats(1e-4, 0.5), zero_or(st.floats(0.0, 0.999)), zero_or(st.floats(1e-4, 0.1))
BETAS, EPS = st.tuples(DECAY, DECAY), st.floats(1e-10, 1e-2)
ADJUSTMENTS = ("original", "match_rms_adamw", "spectral_unclamped")


def torch_adjusts(how):
    """Whether this torch knows a way to adjust Muon's rate: 2.11 lacks one."""
    try:
        torch.optim.Muon([torch.nn.Parameter(torch.eye(2))], adjust_lr_fn=how)
    except ValueError:
        return False
    return True


COMMON = {"lr": RATE, "maximize": st.booleans()}
DRAWN = {
    "ASGD": {
        **COMMON,
        "lambd": st.floats(0, 0.1),
        "alpha": st.floats(0, 1),
        "t0": st.floats(0, 60),
        "weight_decay": WEIGHT,
    },
    "Adadelta": {**COMMON, "rho": DECAY, "eps": EPS, "weight_decay": WEIGHT},
    "Adafactor": {
        **COMMON,
        "beta2_decay": st.floats(-1, 0),
        "eps": st.tuples(st.one_of(st.none(), st.floats(0, 1e-3)), st.floats(0, 1e-2)),
        "d": st.floats(1, 3),
        "weight_decay": WEIGHT,
    },
    "Adagrad": {
        **COMMON,
        "lr_decay": st.floats(0, 0.1),
        "weight_decay": WEIGHT,
        "initial_accumulator_value": st.floats(0, 1),
        "eps": EPS,
    },
    "Adam": {
        **COMMON,
        "betas": BETAS,
        "eps": EPS,
        "weight_decay": WEIGHT,
        "amsgrad": st.booleans(),
        "decoupled_weight_decay": st.booleans(),
    },
    "AdamW": {**COMMON, "betas": BETAS, "eps": EPS, "weight_decay": WEIGHT, "amsgrad": st.booleans()},
    "Adamax": {**COMMON, "betas": BETAS, "eps": EPS, "weight_decay": WEIGHT},
    "Muon": {
        "lr": RATE,
        "weight_decay": WEIGHT,
        "momentum": DECAY,
        "nesterov": st.booleans(),
        "ns_steps": st.integers(1, 6),
        "eps": st.floats(1e-8, 1e-3),
        "adjust_lr_fn": st.sampled_from([None, *filter(torch_adjusts, ADJUSTMENTS)]),
    },
    "NAdam": {
        **COMMON,
        "betas": BETAS,
        "eps": EPS,
        "weight_decay": WEIGHT,
        "momentum_decay": st.floats(0, 0.1),
        "decoupled_weight_decay": st.booleans(),
    },
    "RAdam": {**COMMON, "betas": BETAS, "eps": EPS, "weight_decay": WEIGHT, "decoupled_weight_decay": st.booleans()},
    "RMSprop": {
        **COMMON,
        # At 0 the centered variance is a difference of equals: noise of either sign, and a NaN in torch.
        "alpha": st.floats(0.1, 0.999),
        "eps": EPS,
        "weight_decay": WEIGHT,
        "momentum": DECAY,
        "centered": st.booleans(),
    },
    "Rprop": {
        **COMMON,
        "etas": st.tuples(st.floats(0.1, 0.9), st.floats(1.01, 2)),
        "step_sizes": st.tuples(st.floats(1e-6, 1e-3), st.floats(0.1, 50)),
    },
    "SGD": {
        **COMMON,
        "momentum": DECAY,
        "dampening": DECAY,
        "weight_decay": WEIGHT,
        "nesterov": st.booleans(),
    },
    "SparseAdam": {**COMMON, "betas": BETAS, "eps": EPS},
    "LBFGS": {
        "lr": st.floats(0.01, 0.3),
        "max_iter": st.integers(1, 6),
        "max_eval": st.one_of(st.none(), st.integers(1, 9)),
        "history_size": st.integers(1, 5),
        "tolerance_grad": st.sampled_from([1e-7, 1e-3]),
        "tolerance_change": st.sampled_from([1e-9, 1e-4]),
        "line_search_fn": st.sampled_from([None, "strong_wolfe"]),
        "maximize": st.booleans(),
    },
}


def drawn_arguments(data, name):
    chosen = {key: data.draw(strategy, label=key) for key, strategy in DRAWN[name].items()}
    known = inspect.signature(getattr(torch.optim, name)).parameters  # an older torch has fewer
    chosen = {key: value for key, value in chosen.items() if key in known}
    if name == "SGD" and chosen["nesterov"]:
        chosen |= {"dampening": 0.0, "momentum": chosen["momentum"] or 0.9}
    return chosen


def test_every_class_is_there():
    classes = {
        name
        for name, value in vars(torch.optim).items()
        if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
    }
    assert set(_RULES) == set(DRAWN) == classes


# what they work on


def only(name, value):
    """The leaves of an example that a rule can take: Muon's matrices, and rows for SparseAdam."""
    if name == "Muon":
        return {"wide": value["a"], "tall": value["a"].mT + 0.1}
    return {"a": value["a"], "c": value["b"]["c"]} if name == "SparseAdam" else value


def problem(name, seed, count=STEPS, dtype=DOUBLE):
    params = only(name, example(seed, dtype))
    gradients = [only(name, example(seed + 1 + step, dtype)) for step in range(count)]
    if name == "SparseAdam":
        gradients = [
            tree.map(
                lambda g, step=step: (
                    g * (random.uniform(random.key(step), g.shape[:1]) < 0.6).to(g).view(-1, *[1] * (g.ndim - 1))
                ),
                g,
            )
            for step, g in enumerate(gradients)
        ]
    return params, gradients


def uneven(params):
    """A loss with its minimum inside, and curvatures from 1 to 10; and minus it, with a maximum, for `maximize`."""
    x = tree.ravel(params)[0]
    curvature = torch.linspace(1, 10, len(x), dtype=x.dtype)
    return 0.5 * (curvature * (x - 0.3).square()).sum() + torch.log(torch.cosh(x)).sum()


def run(name, rule, params, gradients, state=None, loss=uneven):
    """`steps`, for LBFGS with gradients of its own."""
    if name != "LBFGS":
        return steps(rule, params, gradients, state)
    state = rule.init(params) if state is None else state
    for _ in gradients:
        updates, state = rule.update(grad(loss)(params), state, params, value_fn=loss)
        params = optim.apply_updates(params, updates)
    return params, state


def torch_run(name, kwargs, params, gradients, loss=uneven):
    leaves = [torch.nn.Parameter(leaf.clone()) for leaf in tree.leaves(params)]
    optimizer = getattr(torch.optim, name)(leaves, **kwargs)

    def closure():
        optimizer.zero_grad()
        value = loss(tree.unflatten(tree.structure(params), leaves))
        value.backward()
        return value

    for gradient in gradients:
        if name == "LBFGS":
            optimizer.step(closure)
            continue
        for leaf, g in zip(leaves, tree.leaves(gradient), strict=True):
            leaf.grad = g.to_sparse(1) if name == "SparseAdam" else g.clone()
        optimizer.step()
    moved = tree.unflatten(tree.structure(params), [leaf.detach() for leaf in leaves])
    return moved, [optimizer.state[leaf] for leaf in leaves]


def assert_states_agree(state, theirs):
    """Fields of torch's names have torch's values."""
    for field in state._fields:
        ours = tree.leaves(getattr(state, field))
        for got, their in zip(ours, theirs, strict=False):
            if field in their and torch.is_tensor(their[field]) and got.ndim == their[field].ndim:
                torch.testing.assert_close(got.to(DOUBLE), their[field].to(DOUBLE), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", DRAWN)
@settings(max_examples=8, phases=[Phase.generate], deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**20))
def test_fifty_steps_equal_torch_optim(name, data, seed):
    kwargs = drawn_arguments(data, name)
    compare(name, kwargs, seed)


def compare(name, kwargs, seed, rtol=1e-9):
    sign = -1 if kwargs.get("maximize") else 1
    params, gradients = problem(name, seed)
    loss = lambda p: sign * uneven(p)  # noqa: E731
    got, state = run(name, optim.from_torch(name, **kwargs), params, gradients, loss=loss)
    want, theirs = torch_run(name, kwargs, params, gradients, loss)
    for (path, g), w in zip(tree.leaves_with_path(got), tree.leaves(want), strict=True):
        torch.testing.assert_close(
            g, w, rtol=rtol, atol=rtol * max(1e-2, w.abs().max().item()), msg=lambda m, p=path: f"{p}: {m}"
        )
    if name == "LBFGS":
        assert state.func_evals == theirs[0]["func_evals"]
        assert state.memory.n_iter == theirs[0]["n_iter"]
    else:
        assert_states_agree(state, theirs)


@pytest.mark.usefixtures("default")
@pytest.mark.parametrize("name", DRAWN)
def test_defaults_equal_torch_optim(name):
    compare(name, {}, seed=7)


@pytest.mark.usefixtures("default")
@pytest.mark.parametrize("name", ["ASGD", "NAdam"])
def test_numbers_in_the_state_are_rounded_as_torch_rounds_them(name):
    kwargs = {"ASGD": {"lr": 0.3, "lambd": 0.1, "t0": 5}, "NAdam": {"lr": 0.3, "momentum_decay": 0.1}}[name]
    compare(name, kwargs, seed=3, rtol=1e-12)


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs_in_a_curved_valley_equals_torch(search):
    def rosenbrock(params):
        x, y = params["x"], params["y"]
        return (1 - x) ** 2 + 100 * (y - x**2) ** 2

    params = {"x": torch.tensor(-1.2, dtype=DOUBLE), "y": torch.tensor(1.0, dtype=DOUBLE)}
    kwargs = {"line_search_fn": search, "max_iter": 5, "lr": 1 if search else 1e-3}
    got, state = run("LBFGS", optim.from_torch("LBFGS", **kwargs), params, range(25), loss=rosenbrock)
    want, theirs = torch_run("LBFGS", kwargs, params, range(25), rosenbrock)
    close(got, want, rtol=1e-9, atol=1e-9)
    assert state.func_evals == theirs[0]["func_evals"]
    if search:
        assert rosenbrock(got) < 1e-8  # where both stop: a step changed the loss by less than 1e-9


COMPLEX = [name for name in DRAWN if name not in ("Adafactor", "Muon", "SparseAdam")]


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_parameters_equal_torch_optim(name):
    def pairs(seed):
        drawn = random.normal(random.key(seed), (3, 2, 2), dtype=DOUBLE)
        return {"w": torch.view_as_complex(drawn), "b": drawn[0, 0]}

    def loss(params):
        return (params["w"] - (0.3 + 0.2j)).abs().square().sum() + params["b"].cosh().sum()

    params, gradients = pairs(0), [pairs(step) for step in range(1, 9)]
    kwargs = {"Adam": {"amsgrad": True}, "RMSprop": {"centered": True, "momentum": 0.5}}.get(name, {})
    kwargs = kwargs | ({"weight_decay": 0.1} if name not in ("Rprop", "LBFGS", "Adam") else {})
    got, _ = run(name, optim.from_torch(name, **kwargs), params, gradients, loss=loss)
    want, _ = torch_run(name, kwargs, params, gradients, loss)
    close(got, want, rtol=1e-9, atol=1e-11)


def test_a_schedule_is_a_learning_rate_set_before_each_step():
    params, gradients = problem("Adam", 0, 6)
    schedule = optim.cosine_decay_schedule(0.1, 10)
    torch.set_default_dtype(DOUBLE)
    try:
        for name in set(DRAWN) - {"LBFGS", "Muon", "SparseAdam"}:
            leaves = [torch.nn.Parameter(leaf.clone()) for leaf in tree.leaves(params)]
            optimizer = getattr(torch.optim, name)(leaves)
            for step, gradient in enumerate(gradients):
                optimizer.param_groups[0]["lr"] = float(schedule(torch.tensor(step)))
                for leaf, g in zip(leaves, tree.leaves(gradient), strict=True):
                    leaf.grad = g.clone()
                optimizer.step()
            got, _ = steps(optim.from_torch(name, lr=schedule), params, gradients)
            for g, leaf in zip(tree.leaves(got), leaves, strict=True):
                torch.testing.assert_close(
                    g, leaf.detach(), rtol=1e-9, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}"
                )
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # torch 2.11 warns of its own clone
def test_sparse_gradients_touch_what_they_hold():
    table = random.normal(random.key(0), (4, 3), dtype=DOUBLE)
    values = random.normal(random.key(1), (3, 3), dtype=DOUBLE)
    values = torch.cat([values[:2], torch.zeros_like(values[:1]), values[2:]])  # one held row is zero, one comes twice
    held = torch.sparse_coo_tensor(torch.tensor([[1, 3, 0, 3]]), values, (4, 3), check_invariants=True)
    leaf = torch.nn.Parameter(table.clone())
    theirs = torch.optim.SparseAdam([leaf], lr=0.1)
    rule = optim.from_torch("SparseAdam", lr=0.1)
    params, state = {"w": table}, rule.init({"w": table})
    for gradient in (torch.ones(4, 3, dtype=DOUBLE).to_sparse(1), held):
        leaf.grad = gradient.clone()
        theirs.step()
        updates, state = rule.update({"w": gradient}, state, params)
        params = optim.apply_updates(params, updates)
    torch.testing.assert_close(params["w"], leaf.detach(), rtol=1e-12, atol=1e-14)
    assert not updates["w"][2].any()
    assert updates["w"][0].all()  # a zero that is held moves on by its momentum


# contracts

WAYS = [
    *((name, {}) for name in DRAWN),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1, "maximize": True}),
    ("RMSprop", {"centered": True, "momentum": 0.9, "weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9, "dampening": 0.5}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {"betas": (0.8, 0.9), "weight_decay": 0.1}),
    ("LBFGS", {"max_iter": 3, "history_size": 2, "line_search_fn": "strong_wolfe"}),
]
SHORT = {"max_iter": 2, "history_size": 2}


def built(name, kwargs, **overrides):
    return optim.from_torch(name, **({**SHORT, **kwargs} if name == "LBFGS" else kwargs) | overrides)


def over(ways):
    return pytest.mark.parametrize(("name", "kwargs"), ways, ids=str)


every = over(WAYS)


def updated(name, rule, gradient, state, params):
    return rule.update(gradient, state, params, **({"value_fn": uneven} if name == "LBFGS" else {}))


@every
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE, torch.bfloat16])
def test_keeps_dtypes_shapes_and_arguments(name, kwargs, dtype):
    rule = built(name, kwargs)
    params, gradients = problem(name, 0, 3, dtype)
    state = rule.init(params)
    pointers = [leaf.untyped_storage().data_ptr() for leaf in tree.leaves((params, state))]
    assert len(set(pointers)) == len(pointers)
    _, state = updated(name, rule, gradients[0], state, params)
    given = tree.leaves((params, gradients, state))
    before, versions = [leaf.clone() for leaf in given], [leaf._version for leaf in given]
    updates, after = updated(name, rule, gradients[1], state, params)
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))
    assert [leaf._version for leaf in given] == versions
    tree.check_like(updates, params, dtype=True)
    tree.check_like(after, state, dtype=True)
    for path, leaf in tree.leaves_with_path(after):
        assert isinstance(leaf, torch.Tensor), path
        assert leaf.dtype in (torch.int32, torch.float32, dtype if dtype == DOUBLE else torch.float32), path
    close(updated(name, rule, gradients[1], pickle.loads(pickle.dumps(state)), params)[0], updates, rtol=0, atol=0)


@every
def test_vmap_over_members_and_rates_equals_a_loop(name, kwargs):
    problems = [problem(name, seed, 2) for seed in (0, 10, 20)]
    rates = torch.tensor([0.05, 0.01, 0.002], dtype=DOUBLE)

    def one(rate, params, gradients):
        return run(name, built(name, kwargs, lr=rate), params, gradients)[0]

    want = tree.stack([one(rate.item(), *each) for rate, each in zip(rates, problems, strict=True)])
    got = vmap(one)(rates, tree.stack([p for p, _ in problems]), tree.stack([g for _, g in problems]))
    # Under vmap torch rounds the products of Muon's bfloat16 matrices once more: 2**-8, in each of five turns.
    close(got, want, **({"rtol": 0, "atol": 1e-2} if name == "Muon" else {"rtol": 1e-9, "atol": 1e-11}))


@pytest.mark.usefixtures("double")
@every
def test_gradient_through_two_steps_is_the_slope(name, kwargs):
    params, gradients = problem(name, 0, 2)

    def end(rate, start, given):
        moved, _ = run(name, built(name, kwargs, lr=rate), start, given)
        return tree.ravel(moved)[0].sin().sum()

    rate, tiny = torch.tensor(0.05), 1e-6
    slope = grad(end)(rate, params, gradients)
    numeric = (end(rate + tiny, params, gradients) - end(rate - tiny, params, gradients)) / (2 * tiny)
    torch.testing.assert_close(slope, numeric, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(jvp(lambda r: end(r, params, gradients), (rate,), (torch.ones(()),))[1], slope)
    if name == "Muon":
        return  # in bfloat16: the numbers are steps, the derivative is that of the exact operations
    start, unravel = tree.ravel((params, gradients))
    whole = lambda v: end(0.05, *unravel(v))  # noqa: E731
    # SparseAdam holds no row that is zero; a direction that kept them zero would be another choice of rows.
    direction = torch.linspace(-1, 1, len(start)) * (start != 0)
    slope = grad(whole)(start) @ direction
    numeric = (whole(start + tiny * direction) - whole(start - tiny * direction)) / (2 * tiny)
    torch.testing.assert_close(slope, numeric, rtol=1e-5, atol=1e-8)


def test_gradients_are_finite_where_the_given_ones_are_zero():
    params = only("SparseAdam", example())
    for name in set(DRAWN) - {"LBFGS", "Muon"}:

        def end(g, p, name=name):
            return tree.ravel(steps(optim.from_torch(name), p, [g, g])[0])[0].sum()

        slopes = grad(end, (0, 1))(tree.zeros_like(params), params)
        assert all(torch.isfinite(leaf).all() for leaf in tree.leaves(slopes)), name


@over([way for way in WAYS if not way[1].get("line_search_fn")])  # which takes half a minute: below
def test_compiled_equals_eager(name, kwargs):
    rule = built(name, kwargs)
    params, gradients = problem(name, 0, 3)
    compiled = jit(lambda g, s, p: updated(name, rule, g, s, p), backend="aot_eager")
    got = want = rule.init(params)
    for gradient in gradients:
        updates, got = compiled(gradient, got, params)
        expected, want = updated(name, rule, gradient, want, params)
        close(updates, expected, rtol=1e-9, atol=1e-11)
    assert compiled.compiles == 1


@pytest.mark.slow
def test_the_line_search_compiles():
    rule = optim.from_torch("LBFGS", max_iter=3, history_size=2, line_search_fn="strong_wolfe")
    params, _ = problem("LBFGS", 0, 0)
    compiled = jit(lambda s, p: rule.update(grad(uneven)(p), s, p, value_fn=uneven), backend="aot_eager")
    state = rule.init(params)
    close(compiled(state, params), rule.update(grad(uneven)(params), state, params, value_fn=uneven))


@over([way for way in WAYS if way[0] != "LBFGS"])  # whose loop ends where the values say: make_fx cannot follow
def test_traces_to_the_same_values(name, kwargs):
    rule = built(name, kwargs)
    params, gradients = problem(name, 0, 2)
    state = steps(rule, params, gradients[:1])[1]
    graph = make_fx(lambda g, p: rule.update(g, state, p)[0])(gradients[1], params)
    assert not [node for node in graph.graph.nodes if "fused" in str(node.target) or "foreach" in str(node.target)]
    close(graph(gradients[1], params), rule.update(gradients[1], state, params)[0], rtol=1e-12, atol=1e-14)


@every
def test_scans(name, kwargs):
    rule = built(name, kwargs)
    params, gradients = problem(name, 0, 4)

    def step(carry, gradient):
        params, state = carry
        updates, state = updated(name, rule, gradient, state, params)
        return (optim.apply_updates(params, updates), state), None

    (got, _), _ = scan(step, (params, rule.init(params)), tree.stack(gradients))
    carry = params, rule.init(params)
    for gradient in gradients:
        carry, _ = step(carry, gradient)
    close(got, carry[0], rtol=1e-12, atol=1e-14)


def test_every_number_may_be_a_tensor():
    numbers = {
        "ASGD": {"lambd": 0.1, "alpha": 0.5, "t0": 1.0, "weight_decay": 0.1},
        "Adadelta": {"rho": 0.8, "eps": 1e-4, "weight_decay": 0.1},
        "Adafactor": {"beta2_decay": -0.5, "d": 1.5, "weight_decay": 0.1, "eps": (1e-6, 1e-2)},
        "Adagrad": {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-4},
        "Adam": {"betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.1},
        "AdamW": {"betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.1},
        "Adamax": {"betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.1},
        "Muon": {"momentum": 0.9, "weight_decay": 0.1},
        "NAdam": {"betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.1, "momentum_decay": 0.1},
        "RAdam": {"betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.1},
        "RMSprop": {"alpha": 0.9, "eps": 1e-4, "weight_decay": 0.1, "momentum": 0.5},
        "Rprop": {"etas": (0.4, 1.3), "step_sizes": (1e-5, 1.0)},
        "SGD": {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
        "SparseAdam": {"betas": (0.8, 0.9), "eps": 1e-4},
        "LBFGS": {"tolerance_grad": 1e-6, "tolerance_change": 1e-8},
    }
    as_tensor = lambda value: torch.tensor(value, dtype=DOUBLE)  # noqa: E731
    for name, kwargs in numbers.items():
        params, gradients = problem(name, 0, 3)
        tensors = {k: tuple(map(as_tensor, v)) if isinstance(v, tuple) else as_tensor(v) for k, v in kwargs.items()}
        got = run(name, built(name, tensors, lr=as_tensor(0.1)), params, gradients)[0]
        close(got, run(name, built(name, kwargs, lr=0.1), params, gradients)[0], rtol=1e-9, atol=1e-11)


# arguments


def test_arguments_are_those_of_torch():
    for name, rule in _RULES.items():
        known = set(inspect.signature(getattr(torch.optim, name)).parameters)
        ours = set(inspect.signature(rule).parameters)
        how = {"params", "foreach", "capturable", "differentiable", "fused"}
        assert known - how <= ours, name


def test_takes_the_class_and_the_flags_that_change_no_number():
    params, gradients = problem("Adam", 0, 3)
    want = steps(optim.from_torch("Adam", lr=0.1), params, gradients)
    flags = {"foreach": False, "fused": None, "capturable": True, "differentiable": True}
    close(steps(optim.from_torch(torch.optim.Adam, lr=0.1, **flags), params, gradients), want, rtol=0, atol=0)


class Own(torch.optim.Adam):
    pass


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("adam", "there is no 'adam' in torch.optim .*: did you mean 'Adam'. It has ASGD, "),
        ("Lamb", "there is no 'Lamb' .*LBFGS"),
        ("Optimizer", "there is no 'Optimizer'"),
        ("lr_scheduler", "there is no 'lr_scheduler'"),
        (Own, "there is no <class .*Own"),
    ],
)
def test_unknown_optimizers(name, says):
    with pytest.raises(ValueError, match=says):
        optim.from_torch(name)


@pytest.mark.parametrize(
    ("name", "kwargs", "says"),
    [
        ("Adam", {"learning_rate": 0.1}, r"torch.optim.Adam has no argument 'learning_rate': it takes lr, betas, eps"),
        ("Adam", {"params": []}, "no argument 'params'.* go to init and update"),
        ("LBFGS", {"fused": True}, "torch.optim.LBFGS has no argument 'fused'"),
        ("SGD", {"lr": "0.1"}, "lr is a str"),
        ("SGD", {"momentum": None}, "momentum is a NoneType"),
    ],
)
def test_unknown_arguments_and_types(name, kwargs, says):
    with pytest.raises(TypeError, match=says):
        optim.from_torch(name, **kwargs)


@pytest.mark.parametrize(
    ("name", "kwargs", "says"),
    [
        ("Adam", {"lr": -1.0}, "lr is -1.0"),
        ("Adam", {"lr": torch.ones(2)}, "lr has shape"),
        ("Adam", {"betas": (0.9, 1.0)}, r"betas\[1\] is 1.0"),
        ("Adam", {"betas": 0.9}, "betas is 0.9, where two values are taken"),
        ("Adam", {"eps": -1e-8}, "eps is -1e-08"),
        ("AdamW", {"weight_decay": -0.1}, "weight_decay is -0.1"),
        ("SGD", {"nesterov": True}, "nesterov=True needs momentum > 0 and dampening=0"),
        ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov=True needs"),
        ("SGD", {"momentum": float("nan")}, "momentum is nan"),
        ("Adadelta", {"rho": 1.5}, "rho is 1.5"),
        ("Adafactor", {"beta2_decay": 0.8}, "beta2_decay is 0.8"),
        ("Adafactor", {"d": 0.5}, "d is 0.5"),
        ("Adafactor", {"eps": (-1.0, 1.0)}, r"eps\[0\] is -1.0"),
        ("Rprop", {"etas": (1.2, 0.5)}, "etas is"),
        ("Rprop", {"step_sizes": 0.1}, "step_sizes is 0.1, where two values are taken"),
        ("Muon", {"adjust_lr_fn": "mine"}, "adjust_lr_fn is 'mine', and torch.optim knows original"),
        ("Muon", {"ns_steps": 100}, "ns_steps is 100"),
        ("Muon", {"ns_coefficients": (1.0, 2.0)}, "ns_coefficients is"),
        ("LBFGS", {"line_search_fn": "armijo"}, "line_search_fn is 'armijo': torch.optim has 'strong_wolfe'"),
        ("LBFGS", {"history_size": 0}, "history_size is 0"),
        ("LBFGS", {"max_eval": 1.5}, "max_eval is 1.5"),
    ],
)
def test_values_that_torch_refuses(name, kwargs, says):
    with pytest.raises(ValueError, match=says):
        optim.from_torch(name, **kwargs)


def test_missing_parameters_and_functions():
    params = example()
    for name in set(DRAWN) - {"Muon"}:
        rule = optim.from_torch(name)
        with pytest.raises(ValueError, match=r"from_torch.* needs the parameters"):
            rule.update(example(1), rule.init(params))
    rule = optim.from_torch("LBFGS")
    with pytest.raises(
        ValueError, match=r"needs value_fn: write optimizer.update\(grads, state, params, value_fn=loss"
    ):
        rule.update(example(1), rule.init(params), params)


def test_trees_that_do_not_fit():
    with pytest.raises(ValueError, match=r"Muon takes matrices, and 'b\.c' has shape"):
        optim.from_torch("Muon").init(example())
    for name in ("Adafactor", "SparseAdam"):
        with pytest.raises(ValueError, match="'w' is complex"):
            optim.from_torch(name).init({"w": torch.ones(2, 2) + 0j})
    for name in ("Adam", "Adafactor", "LBFGS"):
        rule, params = optim.from_torch(name), example()
        wrong = {"a": params["a"].mT, "b": params["b"]}
        with pytest.raises(tree.TreeMismatchError, match="'a' has shape"):
            rule.update(wrong, rule.init(params), params, value_fn=uneven)


def test_an_update_equals_the_class_in_every_eager_form(monkeypatch):
    params, gradients = problem("Adam", 0, 5)
    quick = {name: steps(optim.from_torch(name), params, gradients)[0] for name in COMPLEX if name != "LBFGS"}
    monkeypatch.setattr(optim.fast, "usable", lambda *columns: False)
    for name, moved in quick.items():
        close(steps(optim.from_torch(name), params, gradients)[0], moved, rtol=1e-12, atol=1e-14)


def test_composes_with_chains_partitions_and_accumulation():
    params, gradients = problem("Adam", 0, 4)
    rule = optim.partition(
        {"muon": optim.from_torch("Muon"), "rest": optim.from_torch("AdamW", amsgrad=True)},
        {"a": "muon", "b": {"c": "rest", "d": "rest"}},
    )
    got, _ = steps(rule, params, gradients)
    alone, _ = steps(optim.from_torch("Muon"), {"a": params["a"]}, [{"a": g["a"]} for g in gradients])
    rest, _ = steps(optim.from_torch("AdamW", amsgrad=True), params["b"], [g["b"] for g in gradients])
    close(got, {**alone, "b": rest}, rtol=1e-12, atol=1e-14)

    twice, _ = steps(optim.multi_steps(optim.from_torch("Adam"), 2), params, [g for g in gradients for _ in (0, 1)])
    close(twice, steps(optim.from_torch("Adam"), params, gradients)[0], rtol=1e-9, atol=1e-12)

    chained = optim.chain(optim.clip_by_global_norm(1e9), optim.from_torch("LBFGS", max_iter=3))
    updates, _ = chained.update(grad(uneven)(params), chained.init(params), params, value_fn=uneven)
    lbfgs = optim.from_torch("LBFGS", max_iter=3)
    known = {"value_fn": uneven, "value": uneven(params)}
    close(updates, lbfgs.update(grad(uneven)(params), lbfgs.init(params), params, **known)[0])
