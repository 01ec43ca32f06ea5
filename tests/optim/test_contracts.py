"""What every transformation promises: see `funcnet.optim.base`."""

import sys
from pathlib import Path

import pytest
import torch
from torch.func import grad, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from funcnet import jit, optim, tree
from funcnet.optim import fast

sys.path.insert(0, str(Path(__file__).parent))
from registry import LINKS, OPTIMIZERS, SCHEDULES, Case

# torch.func.jvp scripts its decompositions on the first call
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script.:FutureWarning")
every = pytest.mark.parametrize("case", OPTIMIZERS + LINKS, ids=str)
optimizers = pytest.mark.parametrize("case", OPTIMIZERS, ids=str)


def example(seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=g).to(dtype)

    return {"a": draw(2, 3), "b": {"c": draw(3), "d": draw()}}


def steps(rule, params, gradients, state=None):
    state = rule.init(params) if state is None else state
    for gradient in gradients:
        updates, state = rule.update(gradient, state, params)
        params = optim.apply_updates(params, updates)
    return params, state


def close(got, want, **tolerances):
    tree.check_like(got, want, dtype=True)
    for (path, g), w in zip(tree.leaves_with_path(got), tree.leaves(want), strict=True):
        torch.testing.assert_close(g, w, msg=lambda text, path=path: f"{path}: {text}", **tolerances)


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.setattr(fast, "usable", lambda *columns: False)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_keeps_dtypes_shapes_and_structure(case, dtype):
    rule, params = case.build(optim), example(dtype=dtype)
    state = rule.init(params)
    updates, after = rule.update(example(1, dtype), state, params)
    tree.check_like(updates, params, dtype=True)
    tree.check_like(after, state, dtype=True)
    assert tree.structure(after) == tree.structure(state)
    tree.check_like(optim.apply_updates(params, updates), params, dtype=True)
    for path, leaf in tree.leaves_with_path(state):
        integral = path.endswith("count")
        assert leaf.dtype == (torch.int32 if integral else torch.promote_types(dtype, torch.float32)), path


@every
def test_changes_nothing_it_was_given(case):
    rule, params, gradient = case.build(optim), example(), example(1)
    _, state = steps(rule, params, [example(2)])
    before = [leaf.clone() for leaf in tree.leaves((params, gradient, state))]
    versions = [leaf._version for leaf in tree.leaves((params, gradient, state))]
    rng = torch.get_rng_state()
    updates, _ = rule.update(gradient, state, params)
    optim.apply_updates(params, updates)
    again, _ = rule.update(gradient, state, params)
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves((params, gradient, state)), before, strict=True))
    assert [leaf._version for leaf in tree.leaves((params, gradient, state))] == versions
    assert torch.equal(torch.get_rng_state(), rng)
    close(again, updates, rtol=0, atol=0)
    # in-place changes of what came out must not reach what went in
    if case.name not in ("identity", "clip_by_global_norm", "add_decayed_weights"):
        owned = {leaf.untyped_storage().data_ptr() for leaf in tree.leaves((params, gradient, state))}
        fresh = {leaf.untyped_storage().data_ptr() for leaf in tree.leaves(updates)}
        assert not owned & fresh


@every
def test_init_never_aliases(case):
    params = example()
    state = case.build(optim).init(params)
    pointers = [leaf.untyped_storage().data_ptr() for leaf in tree.leaves((params, state))]
    assert len(set(pointers)) == len(pointers)


@every
def test_vmap_over_parameters_equals_a_loop(case):
    members = [example(i) for i in range(3)]
    gradients = [[example(10 * i + j) for j in range(2)] for i in range(3)]
    rule = case.build(optim)
    want = tree.stack([steps(rule, p, g)[0] for p, g in zip(members, gradients, strict=True)])
    got = vmap(lambda p, g: steps(rule, p, g)[0])(tree.stack(members), tree.stack(gradients))
    close(got, want)


@optimizers
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_vmap_over_learning_rates_equals_a_loop(case, dtype):
    params, gradients = example(dtype=dtype), [example(1, dtype), example(2, dtype)]
    rates = torch.tensor([0.5, 0.1, 0.01])

    def run(rate):
        return steps(case.build(optim, learning_rate=rate), params, gradients)[0]

    tolerances = {"rtol": 2e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {}
    close(vmap(run)(rates), tree.stack([run(rate.item()) for rate in rates]), **tolerances)


@optimizers
def test_gradient_through_two_steps_is_the_slope(case):
    params, gradients = example(dtype=torch.float64), [example(1, torch.float64), example(2, torch.float64)]

    def loss(rate):
        moved, _ = steps(case.build(optim, learning_rate=rate), params, gradients)
        return tree.ravel(moved)[0].square().sum()

    rate, tiny = torch.tensor(0.1, dtype=torch.float64), 1e-6
    slope = grad(loss)(rate)
    torch.testing.assert_close(slope, (loss(rate + tiny) - loss(rate - tiny)) / (2 * tiny), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(jvp(loss, (rate,), (torch.ones_like(rate),))[1], slope)
    leaf = rate.clone().requires_grad_()  # plain autograd, without torch.func
    torch.testing.assert_close(torch.autograd.grad(loss(leaf), leaf)[0], slope)


@every
def test_gradient_through_the_gradients(case):
    params, gradient = example(dtype=torch.float64), example(1, torch.float64)
    vector, unravel = tree.ravel(gradient)
    rule = case.build(optim)

    def loss(v):
        return tree.ravel(steps(rule, params, [unravel(v), unravel(2 * v)])[0])[0].sin().sum()

    slope, direction = grad(loss)(vector), torch.linspace(-1, 1, len(vector), dtype=torch.float64)
    numeric = (loss(vector + 1e-6 * direction) - loss(vector - 1e-6 * direction)) / 2e-6
    torch.testing.assert_close(slope @ direction, numeric, rtol=1e-5, atol=1e-8)
    leaf = vector.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(loss(leaf), leaf)[0], slope)


@every
def test_traces_to_the_same_values(case):
    rule, params, gradient = case.build(optim), example(), example(1)
    state = steps(rule, params, [example(2)])[1]
    graph = make_fx(lambda g, p: rule.update(g, state, p)[0])(gradient, params)
    assert not [node for node in graph.graph.nodes if "fused" in str(node.target) or "foreach" in str(node.target)]
    close(graph(gradient, params), rule.update(gradient, state, params)[0])


@optimizers
def test_compiles_without_a_break(case):
    rule, params, gradient = case.build(optim), example(), example(1)
    state = rule.init(params)
    compiled = jit(lambda g, s, p: rule.update(g, s, p), backend="aot_eager")
    close(compiled(gradient, state, params)[0], rule.update(gradient, state, params)[0])


@optimizers
def test_converges_on_a_quadratic(case):
    target = example(5)
    overrides = {"weight_decay": 0.0} if case.name == "adamw" else {}
    if case.schedule:
        overrides["learning_rate"] = optim.cosine_decay_schedule(0.1, 300)
    rule = case.build(optim, **overrides)
    params = example(6)
    state = rule.init(params)

    def loss(p):
        return tree.global_norm(tree.map(lambda x, t: x - t, p, target)) ** 2

    start = loss(params)
    for _ in range(300):
        updates, state = rule.update(grad(loss)(params), state, params)
        params = optim.apply_updates(params, updates)
    assert loss(params) < 1e-3 * start


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", ["plain", "transposed", "expanded"])
def test_fast_forms_equal_the_reference(case, dtype, layout, monkeypatch):
    def shaped(value):
        if layout == "transposed":
            return value | {"a": value["a"].T.contiguous().T}
        return value | {"a": value["a"][:1].expand(2, 3)} if layout == "expanded" else value

    params, gradients = shaped(example(dtype=dtype)), [shaped(example(i, dtype)) for i in (1, 2, 3)]
    rule = case.build(optim)
    quick = steps(rule, params, gradients)
    monkeypatch.setattr(fast, "usable", lambda *columns: False)
    slow = steps(rule, params, gradients)
    tolerances = {"rtol": 2e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-6}
    if dtype == torch.float64:
        tolerances = {"rtol": 1e-7, "atol": 1e-9} if case.schedule else {"rtol": 1e-12, "atol": 1e-14}
    close(quick, slow, **tolerances)


def test_the_fused_kernel_is_used_where_it_may_be(monkeypatch):
    calls = []
    kernel = fast._compat.fused_adam
    monkeypatch.setattr(fast._compat, "fused_adam", lambda *a: calls.append(a) or kernel(*a))
    params, gradient = example(), example(1)

    def used(rule, p=params, g=gradient):
        calls.clear()
        rule.update(g, rule.init(p), p)
        return bool(calls)

    assert used(optim.adam(0.1))
    assert used(optim.adamw(optim.cosine_decay_schedule(0.1, 10)))
    assert used(optim.adamw(torch.tensor(0.1), mask={"a": True, "b": False}))
    assert used(optim.scale_by_adam(), example(dtype=torch.bfloat16), example(1, torch.bfloat16))
    assert not used(optim.adam(0.1, nesterov=True))
    assert not used(optim.adam(0.1, eps_root=1e-8))
    assert not used(optim.scale_by_adam(mu_dtype=torch.bfloat16))
    assert not used(optim.adam(0.1), {"w": torch.ones(2) + 0j}, {"w": torch.ones(2) + 1j})
    calls.clear()
    vmap(lambda p: optim.adam(0.1).update(p, optim.adam(0.1).init(p), p)[0])(tree.stack([params, params]))
    assert not calls


# against torch.optim, in double precision


def torch_steps(build, params, gradients):
    leaves = [torch.nn.Parameter(leaf.clone()) for leaf in tree.leaves(params)]
    optimizer = build(leaves)
    for gradient in gradients:
        for leaf, g in zip(leaves, tree.leaves(gradient), strict=True):
            leaf.grad = g.clone()
        optimizer.step()
    return tree.unflatten(tree.structure(params), [leaf.detach() for leaf in leaves])


@pytest.mark.parametrize("quick", [True, False], ids=["fast", "reference"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (optim.sgd(0.1), lambda p: torch.optim.SGD(p, 0.1)),
        (optim.sgd(0.1, 0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
        (optim.sgd(0.1, 0.9, nesterov=True), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True)),
        (optim.adam(0.1), lambda p: torch.optim.Adam(p, 0.1)),
        (optim.adam(0.1, 0.8, 0.9, 1e-4), lambda p: torch.optim.Adam(p, 0.1, (0.8, 0.9), 1e-4)),
        (optim.adamw(0.1, weight_decay=0.2), lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.2)),
    ],
    ids=["sgd", "momentum", "nesterov", "adam", "adam with arguments", "adamw"],
)
def test_equals_torch_optim(ours, theirs, quick, monkeypatch):
    if not quick:
        monkeypatch.setattr(fast, "usable", lambda *columns: False)
    params, gradients = example(dtype=torch.float64), [example(i, torch.float64) for i in range(1, 7)]
    want = torch_steps(theirs, params, gradients)
    close(steps(ours, params, gradients)[0], want, rtol=1e-12, atol=1e-13)


# particular rules


@pytest.mark.usefixtures("reference")
def test_bias_correction_is_exact_in_float32():
    # 1 - 0.999**t in float32 loses four digits at t = 1: the first update would be off by 3e-5
    rule, params = optim.scale_by_adam(eps=0.0), {"w": torch.ones(1)}
    updates, _ = rule.update({"w": torch.tensor([0.3])}, rule.init(params), params)
    torch.testing.assert_close(updates["w"], torch.ones(1), rtol=3e-7, atol=0)


def test_clipping_lets_small_updates_through_and_has_finite_gradients():
    rule = optim.clip_by_global_norm(1.0)
    small = {"w": torch.tensor([0.1, 0.2])}
    assert torch.equal(rule.update(small, optim.EmptyState(), None)[0]["w"], small["w"])

    def loss(w):
        return rule.update({"w": w}, optim.EmptyState(), None)[0]["w"].sum()

    assert torch.equal(grad(loss)(torch.zeros(2)), torch.ones(2))
    batch = torch.tensor([[0.1, 0.2], [3.0, 4.0], [0.0, 0.0]])
    got = vmap(lambda w: rule.update({"w": w}, optim.EmptyState(), None)[0]["w"])(batch)
    torch.testing.assert_close(got, torch.tensor([[0.1, 0.2], [0.6, 0.8], [0.0, 0.0]]))


def test_clipping_does_not_hide_a_nan():
    updates, _ = optim.clip_by_global_norm(1.0).update(
        {"w": torch.tensor([float("nan"), 1.0])}, optim.EmptyState(), None
    )
    assert updates["w"].isnan().all()


def test_moments_of_half_precision_parameters_are_float32_and_move():
    params = {"w": torch.ones(3, dtype=torch.bfloat16)}
    rule = optim.adam(1e-2)
    _, state = steps(rule, params, [{"w": torch.full((3,), 0.1, dtype=torch.bfloat16)}] * 50)
    assert state[0].nu["w"].dtype == torch.float32
    exact = 0.1001**2 * (1 - 0.999**50)  # bfloat16 would stop at the fourth step
    torch.testing.assert_close(state[0].nu["w"], torch.full((3,), exact), rtol=1e-2, atol=0)
    assert optim.adam(1e-2, mu_dtype=torch.bfloat16).init(params)[0].mu["w"].dtype == torch.bfloat16


def test_complex_parameters_descend():
    params = {"w": torch.tensor([3 + 4j])}
    state = optim.adam(0.1).init(params)
    assert state[0].nu["w"].dtype == torch.float32
    assert state[0].mu["w"].dtype == torch.complex64
    updates, _ = optim.adam(0.1).update(params, state, params)
    torch.testing.assert_close(updates["w"], -0.1 * params["w"] / 5)


def test_the_step_count_stops_at_the_largest_int32():
    rule = optim.scale_by_schedule(lambda count: 1.0)
    state = optim.ScaleByScheduleState(torch.tensor(2**31 - 1, dtype=torch.int32))
    assert rule.update({"w": torch.ones(1)}, state, None)[1].count.item() == 2**31 - 1


def test_the_first_update_uses_the_schedules_value_at_zero():
    seen = []
    rule = optim.sgd(lambda count: seen.append(count.item()) or 0.1)
    steps(rule, example(), [example(1)] * 3)
    assert seen == [0, 1, 2]


def test_weight_decay_takes_a_schedule():
    rule = optim.add_decayed_weights(lambda count: 0.1 * count)
    params = {"w": torch.ones(1)}
    first, state = rule.update({"w": torch.zeros(1)}, rule.init(params), params)
    second, _ = rule.update({"w": torch.zeros(1)}, state, params)
    assert (first["w"].item(), round(second["w"].item(), 6)) == (0.0, 0.1)


@pytest.mark.parametrize("case", SCHEDULES, ids=str)
def test_schedules_vmap_and_trace(case):
    schedule = case.build(optim)
    counts = torch.arange(14, dtype=torch.int32)
    want = torch.tensor([float(schedule(count)) for count in counts])
    torch.testing.assert_close(vmap(lambda c: torch.as_tensor(schedule(c)) + 0 * c)(counts), want)
    traced = make_fx(lambda c: torch.as_tensor(schedule(c)) + 0 * c)(counts[3])
    torch.testing.assert_close(traced(counts[3]), want[3])


def test_schedules_differentiate_in_their_values():
    slope = grad(lambda peak: optim.warmup_cosine_decay_schedule(0.0, peak, 2, 6)(torch.tensor(1)))(torch.tensor(3.0))
    assert slope.item() == 0.5


# errors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: optim.sgd(torch.ones(3)), ValueError, r"learning_rate has shape \(3,\).*vmap"),
        (lambda: optim.adam(0.1, b1=torch.ones(2)), ValueError, r"b1 has shape \(2,\)"),
        (lambda: optim.adam("fast"), TypeError, r"learning_rate is a str, not a number, a 0-dim tensor or a schedule"),
        (lambda: optim.adam(torch.nn.ReLU()), TypeError, r"learning_rate is a ReLU"),
        (lambda: optim.scale(None), TypeError, r"step_size is a NoneType"),
        (lambda: optim.cosine_decay_schedule(1.0, 0), ValueError, r"decay_steps=0, and needs at least 1"),
        (lambda: optim.warmup_cosine_decay_schedule(0.0, 1.0, 9, 9), ValueError, r"decay_steps=9 and warmup_steps=9"),
        (lambda: optim.join_schedules([lambda c: c], [1]), ValueError, r"1 schedules and 1 boundaries"),
        (
            lambda: steps(optim.sgd(lambda count: torch.ones(2)), example(), [example()]),
            ValueError,
            r"the value of the schedule step_size_fn has shape \(2,\)",
        ),
        (
            lambda: optim.sgd(0.1).update(example(), example(), optim.sgd(0.1).init(example())),
            ValueError,
            r"chain.update got a dict as state for 2 transformations.*update\(updates, state, params\)",
        ),
        (lambda: optim.adam(0.1).update({}, (), example()), ValueError, r"a tuple of 0 as state for 2"),
        (
            lambda: optim.apply_updates({"w": torch.ones(3)}, {"w": torch.ones(1)}),
            tree.TreeMismatchError,
            r"updates does not match params: 1 wrong shape.*would broadcast",
        ),
        (
            lambda: optim.apply_updates({"w": torch.ones(3)}, {"v": torch.ones(3)}),
            tree.TreeMismatchError,
            r"'w' is missing",
        ),
        (
            lambda: steps(optim.adam(0.1), example(), [example() | {"a": torch.ones(3)}]),
            tree.TreeMismatchError,
            r"updates does not match state\.mu",
        ),
        (
            lambda: steps(optim.sgd(0.1, 0.9), example(), [{"a": torch.ones(2, 3)}]),
            tree.TreeMismatchError,
            r"'b\.c' is missing",
        ),
        (
            lambda: optim.adamw(0.1, mask={"a": True}).init(example()),
            ValueError,
            r"mask does not fit the parameters at its root: it has the keys 'a', they have the keys 'a', 'b'",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        call()


def test_params_are_required():
    with pytest.raises(TypeError, match="params"):
        optim.sgd(0.1).update(example(), optim.sgd(0.1).init(example()))


def test_the_registry_builds_what_it_says():
    assert str(Case("sgd", {"learning_rate": 0.1})) == "sgd(learning_rate=0.1)"
    assert len({str(case) for case in OPTIMIZERS + LINKS + SCHEDULES}) == len(OPTIMIZERS + LINKS + SCHEDULES)
