"""What `make_step` does beyond one gradient and one update, against plain code and by its laws."""

import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from funcnet import Model, TrainState, jit, make_step, optim, random, tree
from funcnet.optim.wrappers import choice
from funcnet.train import weighted

KEY = random.key(3)
ROWS = 12


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 5, dtype=torch.float64)
        self.head = nn.Linear(5, 2, dtype=torch.float64)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x)))


MODEL = Model(Net)


def loss(params, state, batch, key):
    inputs, target = batch
    output, state = MODEL.apply(params, state, inputs, train=True)
    error = ((output - target) ** 2).mean()
    return error, (state, {"rows": torch.tensor(float(len(inputs)))})


def data(seed=0, rows=ROWS):
    one, two = random.split(random.key(seed), 2)
    return random.normal(one, (rows, 4)).double(), random.normal(two, (rows, 2)).double()


def close(a, b, tol=1e-12):
    assert tree.structure(a) == tree.structure(b)
    for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True):
        torch.testing.assert_close(x, y, rtol=tol, atol=tol)


def after(step, count=2, ts=None):
    ts = step.init(*MODEL.init(KEY), KEY) if ts is None else ts
    for seed in range(count):
        ts, metrics = step(ts, data(seed))
    return ts, metrics


@pytest.mark.parametrize("parts", [2, 3, 4, 6, 12])
def test_parts_of_a_batch_make_the_same_step(parts):
    for optimizer in (optim.sgd(0.1, momentum=0.9), optim.adamw(1e-2)):
        whole, told = after(make_step(loss, optimizer))
        cut, told_cut = after(make_step(loss, optimizer, accumulate=parts))
        close(cut, whole)
        close(told_cut["loss"], told["loss"])
        assert told_cut["rows"] == ROWS // parts


@given(st.sampled_from([2, 3, 6]), st.integers(0, 2**31))
def test_a_part_draws_from_a_key_of_its_own(parts, seed):
    def drawn(params, state, batch, key):
        return params["w"].sum() * 0, (state, {"draw": random.uniform(key, ())})

    step = make_step(drawn, optim.sgd(0.1), accumulate=parts)
    ts = step.init({"w": torch.ones(1)}, {}, random.key(seed))
    _, metrics = step(ts, torch.ones(6))
    key = random.fold_in(ts.key, 0)
    expected = torch.stack([random.uniform(random.fold_in(key, i), ()) for i in range(parts)]).mean()
    torch.testing.assert_close(metrics["draw"], expected)


def test_state_goes_from_part_to_part():
    def counting(params, state, batch, key):
        return params["w"].sum(), ({"seen": state["seen"] * 10 + batch[0]}, {})

    step = make_step(counting, optim.sgd(0.1), accumulate=3)
    ts, _ = step(step.init({"w": torch.ones(1)}, {"seen": torch.tensor(0)}, KEY), torch.tensor([1, 1, 2, 2, 3, 3]))
    assert int(ts.state["seen"]) == 123


def test_what_does_not_divide_is_refused():
    step = make_step(loss, optim.sgd(0.1), accumulate=5)
    with pytest.raises(ValueError, match=r"accumulate=5 .* batch\.0 has 12 rows"):
        after(step)
    with pytest.raises(ValueError, match=r"accumulate is 0; it counts"):
        make_step(loss, optim.sgd(0.1), accumulate=0)


def test_clipping_is_the_optimizers():
    ours, _ = after(make_step(loss, optim.adam(1e-2), clip=0.01))
    chained, _ = after(make_step(loss, optim.chain(optim.clip_by_global_norm(0.01), optim.adam(1e-2))))
    close(ours.params, chained.params)
    free, _ = after(make_step(loss, optim.sgd(1.0)), 1)
    short, _ = after(make_step(loss, optim.sgd(1.0), clip=0.01), 1)
    start = MODEL.init(KEY)[0]
    moved = tree.global_norm(tree.map(torch.sub, short.params, start))
    torch.testing.assert_close(moved, torch.tensor(0.01, dtype=torch.float64))
    assert tree.global_norm(tree.map(torch.sub, free.params, start)) > 0.02


def test_the_average_is_the_running_mean():
    step = make_step(loss, optim.sgd(0.3), ema=0.75)
    ts = step.init(*MODEL.init(KEY), KEY)
    expected = ts.params
    for seed in range(4):
        ts, _ = step(ts, data(seed))
        expected = tree.map(lambda old, new: 0.75 * old + 0.25 * new, expected, ts.params)
    close(ts.average, expected)
    plain, _ = after(make_step(loss, optim.sgd(0.3)), 4)
    close(ts.params, plain.params, 0)


def poisoned(seed, place, value):
    inputs, target = data(seed)
    inputs[place] = value
    return inputs, target


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_that_is_not_finite_changes_nothing_but_the_count(value, compiled):
    step = make_step(loss, optim.adam(1e-2), skip_nonfinite=True)
    run = jit(step, backend="aot_eager") if compiled else step
    ts = step.init(*MODEL.init(KEY), KEY)
    good, _ = run(ts, data(0))
    same, told = run(good, poisoned(1, 3, value))
    close((same.params, same.opt_state, same.state), (good.params, good.opt_state, good.state), 0)
    assert not torch.isfinite(told["loss"])
    assert (int(good.skipped), int(same.skipped), int(same.step)) == (0, 1, 2)
    on, _ = run(same, data(2))
    assert int(on.skipped) == 1
    assert not torch.equal(on.params["head.bias"], same.params["head.bias"])


@pytest.mark.parametrize("waits", [False, True])
def test_an_eager_step_that_donates_may_skip(waits, monkeypatch):
    if waits:  # as on a GPU, where both results are made and selected from
        for room in (choice, sys.modules["funcnet.train.step"]):
            monkeypatch.setattr(room, "decided", lambda condition: False)
    step = make_step(loss, optim.adam(1e-2), skip_nonfinite=True, donate=True, metrics=["update_norm"])
    plain = make_step(loss, optim.adam(1e-2), skip_nonfinite=True, metrics=["update_norm"])
    batches = [data(0), poisoned(1, 0, math.nan), data(2)]
    a, b = (s.init(*MODEL.init(KEY), KEY) for s in (step, plain))
    for batch in batches:
        (a, told), (b, expected) = step(a, batch), plain(b, batch)
        torch.testing.assert_close(told["update_norm"], expected["update_norm"], rtol=1e-10, atol=1e-12)
    close(a, b)


def test_statistics_are_what_their_names_say():
    names = ["grad_norm", "grad_norms", "param_norm", "update_norm", "update_ratio", "update_ratios"]
    step = make_step(loss, optim.sgd(0.5), clip=0.01, metrics=[*names, "nonfinite", "nonfinites"])
    ts = step.init(*MODEL.init(KEY), KEY)
    new, told = step(ts, data(0))
    module = MODEL.bind(ts.params, ts.state)
    inputs, target = data(0)
    ((module(inputs) - target) ** 2).mean().backward()
    grads = {name: p.grad for name, p in module.named_parameters()}
    norm = lambda leaves: torch.cat([leaf.reshape(-1) for leaf in leaves]).norm()  # noqa: E731
    moved = {name: new.params[name] - p for name, p in ts.params.items()}
    expected = {
        "grad_norm": norm(grads.values()),
        "param_norm": norm(ts.params.values()),
        "update_norm": norm(moved.values()),
        "update_ratio": norm(moved.values()) / norm(ts.params.values()),
        **{f"grad_norm/{name}": g.norm() for name, g in grads.items()},
        **{f"update_ratio/{name}": m.norm() / ts.params[name].norm() for name, m in moved.items()},
        "nonfinite": torch.tensor(0),
        **{f"nonfinite/{name}": torch.tensor(0) for name in grads},
    }
    assert told.keys() - {"loss", "rows"} == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(told[name], value, rtol=1e-10, atol=1e-12, check_dtype=False)
    _, told = step(ts, poisoned(0, 0, math.inf))
    assert told["nonfinite"] == sum(told[f"nonfinite/{name}"] for name in grads) > 0


@pytest.mark.parametrize("names", [["param_norm"], ["grad_norm", "param_norm", "update_ratio"]])
def test_statistics_are_the_same_of_a_step_that_donates(names):
    plain, donating = (make_step(loss, optim.adam(1e-2), donate=donate, metrics=names) for donate in (False, True))
    (a, told), (b, expected) = after(donating), after(plain)
    close(a, b)
    close(told, expected)


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_a_metric_does_not_take_the_place_of_the_steps_own(name):
    step = make_step(lambda *at: (loss(*at)[0], (at[1], {name: torch.ones(())})), optim.sgd(0.1), metrics=["grad_norm"])
    with pytest.raises(ValueError, match=f"the loss returned a metric '{name}', which the step tells itself: rename"):
        after(step)


def test_an_unknown_statistic_is_named():
    with pytest.raises(ValueError, match=r"no statistic 'gradnorm'. Did you mean 'grad_norm'\?"):
        make_step(loss, optim.sgd(0.1), metrics=["gradnorm"])
    with pytest.raises(TypeError, match=r"write metrics=\['grad_norm'\]"):
        make_step(loss, optim.sgd(0.1), metrics="grad_norm")


def test_a_state_that_lacks_what_the_step_keeps_is_refused():
    step = make_step(loss, optim.sgd(0.1), ema=0.9)
    ts = TrainState.create(*MODEL.init(KEY), optim.sgd(0.1), KEY)
    with pytest.raises(ValueError, match=r"keeps a ts\.average, and the state has none: start with"):
        step(ts, data())
    with pytest.raises(ValueError, match=r"keeps no ts\.average"):
        make_step(loss, optim.sgd(0.1))(step.init(*MODEL.init(KEY), KEY), data())


def test_everything_at_once_compiles_once():
    step = make_step(
        loss,
        optim.adamw(1e-2),
        accumulate=3,
        clip=0.5,
        ema=0.9,
        skip_nonfinite=True,
        metrics=["grad_norm", "update_ratios", "nonfinite"],
    )
    compiled = jit(step, donate=0, backend="aot_eager")
    a, b = (step.init(*MODEL.init(KEY), KEY) for _ in range(2))
    for seed in range(4):
        batch = poisoned(seed, 1, math.nan) if seed == 2 else data(seed)
        (a, told), (b, expected) = step(a, batch), compiled(b, batch)
        close(told, expected, 1e-10) if seed != 2 else None
    close(a, b, 1e-10)
    assert compiled.compiles == 1


def test_frozen_parameters_lie_in_the_state():
    params, state = MODEL.init(KEY)
    head, body = tree.split(params, "head.*")
    step = make_step(loss, optim.adamw(1e-2, weight_decay=0.1))
    ts, _ = after(step, 3, step.init(head, state | body, KEY))
    assert ts.params.keys() == head.keys()
    close({name: ts.state[name] for name in body}, body, 0)
    assert not torch.equal(ts.params["head.weight"], head["head.weight"])


def test_groups_have_rules_of_their_own():
    labels = optim.labels_by_name({"body.*": "slow", "head.*": "fast"})
    both, _ = after(make_step(loss, optim.partition({"slow": optim.sgd(0.0), "fast": optim.sgd(0.5)}, labels)), 1)
    alone, _ = after(make_step(loss, optim.sgd(0.5)), 1)
    start = MODEL.init(KEY)[0]
    close({n: both.params[n] for n in start if n.startswith("body")}, tree.split(start, "body.*")[0], 0)
    close(tree.split(both.params, "head.*")[0], tree.split(alone.params, "head.*")[0])


def test_a_weighted_loss_is_the_sum_of_its_terms():
    def terms(params, state, batch, key):
        inputs, target = batch
        output, state = MODEL.apply(params, state, inputs, train=True)
        return {"fit": ((output - target) ** 2).mean(), "size": output.abs().mean()}, (state, {})

    def summed(params, state, batch, key):
        found, aux = terms(params, state, batch, key)
        return 0.75 * found["fit"] + 2.0 * found["size"], aux

    weights = {"fit": 0.75, "size": torch.tensor(2.0, dtype=torch.float64)}
    ours, told = after(make_step(weighted(terms, weights), optim.sgd(0.1)))
    plain, expected = after(make_step(summed, optim.sgd(0.1)))
    close(ours, plain)
    torch.testing.assert_close(told["loss"], expected["loss"])
    torch.testing.assert_close(0.75 * told["fit"] + 2 * told["size"], told["loss"])
    with pytest.raises(ValueError, match=r"weights for \['fit'\], and the loss returned \['fit', 'size'\]"):
        after(make_step(weighted(terms, {"fit": 1.0}), optim.sgd(0.1)))
    for nothing in ({}, {"fit": 0, "size": 0.0}):
        with pytest.raises(ValueError, match=r"a weight other than 0 for at least one term"):
            weighted(terms, nothing)


def test_a_term_of_no_weight_is_told_and_left_out():
    def terms(params, state, batch, key):
        return {"fit": loss(params, state, batch, key)[0], "broken": params["head.bias"].sum() * math.nan}, (state, {})

    ours, told = after(make_step(weighted(terms, {"fit": 0.5, "broken": 0}), optim.sgd(0.2)))
    plain, _ = after(make_step(loss, optim.sgd(0.1)))
    close(ours.params, plain.params)
    assert math.isnan(told["broken"])


def test_a_line_search_asks_the_loss_again():
    step = make_step(loss, optim.lbfgs())
    ts = step.init(*MODEL.init(KEY), KEY)
    losses = []
    for _ in range(30):
        ts, metrics = step(ts, data(1))
        losses.append(metrics["loss"].item())
    plain = make_step(loss, optim.sgd(0.1))
    other = plain.init(*MODEL.init(KEY), KEY)
    for _ in range(30):
        other, metrics = plain(other, data(1))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.5 * metrics["loss"].item()
