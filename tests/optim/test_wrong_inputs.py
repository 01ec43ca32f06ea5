"""What a user gets wrong: errors name the argument and the leaf, and say what to write."""

import pytest
import torch
from running import close, example, steps

from funcnet import optim, random, tree

contrib = optim.contrib
PARAMS, GRADS = example(0), example(1)
RULES = {
    "adafactor": lambda: optim.adafactor(0.1),
    "adagrad": lambda: optim.adagrad(0.1),
    "adam": lambda: optim.adam(0.1),
    "adamw": lambda: optim.adamw(0.1),
    "adan": lambda: optim.adan(0.1),
    "cocob": contrib.cocob,
    "distance": optim.scale_by_distance_over_gradients,
    "dog": contrib.dog,
    "galore": lambda: contrib.galore(0.1),
    "lamb": lambda: optim.lamb(0.1),
    "lbfgs": lambda: optim.lbfgs(0.1, linesearch=None),
    "lion": lambda: optim.lion(0.1),
    "mechanize": lambda: contrib.mechanize(optim.sgd(1.0)),
    "momentum": lambda: optim.sgd(0.1, momentum=0.9),
    "muon": lambda: contrib.muon(0.1),
    "novograd": lambda: optim.novograd(0.1),
    "partition": lambda: optim.partition({"all": optim.adam(0.1)}, "all"),
    "prodigy": contrib.prodigy,
    "rmsprop": lambda: optim.rmsprop(0.1),
    "schedule_free": lambda: contrib.schedule_free_sgd(0.1),
    "sm3": lambda: optim.sm3(0.1),
    "soap": lambda: contrib.soap(0.1),
    "torch": lambda: optim.from_torch("Adam"),
}
STATEFUL = {
    "apply_every": lambda: optim.apply_every(2),
    "apply_if_finite": lambda: optim.apply_if_finite(optim.adam(0.1), 3),
    "conditionally_mask": lambda: optim.conditionally_mask(optim.adam(0.1), lambda step: step > 1),
    "inject": lambda: optim.inject_hyperparams(optim.adam)(0.1),
    "masked": lambda: optim.masked(optim.adam(0.1), True, outside="zero"),
    "monitor": lambda: optim.monitor({"norm": tree.global_norm}),
    "multi_steps": lambda: optim.multi_steps(optim.adam(0.1), 2),
    "partition": RULES["partition"],
    "prodigy": contrib.prodigy,
    "rms": optim.scale_by_rms,
    "schedule": lambda: optim.scale_by_schedule(lambda count: 0.1),
    "torch": RULES["torch"],
    "yogi": optim.scale_by_yogi,
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    ("leaf", "says"),
    [
        (torch.tensor([1, 2]), r"'b.c'\] is torch.int64: whole numbers have no gradient: write leaf.float\(\)"),
        (1.0, r"'b.c'\] is a float: every leaf must be a floating tensor: write torch.tensor\(leaf\)"),
        ("x", r"'b.c'\] is a str: every leaf must be"),
        (torch.nn.Linear(2, 1), r"'b.c'\] is a Linear: a module is no tree: .*Model.from_module"),
        (torch.nn.Linear(2, 1).parameters(), r"'b.c'\] is a generator: .*dict\(module.named_parameters\(\)\)"),
    ],
    ids=["ints", "float", "str", "module", "generator"],
)
def test_parameters_that_are_no_floating_tensors(name, leaf, says):
    with pytest.raises(TypeError, match=f"(?s)params\\[{says}"):
        RULES[name]().init({"a": torch.ones(2), "b": {"c": leaf}})


@pytest.mark.parametrize("make", [optim.sgd, optim.adam, optim.sign_sgd, optim.rmsprop])
def test_integer_gradients_are_not_rounded_to_nothing(make):
    rule = make(0.1)
    with pytest.raises(TypeError, match=r"updates\['a'\] is torch.int64: whole numbers"):
        rule.update(tree.map(lambda g: g.long(), GRADS), rule.init(PARAMS), PARAMS)


@pytest.mark.parametrize("name", STATEFUL)
@pytest.mark.parametrize("kind", ["params", "tuple", "None", "another's"])
def test_a_state_of_another(name, kind):
    wrong = {"params": PARAMS, "tuple": (1, 2), "None": None, "another's": optim.scale_by_lion().init(PARAMS)}[kind]
    with pytest.raises(
        TypeError, match=r"(?s)update got a .* as state, and needs a .*update\(updates, state, params\)"
    ):
        STATEFUL[name]().update(GRADS, wrong, PARAMS)


def test_parameters_in_another_order_than_the_updates():
    """The state is in the order of `init`, and so is what a rule returns: names decide."""
    rule = optim.partition({"slow": optim.adamw(0.1), "fast": optim.adamw(0.5)}, {"a": "slow", "b": "fast"})
    turned = {"b": dict(reversed(PARAMS["b"].items())), "a": PARAMS["a"]}
    for own in (rule, optim.masked(optim.adamw(0.1), {"a": False, "b": True}, outside="zero")):
        want, _ = own.update(GRADS, own.init(PARAMS), PARAMS)
        close(own.update(GRADS, own.init(turned), turned)[0], want)
    whole = optim.flatten(optim.adamw(0.1))
    turned_grads = {"b": dict(reversed(GRADS["b"].items())), "a": GRADS["a"]}
    state = whole.update(GRADS, whole.init(PARAMS), PARAMS)[1]
    close(whole.update(turned_grads, state, PARAMS)[0], whole.update(GRADS, state, PARAMS)[0])
    with pytest.raises(tree.TreeMismatchError, match="params does not match updates"):
        rule.update(GRADS, rule.init(PARAMS), {"a": PARAMS["a"]})


def test_quotients_of_nothing_are_nothing():
    for rule in (contrib.dadapt_adamw(), contrib.prodigy()):
        state = rule.init(PARAMS)
        _, after = steps(rule, PARAMS, [tree.zeros_like(PARAMS)] * 2, state)
        assert after.estim_lr == state.estim_lr


def test_injected_hyperparameters_are_looked_at():
    with pytest.raises(ValueError, match=r"b1 is 1\.5"):
        optim.inject_hyperparams(optim.adam)(0.1, b1=1.5).init(PARAMS)
    rule = optim.inject_hyperparams(optim.adam)(0.1)
    state = rule.init(PARAMS)
    for given, error, says in (
        ({"lr": torch.tensor(0.5)}, ValueError, r"state.hyperparams has 'lr', and holds \['learning_rate', "),
        ({"learning_rate": "a"}, TypeError, r"state.hyperparams\['learning_rate'\] is a str"),
    ):
        with pytest.raises(error, match=says):
            rule.update(GRADS, state._replace(hyperparams=state.hyperparams | given), PARAMS)


def updated(rule, **extra):
    return rule.update(GRADS, rule.init(PARAMS), PARAMS, **extra)


VECTOR = random.normal(random.key(2), (2,))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: optim.scale_by_schedule("0.1"), TypeError, "step_size_fn is a str"),
        (
            lambda: contrib.dog(init_step=0.1),
            ValueError,
            r"init_step is 0.1, where two values .*\(\"heuristic\", 1e-6\)",
        ),
        (lambda: contrib.prodigy(betas=0.9), ValueError, "betas is 0.9, where two values are taken"),
        (lambda: contrib.dadapt_adamw(betas=(0.9, 0.9, 0.9)), ValueError, "where two values are taken"),
        (lambda: optim.adam(0.1, mu_dtype=torch.int32).init(PARAMS), TypeError, "cannot be kept in torch.int32"),
        (lambda: optim.adam(0.1, mu_dtype="bfloat16").init(PARAMS), TypeError, "cannot be kept in 'bfloat16'"),
        (lambda: optim.clip(-0.1), ValueError, "max_delta is -0.1"),
        (lambda: optim.clip_by_global_norm(float("nan")), ValueError, "max_norm is nan"),
        (lambda: optim.add_noise(-0.1, 0.1, key=0), ValueError, "eta is -0.1"),
        (lambda: optim.lbfgs(memory_size=2.5), TypeError, "memory_size is a float, and must be an int"),
        (lambda: optim.scale_by_zoom_linesearch(0), ValueError, "max_linesearch_steps is 0"),
        (lambda: optim.scale_by_backtracking_linesearch("a"), TypeError, "max_backtracking_steps is a str"),
        (lambda: updated(contrib.momo(), value=VECTOR), ValueError, r"value has shape \(2,\)"),
        (lambda: updated(contrib.reduce_on_plateau(), value="x"), TypeError, "value is a str"),
        (lambda: contrib.reduce_on_plateau(patience=-1), ValueError, "patience is -1"),
        (lambda: contrib.reduce_on_plateau(accumulation_size=0), ValueError, "accumulation_size is 0"),
        (lambda: updated(contrib.sophia(0.1), obj_fn="a"), TypeError, "obj_fn is a str, and must be a function"),
        (lambda: contrib.sophia(0.1, update_interval=0), ValueError, "update_interval is 0"),
        (lambda: contrib.soap(0.1, precondition_frequency=0), ValueError, "precondition_frequency is 0"),
        (lambda: contrib.galore(0.1, update_proj_gap=0), ValueError, "update_proj_gap is 0"),
        (
            lambda: contrib.galore(0.1, weight_dimension_numbers=contrib.GaLoreDimensionNumbers(0, 5)).init(PARAMS),
            ValueError,
            r"the axis 5 for a leaf of shape \(2, 3\)",
        ),
        (lambda: contrib.muon(0.1, ns_steps="a"), TypeError, "ns_steps is a str"),
        (lambda: contrib.mechanize(optim.sgd(1.0), num_betas="a"), TypeError, "num_betas is a str"),
        (
            lambda: updated(contrib.differentially_private_aggregate(1.0, 1.0, key=0)) and None,
            ValueError,
            "needs one leading axis of examples",
        ),
        (lambda: contrib.differentially_private_aggregate(-1.0, 1.0, key=0), ValueError, "l2_norm_clip is -1.0"),
        (lambda: optim.multi_steps(optim.sgd(0.1), "2"), TypeError, "every_k_schedule is a str"),
        (
            lambda: updated(optim.multi_steps(optim.sgd(0.1), lambda step: 0)),
            ValueError,
            "value of every_k_schedule is 0",
        ),
        (
            lambda: optim.multi_steps(optim.sgd(0.1), 2, should_skip_update_fn=3),
            TypeError,
            "should_skip_update_fn is a int",
        ),
        (lambda: optim.lookahead(optim.sgd(0.1), 2.5, 0.5), TypeError, "sync_period is a float"),
        (lambda: optim.periodic_update(PARAMS, PARAMS, "a", 3), TypeError, "steps is a str"),
        (lambda: optim.incremental_update(1, 2, 0.5), TypeError, "old_tensors is a int"),
        (lambda: optim.conditionally_mask(optim.sgd(0.1), True), TypeError, "should_transform_fn is a bool"),
        (
            lambda: updated(optim.conditionally_transform(optim.sgd(0.1), lambda step: "yes")),
            TypeError,
            "should_transform_fn returned a str",
        ),
        (
            lambda: updated(optim.conditionally_transform(optim.sgd(0.1), lambda step: torch.ones(2) > 0)),
            TypeError,
            r"returned a torch.bool of shape \(2,\)",
        ),
        (lambda: optim.inject_hyperparams(optim.adam(0.1)), TypeError, "inner_factory is a Advancing, and must be"),
        (lambda: optim.inject_hyperparams(optim.adam, hyperparam_dtype=torch.int32), TypeError, "a floating dtype"),
        (lambda: optim.snapshot(tree.global_norm, "norm"), TypeError, "measure is a str"),
        (lambda: optim.monitor([tree.global_norm]), TypeError, "measures is a list, and must be a dict"),
        (lambda: optim.partition([optim.sgd(0.1)], "a"), TypeError, "transforms is a list, and must be a dict"),
        (
            lambda: updated(optim.partition({0: optim.sgd(0.1)}, lambda p: tree.map(lambda leaf: 0, p))),
            ValueError,
            "tree of labels does not fit the parameters at 'a'.*labels_by_name",
        ),
        (
            lambda: updated(optim.adamw(0.1, mask=tree.map(lambda p: torch.tensor(True), PARAMS))),
            ValueError,
            "mask does not fit the parameters at 'a'.*True and False, not tensors",
        ),
        (
            lambda: optim.partition({"a": optim.sgd(0.1), "c": optim.sgd(0.1)}, "a").update(
                GRADS, optim.partition({"a": optim.sgd(0.1)}, "a").init(PARAMS)
            ),
            ValueError,
            r"a state with the labels \['a'\] for transformations with \['a', 'c'\]",
        ),
        (lambda: optim.labels_by_name("w"), TypeError, "patterns is a str"),
        (
            lambda: optim.update_moment(VECTOR[:1], VECTOR, 0.9, 1),
            tree.TreeMismatchError,
            "moments does not match updates",
        ),
        (lambda: optim.linear_schedule(0.0, 1.0, "10"), TypeError, "transition_steps is '10', and counts steps"),
        (lambda: optim.cosine_decay_schedule(1.0, None), TypeError, "decay_steps is None"),
        (lambda: optim.warmup_cosine_decay_schedule(0.0, 1.0, -5, 10), ValueError, "warmup_steps=-5"),
        (lambda: optim.warmup_cosine_decay_schedule(0.0, "a", 2, 10), TypeError, "peak_value is a str"),
        (lambda: optim.exponential_decay(1.0, 10, 0.5, end_value=VECTOR), ValueError, r"end_value has shape \(2,\)"),
        (lambda: optim.constant_schedule("a"), TypeError, "value is a str"),
        (
            lambda: optim.join_schedules([0.1, 0.2], [5]),
            TypeError,
            r"schedules\[0\] is a float, and must be a function",
        ),
        (lambda: optim.join_schedules([abs, abs], ["5"]), TypeError, r"boundaries\[0\] is '5'"),
        (lambda: optim.linear_onecycle_schedule(10, 1.0, pct_start=2.0), ValueError, "pct_start=2.0"),
        (
            lambda: optim.linear_onecycle_schedule(10, 1.0, pct_start=0.9, pct_final=0.5),
            ValueError,
            "above pct_final=0.5",
        ),
        (lambda: optim.cosine_onecycle_schedule(10, 1.0, div_factor=0), ValueError, "div_factor=0"),
        (lambda: optim.one_cycle_lr(1.0, 10, pct_start="a"), TypeError, "pct_start='a'"),
        (lambda: optim.piecewise_constant_schedule(1.0, [2]), TypeError, "boundaries_and_scales is a list"),
        (lambda: optim.step_lr(1.0, True), TypeError, "step_size=True"),
        (lambda: optim.sgdr_schedule([{"peak_value": 1.0}]), ValueError, r"cosine_kwargs\[0\]={'peak_value': 1.0}"),
        (lambda: optim.lambda_lr(1.0, 0.5), TypeError, "lr_lambda is a float"),
        (lambda: optim.plot_schedule(0.1, 10), TypeError, "schedule is a float"),
        (lambda: optim.projections.projection_simplex(torch.tensor([3, -4])), TypeError, "tree is torch.int64"),
        (
            lambda: optim.projections.projection_l2_ball({"w": 3.0}),
            TypeError,
            r"tree\['w'\] is a float|x\['w'\] is a float",
        ),
        (lambda: optim.projections.projection_simplex({}), ValueError, "a tree without elements"),
        (lambda: optim.projections.projection_box(VECTOR * 1j, 0.0, 1.0), TypeError, "complex64, and needs real"),
        (lambda: optim.perturbations.make_perturbed_fun(abs, sigma=0.0), ValueError, "sigma=0.0"),
        (
            lambda: optim.perturbations.make_perturbed_fun(abs, noise=optim.perturbations.Normal),
            TypeError,
            r"must be an instance: write noise=Normal\(\)",
        ),
    ],
)
def test_errors(call, error, says):
    with pytest.raises(error, match=f"(?s){says}"):
        call()


def test_a_seed_for_hutchinsons_signs():
    rule, other = (contrib.hutchinson_estimator_diag_hessian(seed) for seed in (3, random.key(3)))
    close(rule.init(PARAMS), other.init(PARAMS))
