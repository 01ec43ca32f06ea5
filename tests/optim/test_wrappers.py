"""Transformations around transformations: what the registry cannot say of them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from funcnet import grad, jit, optim, random, scan, tree, vmap

sys.path.insert(0, str(Path(__file__).parent))
from running import close, example, steps

MASK = {"a": True, "b": {"c": False, "d": True}}


def test_masked_leaves_or_zeroes_what_is_outside():
    params, gradient = example(), example(1)
    kept = optim.masked(optim.scale(2.0), MASK, outside="unchanged")
    updates, _ = kept.update(gradient, kept.init(params), params)
    close(updates, {"a": 2 * gradient["a"], "b": {"c": gradient["b"]["c"], "d": 2 * gradient["b"]["d"]}})
    zeroed = optim.masked(optim.scale(2.0), MASK, outside="zero")
    updates, _ = zeroed.update(gradient, zeroed.init(params), params)
    close(updates["b"]["c"], torch.zeros(3))
    with pytest.raises(ValueError, match=r"outside is 'nothing', and must be \"unchanged\" or \"zero\""):
        optim.masked(optim.scale(2.0), MASK, outside="nothing")
    with pytest.raises(TypeError, match="outside"):
        optim.masked(optim.scale(2.0), MASK)


def test_masked_takes_the_leaves_of_further_keywords_too():
    def scaled(updates, state, params=None, *, diagonal):
        return tree.map(lambda u, d: u / d, updates, diagonal), state

    inner = optim.GradientTransformation(lambda params: optim.EmptyState(), scaled)
    with pytest.raises(TypeError, match="diagonal"):  # one that takes no **extra is given none
        optim.masked(inner, MASK, outside="zero").update(example(), optim.MaskedState(()), None, diagonal=example(1))
    inner = inner._replace(update=lambda u, s, p=None, **extra: scaled(u, s, p, diagonal=extra["diagonal"]))
    rule = optim.masked(inner, MASK, outside="unchanged", mask_compatible_extra_args=True)
    gradient, diagonal = example(1), example(2)
    updates, _ = rule.update(gradient, rule.init(example()), None, diagonal=diagonal)
    close(updates["a"], gradient["a"] / diagonal["a"])
    close(updates["b"]["c"], gradient["b"]["c"])


def test_a_partition_is_each_optimizer_on_its_own_part():
    params, gradients = example(), [example(i) for i in (1, 2, 3)]
    rule = optim.partition({"x": optim.adam(0.1), "y": optim.sgd(0.5, 0.9)}, {"a": "x", "b": "y"})
    got, _ = steps(rule, params, gradients)
    close(got["a"], steps(optim.adam(0.1), params["a"], [g["a"] for g in gradients])[0])
    close(got["b"], steps(optim.sgd(0.5, 0.9), params["b"], [g["b"] for g in gradients])[0])


def test_labels_by_name_give_each_leaf_one_label():
    params = {"body.weight": torch.ones(2), "body.bias": torch.ones(2)}
    labels = optim.labels_by_name({"*.bias": "plain", "*.weight": "decayed"})
    assert labels(params) == {"body.weight": "decayed", "body.bias": "plain"}
    with pytest.raises(ValueError, match=r"'body.bias' matches no pattern of \['\*.weight'\]"):
        optim.labels_by_name({"*.weight": "w"})(params)
    with pytest.raises(ValueError, match=r"'body.weight' matches patterns of 2 labels \(all, w\)"):
        optim.labels_by_name({"*.weight": "w", "*": "all"})(params)
    rule = optim.partition({"plain": optim.sgd(0.1)}, labels)
    with pytest.raises(ValueError, match=r"no transformation for the label 'decayed', only for 'plain'"):
        rule.init(params)
    with pytest.raises(ValueError, match=r"tree of labels does not fit the parameters at its root"):
        optim.partition({"x": optim.sgd(0.1)}, {"a": "x"}).init(example())


def test_a_selective_transform_leaves_what_is_frozen():
    params, gradients = example(), [example(1), example(2)]
    got, state = steps(optim.selective_transform(optim.adam(0.1), freeze_mask=MASK), params, gradients)
    close(got["a"], params["a"], rtol=0, atol=0)
    close(got["b"]["c"], steps(optim.adam(0.1), params["b"]["c"], [g["b"]["c"] for g in gradients])[0])
    assert "inner_state.0.mu.a" not in tree.paths(state)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("way", ["eager", "jit", "vmap", "scan"])
def test_a_skipped_update_leaves_everything_to_the_bit(bad, way):
    rule = optim.apply_if_finite(optim.adamw(0.1), max_consecutive_errors=3)
    params, state = steps(rule, example(), [example(1)], None)
    gradient = example(2)
    gradient["b"]["c"][1] = bad

    def step(gradient, state, params):
        updates, state = rule.update(gradient, state, params)
        return optim.apply_updates(params, updates), state

    run = step
    if way == "jit":
        run = jit(step, backend="aot_eager")
    if way == "vmap":
        run = lambda *a: tree.unstack(vmap(step)(*(tree.stack([x, x]) for x in a)))[1]  # noqa: E731
    if way == "scan":
        run = lambda g, s, p: scan(lambda c, x: (step(x, c[1], c[0]), None), (p, s), tree.stack([g]))[0]  # noqa: E731
    after, new = run(gradient, state, params)
    close(after, params, rtol=0, atol=0)
    close(new.inner_state, state.inner_state, rtol=0, atol=0)
    assert (new.notfinite_count.item(), new.total_notfinite.item(), new.last_finite.item()) == (1, 1, False)
    again, new = run(example(3), new, after)
    assert (new.notfinite_count.item(), new.total_notfinite.item(), new.last_finite.item()) == (0, 1, True)
    assert not torch.equal(again["a"], params["a"])


def test_after_too_many_errors_in_a_row_updates_go_through():
    rule = optim.apply_if_finite(optim.sgd(0.1), max_consecutive_errors=2)
    params, bad = {"w": torch.ones(1)}, {"w": torch.tensor([float("nan")])}
    state, seen = rule.init(params), []
    for _ in range(3):
        updates, state = rule.update(bad, state, params)
        seen.append(updates["w"].isnan().item())
    assert seen == [False, False, True]
    with pytest.raises(ValueError, match="max_consecutive_errors is -1"):
        optim.apply_if_finite(optim.sgd(0.1), -1)


@settings(max_examples=20, deadline=None)
@given(k=st.integers(1, 5), per=st.integers(1, 4), seed=st.integers(0, 99), factory=st.sampled_from(["adam", "sgd"]))
def test_accumulation_equals_the_full_batch(k, per, seed, factory):
    data = random.normal(random.key(seed), (2, k * per, 3), torch.float64)

    def loss(w, x):
        return (torch.tanh(x @ w) ** 2).mean()

    inner = getattr(optim, factory)(0.1)
    rule = optim.multi_steps(inner, k)
    w = random.normal(random.key(seed + 1), (3,), torch.float64)
    whole, state_of_whole = w, inner.init(w)
    parts, state = w, rule.init(w)
    for batch in data:
        updates, state_of_whole = inner.update(grad(loss)(whole, batch), state_of_whole, whole)
        whole = optim.apply_updates(whole, updates)
        for small in batch.chunk(k):
            assert rule.has_updated(state) == (state.mini_step == 0 and state.gradient_step > 0)
            updates, state = rule.update(grad(loss)(parts, small), state, parts)
            parts = optim.apply_updates(parts, updates)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-13)
    assert state.gradient_step == 2


def test_accumulation_costs_one_buffer():
    params = example(dtype=torch.bfloat16)
    inner = optim.adam(0.1)
    state = optim.multi_steps(inner, 4).init(params)
    beyond = tree.nbytes(state) - tree.nbytes(inner.init(params))
    assert beyond == 4 * tree.size(params) + 8  # float32, and two counts
    assert state.acc_grads["a"].dtype == torch.float32


def test_accumulation_passes_over_what_it_is_told_to():
    rule = optim.MultiSteps(optim.sgd(1.0), 2, should_skip_update_fn=optim.skip_not_finite)
    params = {"w": torch.zeros(1)}
    state, seen = rule.init(params), []
    for value in (1.0, float("nan"), 3.0):
        updates, state = rule.update({"w": torch.tensor([value])}, state, params)
        seen.append(updates["w"].item())
    assert seen == [0.0, 0.0, -2.0]
    assert state.skip_state["num_not_finite"] == 0
    large = optim.MultiSteps(
        optim.sgd(1.0), 1, should_skip_update_fn=lambda *a: optim.skip_large_updates(*a, max_squared_norm=4.0)
    )
    updates, state = large.update({"w": torch.tensor([3.0])}, large.init(params), params)
    assert updates["w"] == 0
    assert state.skip_state["norm_squared"] == 9
    with pytest.raises(ValueError, match="every_k_schedule is 0"):
        optim.MultiSteps(optim.sgd(1.0), 0)
    wrong = optim.MultiSteps(optim.sgd(1.0), 1, should_skip_update_fn=lambda u, s, p: (u["w"] > 0, ()))
    with pytest.raises(ValueError, match=r"returned a torch.bool of shape \(1,\), where a bool 0-dim"):
        wrong.update(params, wrong.init(params), params)


def test_lookahead_equals_its_two_loops():
    params, gradients = example(), [example(i) for i in range(1, 8)]
    rule = optim.lookahead(optim.adam(0.1), sync_period=3, slow_step_size=0.5)
    both = optim.LookaheadParams.init_synced(params)
    got, state = steps(rule, both, gradients)
    inner, fast, slow = optim.adam(0.1), params, params
    own = inner.init(params)
    for i, gradient in enumerate(gradients):
        updates, own = inner.update(gradient, own, fast)
        fast = optim.apply_updates(fast, updates)
        if i % 3 == 2:
            fast = slow = tree.map(lambda s, f: s + 0.5 * (f - s), slow, fast)
    close(got.fast, fast, rtol=1e-5, atol=1e-6)
    close(got.slow, slow, rtol=1e-5, atol=1e-6)
    assert state.steps_since_sync == 1
    with pytest.raises(TypeError, match=r"takes its parameters as LookaheadParams\(fast, slow\), and got a dict"):
        rule.init(params)
    with pytest.raises(ValueError, match="sync_period is 0"):
        optim.lookahead(optim.sgd(0.1), 0, 0.5)
    again = optim.lookahead(optim.adam(0.1), sync_period=3, slow_step_size=0.5, reset_state=True)
    _, state = steps(again, both, gradients[:3])
    assert state.fast_state[0].count == 0


def test_hyperparameters_are_read_set_scheduled_and_mapped():
    params, gradient = example(), example(1)
    factory = optim.inject_hyperparams(optim.adamw, static_args="mask")
    rule = factory(learning_rate=optim.linear_schedule(0.1, 0.3, 2), weight_decay=0.01, b1=0.8)
    state = rule.init(params)
    assert sorted(state.hyperparams) == ["b1", "b2", "eps", "eps_root", "learning_rate", "weight_decay"]
    assert all(value.dtype == torch.float32 and value.ndim == 0 for value in state.hyperparams.values())
    want = optim.adamw(optim.linear_schedule(0.1, 0.3, 2), weight_decay=0.01, b1=0.8)
    close(steps(rule, params, [gradient] * 3)[0], steps(want, params, [gradient] * 3)[0])
    _, state = steps(rule, params, [gradient] * 2)
    torch.testing.assert_close(state.hyperparams["learning_rate"], torch.tensor(0.2))

    rule = optim.inject_hyperparams(optim.sgd)(learning_rate=0.1)
    rates = torch.tensor([0.1, 0.5])
    states = vmap(lambda rate: rule.init(params)._replace(hyperparams={"learning_rate": rate}))(rates)
    updates = vmap(lambda s: rule.update(gradient, s, params)[0])(states)
    close(updates["a"], -rates[:, None, None] * gradient["a"])
    compiled = jit(lambda g, s, p: rule.update(g, s, p), backend="aot_eager")
    for rate in (0.1, 0.2, 0.7):
        state = rule.init(params)._replace(hyperparams={"learning_rate": torch.tensor(rate)})
        close(compiled(gradient, state, params)[0], tree.map(lambda g, r=rate: -r * g, gradient))
    assert compiled.compiles == 1
    with pytest.raises(ValueError, match=r"static_args names 'speed', and sgd takes learning_rate, momentum"):
        optim.inject_hyperparams(optim.sgd, static_args="speed")


def test_measures_stand_in_the_state():
    rule = optim.chain(
        optim.scale(2.0),
        optim.snapshot("norm", tree.global_norm),
        optim.monitor(
            {
                "largest": lambda updates: updates["w"].abs().amax(),
                "often": optim.measure_with_ema(lambda updates: updates["w"].sum() > 0, decay=0.5),
            }
        ),
    )
    params = {"w": torch.zeros(2)}
    state = rule.init(params)
    first = tree.structure(state)
    for sign in (1.0, -1.0):
        updates, state = rule.update({"w": sign * torch.tensor([3.0, 4.0])}, state, params)
    assert tree.structure(state) == first
    assert updates["w"].tolist() == [-6.0, -8.0]
    assert state[1].measurement["norm"] == 10
    assert state[2].measurements["largest"] == 8
    torch.testing.assert_close(state[2].measurements["often"], torch.tensor(1 / 3))  # 0.25 of 0.75


def test_averages_of_parameters():
    new, old = example(1), example(2)
    close(optim.incremental_update(new, old, 0.25), tree.map(lambda n, o: 0.25 * n + 0.75 * o, new, old))
    close(optim.periodic_update(new, old, torch.tensor(6), 3), new)
    close(optim.periodic_update(new, old, torch.tensor(7), 3), old)
    with pytest.raises(ValueError, match="update_period is 0"):
        optim.periodic_update(new, old, 1, 0)
    with pytest.raises(tree.TreeMismatchError, match=r"new_tensors does not match old_tensors"):
        optim.incremental_update({"a": new["a"]}, old, 0.5)


def test_flatten_is_the_rule_on_one_vector():
    params, gradients = example(), [example(1), example(2)]
    for inner in (optim.adamw(0.1), optim.chain(optim.clip_by_global_norm(0.5), optim.sgd(0.1, 0.9))):
        close(steps(optim.flatten(inner), params, gradients)[0], steps(inner, params, gradients)[0])
    rule = optim.flatten(optim.adamw(0.1))
    with pytest.raises(tree.TreeMismatchError, match="params does not match updates"):
        rule.update(params, rule.init(params), {"a": params["a"]})


def test_a_named_chain_keeps_its_states_by_name():
    rule = optim.named_chain(("clip", optim.clip_by_global_norm(1.0)), ("adam", optim.adam(0.1)))
    params, gradients = example(), [example(1), example(2)]
    got, state = steps(rule, params, gradients)
    close(got, steps(optim.chain(optim.clip_by_global_norm(1.0), optim.adam(0.1)), params, gradients)[0])
    assert list(state) == ["clip", "adam"]
    with pytest.raises(ValueError, match="two transformations of the name 'x'"):
        optim.named_chain(("x", optim.scale(1.0)), ("x", optim.scale(1.0)))
    with pytest.raises(ValueError, match="got a dict of 1 as state for 2"):
        rule.update(gradients[0], {"clip": state["clip"]}, params)


def test_a_transformation_of_the_users_own_needs_no_further_keywords():
    mine = optim.GradientTransformation(lambda params: (), lambda updates, state, params=None: (updates, state))
    rule = optim.chain(mine, optim.scale(2.0))
    updates, _ = rule.update({"w": torch.ones(1)}, rule.init(None), None, value=torch.tensor(1.0))
    assert updates["w"] == 2
    with pytest.raises(TypeError, match=r"a function is no gradient transformation: call the factory"):
        optim.chain(optim.adam)


def test_a_thousand_steps_are_one_scan():
    target = random.normal(random.key(3), (5,))
    rule = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(optim.cosine_decay_schedule(0.1, 1000)))

    def train(w):
        def step(carry, _):
            w, state = carry
            value, slope = ((w - target) ** 2).sum(), 2 * (w - target)
            updates, state = rule.update(slope, state, w)
            return (optim.apply_updates(w, updates), state), value

        return scan(step, (w, rule.init(w)), None, length=1000)

    (w, state), losses = jit(train, backend="aot_eager")(torch.zeros(5))
    torch.testing.assert_close(w, target, rtol=1e-4, atol=1e-4)
    assert state[1][0].count == 1000
    assert losses.shape == (1000,)
    (eager, _), _ = train(torch.zeros(5))
    np.testing.assert_allclose(w, eager, rtol=1e-4, atol=1e-5)


def test_a_skipped_step_has_not_updated():
    rule = optim.MultiSteps(optim.sgd(1.0), 2, should_skip_update_fn=optim.skip_not_finite)
    state, told = rule.init({"w": torch.ones(1)}), []
    for gradient in (1.0, 3.0, float("nan"), 1.0, float("inf"), 1.0):
        _, state = rule.update({"w": torch.tensor([gradient])}, state)
        told.append(bool(rule.has_updated(state)))
    assert told == [False, True, False, False, False, True]
