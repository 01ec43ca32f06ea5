"""Particular rules, against torch.optim and by hand; and what goes wrong, said well."""

import sys
from pathlib import Path

import pytest
import torch
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from funcnet import optim, tree
from funcnet.optim import fast

sys.path.insert(0, str(Path(__file__).parent))
from cases import Case
from registry import LINKS, OPTIMIZERS, SCHEDULES
from running import close, example, steps


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.setattr(fast, "usable", lambda *columns: False)


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [1e-6, 1e-2, 6e4])
def test_clipping_halves_scales_in_float32(dtype, size):
    # A length past float16's range, and shares of elements below it before `max_norm` lifts them.
    given = {"w": torch.full((20000,), size).to(dtype), "b": torch.full((3,), 4.0 * size).clamp(max=6.5e4).to(dtype)}
    for max_norm in (1e-3, 1.0, 100.0):
        rule = optim.clip_by_global_norm(max_norm)
        got, _ = rule.update(given, ())
        wide, _ = rule.update(tree.map(torch.Tensor.float, given), ())
        close(got, tree.map(lambda u: u.to(dtype), wide), rtol=0, atol=0)


@pytest.mark.parametrize("number", [float, torch.tensor], ids=["number", "tensor"])
@pytest.mark.parametrize("clip", [optim.clip_by_global_norm, optim.clip_by_block_rms])
def test_clipping_to_nothing(clip, number):
    def clipped(u):
        return clip(number(0.0)).update({"w": u}, ())[0]["w"]

    for u in (torch.zeros(3), torch.tensor([3.0, -4.0, 0.0])):
        assert torch.equal(clipped(u), torch.zeros(3))
        assert torch.isfinite(grad(lambda u: clipped(u).sum())(u)).all()
    assert torch.isnan(clipped(torch.tensor([float("nan"), 1.0, 0.0]))).any()
    assert torch.equal(clip(number(2.0)).update({"w": torch.zeros(3)}, ())[0]["w"], torch.zeros(3))


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


def test_params_are_asked_for_where_they_are_needed():
    optimizer = optim.sgd(0.1)
    assert torch.equal(optimizer.update({"w": torch.ones(1)}, optimizer.init(None))[0]["w"], torch.tensor([-0.1]))
    optimizer = optim.adamw(0.1)
    with pytest.raises(ValueError, match=r"needs the parameters: write optimizer.update\(grads, state, params\)"):
        optimizer.update(example(), optimizer.init(example()))


def test_the_registry_builds_what_it_says():
    assert str(Case("sgd", {"learning_rate": 0.1})) == "sgd(learning_rate=0.1)"
    assert len({str(case) for case in OPTIMIZERS + LINKS + SCHEDULES}) == len(OPTIMIZERS + LINKS + SCHEDULES)
