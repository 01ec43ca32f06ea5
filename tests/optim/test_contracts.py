"""What every transformation promises (see `funcnet.optim.base`), for every entry of the registry."""

import pickle
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch.func import grad, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from funcnet import jit, optim, scan, tree
from funcnet.optim import fast

sys.path.insert(0, str(Path(__file__).parent))
from registry import LINKS, OPTIMIZERS
from running import close, example, steps

# torch.func.jvp scripts its decompositions on the first call
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script.:FutureWarning")


def entries(*lists, holds=None):
    cases = [case for cases in lists for case in cases if holds not in case.without]
    return pytest.mark.parametrize("case", cases, ids=str)


every = entries(OPTIMIZERS, LINKS)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_keeps_dtypes_shapes_and_structure(case, dtype):
    rule, params = case.build(optim), example(dtype=dtype)
    state = rule.init(params)
    updates, after = rule.update(example(1, dtype), state, params, **case.keywords(0))
    tree.check_like(updates, params, dtype=True)
    tree.check_like(after, state, dtype=True)
    assert tree.structure(after) == tree.structure(state)
    tree.check_like(optim.apply_updates(params, updates), params, dtype=True)
    for path, leaf in tree.leaves_with_path(state):
        assert isinstance(leaf, torch.Tensor), path
        if leaf.dtype.is_floating_point:
            assert leaf.dtype in (torch.float32, torch.promote_types(dtype, torch.float32)), path


@every
def test_changes_nothing_it_was_given(case):
    rule, params, gradient = case.build(optim), example(), example(1)
    _, state = steps(rule, params, [example(2)], case=case)
    given = tree.leaves((params, gradient, state))
    before, versions = [leaf.clone() for leaf in given], [leaf._version for leaf in given]
    updates, _ = rule.update(gradient, state, params, **case.keywords(1))
    optim.apply_updates(params, updates)
    optim.advance(rule, gradient, state, params, **case.keywords(1))
    again, _ = rule.update(gradient, state, params, **case.keywords(1))
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))
    assert [leaf._version for leaf in given] == versions
    close(again, updates, rtol=0, atol=0)


@every
def test_init_never_aliases(case):
    params = example()
    state = case.build(optim).init(params)
    pointers = [leaf.untyped_storage().data_ptr() for leaf in tree.leaves((params, state)) if leaf.numel()]
    assert len(set(pointers)) == len(pointers)


@every
def test_advance_is_update_and_apply(case):
    rule, params, gradient = case.build(optim), example(), example(1)
    state = rule.init(params)
    updates, want = rule.update(gradient, state, params, **case.keywords(0))
    moved, got = optim.advance(rule, gradient, state, params, **case.keywords(0))
    close(moved, optim.apply_updates(params, updates))
    close(got, want)


@every
def test_donated_steps_are_the_same(case):
    rule = case.build(optim)
    ways = []
    for donate in (False, True):
        params = example()
        state = rule.init(params)
        for step in range(3):
            gradient = example(1 + step)
            params, state = optim.advance(rule, gradient, state, params, donate=donate, **case.keywords(step))
            close(gradient, example(1 + step), rtol=0, atol=0)
        ways.append((params, state))
    close(*ways)


@every
def test_vmap_over_parameters_equals_a_loop(case):
    members = [example(i) for i in range(3)]
    gradients = [[example(10 * i + j) for j in range(2)] for i in range(3)]
    rule = case.build(optim)
    want = tree.stack([steps(rule, p, g, case=case)[0] for p, g in zip(members, gradients, strict=True)])
    got = vmap(lambda p, g: steps(rule, p, g, case=case)[0])(tree.stack(members), tree.stack(gradients))
    close(got, want)


@entries(OPTIMIZERS, holds="learning rate")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_vmap_over_learning_rates_equals_a_loop(case, dtype):
    params, gradients = example(dtype=dtype), [example(1, dtype), example(2, dtype)]
    rates = torch.tensor([0.5, 0.1, 0.01])

    def run(rate):
        return steps(case.build(optim, learning_rate=rate), params, gradients, case=case)[0]

    tolerances = {"rtol": 2e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {}
    close(vmap(run)(rates), tree.stack([run(rate.item()) for rate in rates]), **tolerances)


@entries([case for case in OPTIMIZERS if "learning rate" not in case.without], holds="smooth")
def test_gradient_through_two_steps_is_the_slope(case):
    params, gradients = example(dtype=torch.float64), [example(1, torch.float64), example(2, torch.float64)]

    def loss(rate):
        moved, _ = steps(case.build(optim, learning_rate=rate), params, gradients, case=case)
        return tree.ravel(moved)[0].square().sum()

    rate, tiny = torch.tensor(0.1, dtype=torch.float64), 1e-6
    slope = grad(loss)(rate)
    torch.testing.assert_close(slope, (loss(rate + tiny) - loss(rate - tiny)) / (2 * tiny), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(jvp(loss, (rate,), (torch.ones_like(rate),))[1], slope)
    leaf = rate.clone().requires_grad_()  # plain autograd, without torch.func
    torch.testing.assert_close(torch.autograd.grad(loss(leaf), leaf)[0], slope)


@entries(OPTIMIZERS, LINKS, holds="smooth")
def test_gradient_through_the_gradients_and_the_parameters(case):
    start, unravel = tree.ravel((example(1, torch.float64), example(dtype=torch.float64)))
    rule = case.build(optim)

    def loss(v):
        gradient, params = unravel(v)
        doubled = tree.map(lambda g: 2 * g, gradient)
        return tree.ravel(steps(rule, params, [gradient, doubled], case=case)[0])[0].sin().sum()

    slope, direction = grad(loss)(start), torch.linspace(-1, 1, len(start), dtype=torch.float64)
    numeric = (loss(start + 1e-6 * direction) - loss(start - 1e-6 * direction)) / 2e-6
    torch.testing.assert_close(slope @ direction, numeric, rtol=1e-5, atol=1e-8)
    leaf = start.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(loss(leaf), leaf)[0], slope)


@every
def test_traces_to_the_same_values_without_kernels_for_many(case):
    rule, params, gradient = case.build(optim), example(), example(1)
    state = steps(rule, params, [example(2)], case=case)[1]
    graph = make_fx(lambda g, p: rule.update(g, state, p, **case.keywords(1))[0])(gradient, params)
    assert not [node for node in graph.graph.nodes if "fused" in str(node.target) or "foreach" in str(node.target)]
    close(graph(gradient, params), rule.update(gradient, state, params, **case.keywords(1))[0])


@every
def test_compiles_once(case):
    rule, params = case.build(optim), example()
    compiled = jit(lambda g, s, p, k: rule.update(g, s, p, **k), backend="aot_eager")
    got = want = rule.init(params)
    for step in range(3):
        keywords = {name: torch.tensor(value) for name, value in case.keywords(step).items()}
        updates, got = compiled(example(step), got, params, keywords)
        expected, want = rule.update(example(step), want, params, **keywords)
        close(updates, expected, rtol=1e-5, atol=1e-6)
    assert compiled.compiles == 1


@every
def test_scans(case):
    rule, params = case.build(optim), example()
    gradients = [example(step) for step in range(4)]

    def step(carry, gradient):
        params, state = carry
        updates, state = rule.update(gradient, state, params, **case.keywords(0))
        return (optim.apply_updates(params, updates), state), None

    (got, _), _ = scan(step, (params, rule.init(params)), tree.stack(gradients))
    want, state = params, rule.init(params)
    for gradient in gradients:
        (want, state), _ = step((want, state), gradient)
    close(got, want)


@every
def test_states_survive_pickling_and_safetensors(case, tmp_path):
    rule, params = case.build(optim), example()
    _, state = steps(rule, params, [example(2)], case=case)
    want, _ = rule.update(example(3), state, params, **case.keywords(1))
    named = dict(tree.leaves_with_path(state))
    safetensors.torch.save_file({name: leaf.contiguous() for name, leaf in named.items()}, tmp_path / "state")
    loaded = safetensors.torch.load_file(tmp_path / "state")
    for again in (
        pickle.loads(pickle.dumps(state)),
        tree.unflatten(tree.structure(state), [loaded[name] for name in named]),
    ):
        close(rule.update(example(3), again, params, **case.keywords(1))[0], want, rtol=0, atol=0)


def parabola(params):
    target = example(5, tree.leaves(params)[0].dtype)
    return tree.global_norm(tree.map(lambda x, t: x - t, params, target)) ** 2


def rosenbrock(params):
    x, y = params["x"], params["y"]
    return (1 - x) ** 2 + (y - x**2) ** 2  # Rosenbrock's valley, wide enough for gradient descent at 0.1


VALLEYS = {
    "parabola": (parabola, lambda: example(6)),
    "rosenbrock": (rosenbrock, lambda: {"x": torch.tensor(-0.5), "y": torch.tensor(1.2)}),
}


@entries(OPTIMIZERS, holds="convergence")
@pytest.mark.parametrize("valley", VALLEYS)
def test_converges(case, valley):
    loss, start = VALLEYS[valley]
    overrides = {"learning_rate": optim.cosine_decay_schedule(0.1, 300)} if case.schedule else {}
    overrides |= {"weight_decay": 0.0} if "weight_decay" in case.kwargs or case.name.endswith("w") else {}
    overrides |= {"mask": None} if "mask" in case.kwargs else {}
    rule = case.build(optim, **{**overrides, **case.tuned})
    params = start()
    state, first = rule.init(params), loss(params)
    for _ in range(300):
        keywords = {"value": loss(params)} if "value" in case.extra else {}
        params, state = optim.advance(rule, grad(loss)(params), state, params, **keywords)
    assert loss(params) < (1e-3 if valley == "parabola" else 0.2) * first


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
    quick = steps(rule, params, gradients, case=case)
    monkeypatch.setattr(fast, "usable", lambda *columns: False)
    slow = steps(rule, params, gradients, case=case)
    tolerances = {"rtol": 2e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-6}
    if dtype == torch.float64:
        tolerances = {"rtol": 1e-7, "atol": 1e-9} if case.schedule else {"rtol": 1e-12, "atol": 1e-14}
    close(quick, slow, **tolerances)
