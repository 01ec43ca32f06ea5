"""How runs are written: names with options, settings and their file, schedules, optimizers."""

import dataclasses
import math
import tomllib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from funcnet import optim, random, tree
from funcnet.runs import Config, RunError, optimizers, schedules
from funcnet.runs import config as configs
from funcnet.runs.grammar import parse, shown

texts = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20) | st.just('a "b" \\ c')
counts = st.integers(1, 2**40)
positive = st.floats(0, allow_infinity=False, exclude_min=True)
settings = st.builds(
    Config,
    data=texts,
    model=texts,
    root=st.none() | texts,
    download=st.booleans(),
    augment=st.lists(texts, max_size=3).map(tuple),
    freeze=st.lists(texts, max_size=3).map(tuple),
    lr=st.none() | positive,
    weight_decay=st.none() | st.floats(0, allow_infinity=False),
    steps=st.none() | counts,
    ema=st.none() | st.floats(0, 1, exclude_max=True),
    seed=st.integers(-(2**63), 2**63 - 1),
    save_every=st.none() | counts,
    compile=st.booleans(),
)


@given(settings, texts)
def test_a_config_comes_back_from_its_file(config, comment):
    assert configs.resolved(tomllib.loads(configs.dump(config, comment)), "") == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "'epoch' is no setting; near names: epochs"),
        ({"epochs": "3"}, "epochs is '3': it is a whole number"),
        ({"epochs": True}, "epochs is True: it is a whole number"),
        ({"epochs": 0}, "from 1 on"),
        ({"lr": 0.0}, "lr is 0.0: it is a number above 0"),
        ({"lr": math.nan}, "lr is nan: it is a number above 0"),
        ({"lr": math.inf}, "lr is inf"),
        ({"ema": 1.0}, "below 1"),
        ({"freeze": "fc.*"}, r'Write freeze = \["..."\]'),
        ({"freeze": [1]}, "a list of texts"),
        ({"download": 1}, "true or false"),
        ({"optim": ""}, "not empty"),
        ({"epochs": 1, "steps": 2}, "give one of the two"),
        ({"seed": 2**64}, "64 bits"),
    ],
)
def test_what_a_config_refuses(values, message):
    with pytest.raises(RunError, match=f"^file.toml: .*{message}"):
        configs.resolved({"data": "digits", "model": "linear", **values}, "file.toml")


def test_a_config_needs_data_and_a_model():
    with pytest.raises(RunError, match="there is no data: write --data mnist"):
        configs.resolved({"model": "linear"}, "")
    with pytest.raises(RunError, match="there is no model: write --model mlp:512-256"):
        configs.resolved({"data": "digits"}, "")


def test_a_file_that_is_no_toml(tmp_path):
    (tmp_path / "a.toml").write_text("epochs = = 3")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    for name, message in (("a", "is no TOML"), ("b", "is no UTF-8"), ("c", "No such file")):
        with pytest.raises(RunError, match=message):
            configs.read(tmp_path / f"{name}.toml")


words = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda w: w not in ("true", "false", "none"))
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.booleans() | st.none() | numbers | words
values = values | st.lists(values, min_size=2, max_size=3).map(tuple)


@given(words, st.lists(words, max_size=2), st.dictionaries(words, values, max_size=3))
def test_names_are_read_as_they_are_written(name, args, options):
    rest = ",".join([*args, *(f"{key}={shown(value)}" for key, value in options.items())])
    found = parse(f"{name}:{rest}" if rest else name)
    assert (found.name, found.args, dict(found.options)) == (name, tuple(args), options)


@pytest.mark.parametrize("text", ["", ":a", "a:", "a:b=1,c", "a:b=", "a:b=1,b=2", "a:,", "a:=2"])
def test_what_is_no_name(text):
    with pytest.raises(RunError, match="Write"):
        parse(text)


@pytest.mark.parametrize("name", schedules.SCHEDULES)
@given(rate=st.floats(1e-6, 1.0), steps=st.integers(3, 500))
def test_schedules_stay_between_zero_and_the_rate(name, rate, steps):
    schedule = schedules.build(name, rate, steps)
    found = [float(schedule(step)) for step in range(steps)]
    assert all(0 <= value <= rate * (1 + 1e-5) for value in found)
    assert max(found) >= 0.6 * rate


def test_schedules_are_those_of_optim():
    ours = schedules.build("warmup-cosine:warmup=10,end=0.1", 0.5, 100)
    theirs = optim.warmup_cosine_decay_schedule(0.0, 0.5, 10, 100, end_value=0.05)
    assert all(float(ours(step)) == float(theirs(step)) for step in range(100))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosin", "'cosin' is no schedule; near names: cosine"),
        ("cosine:ends=0.1", "'ends' is no option of cosine; near names: end"),
        ("cosine:0.1", "'0.1' is too much. Write cosine:end=0"),
        ("cosine:end=x", "end is x, and a number"),
        ("onecycle:start=2", "start=2"),
        ("warmup-stable-decay", "at least 3 steps, and this one has 2"),
    ],
)
def test_what_is_no_schedule(text, message):
    with pytest.raises(RunError, match=message):
        schedules.build(text, 0.1, 2 if text.startswith("warmup-s") else 100)


@pytest.mark.parametrize("name", [*optimizers.names(), "torch:Adam", "torch:SGD", "torch:LBFGS"])
def test_every_optimizer_lowers_a_loss(name):
    key = random.key(3)
    chosen = optimizers.choose(name, key=key)
    optimizer = optim.with_extra_args_support(chosen.build(chosen.rate))
    target = random.normal(key, (3, 4))
    start = params = {"w": random.normal(random.fold_in(key, 1), (3, 4)), "b": random.normal(key, (4,))}

    def value(p, *_, **__):
        return (p["w"] - target).square().sum() + p["b"].square().sum()

    def gradient(p, *_):
        return {"w": 2 * (p["w"] - target), "b": 2 * p["b"]}

    state = optimizer.init(params)
    for _ in range(20):
        extra = {"value": value(params), "grad": gradient(params)}
        extra |= {"value_fn": value, "obj_fn": value, "grad_fn": gradient}
        updates, state = optimizer.update(gradient(params), state, params, **extra)
        params = optim.apply_updates(params, updates)
    assert value(params) < value(start)


@pytest.mark.parametrize("name", ["adamw", "lion", "lars", "adafactor", "muon"])
def test_decay_goes_to_the_optimizers_own_argument(name):
    params = {"w": random.normal(random.key(1), (3, 4))}
    grads = tree.map(lambda leaf: leaf.sin(), params)
    argument = "weight_decay_rate" if name == "adafactor" else "weight_decay"
    function = getattr(optim, name, None) or getattr(optim.contrib, name)
    ours, theirs = optimizers.choose(name, 0.3).build(0.1), function(0.1, **{argument: 0.3})
    a, b = (o.update(grads, o.init(params), params)[0]["w"] for o in (ours, theirs))
    assert torch.equal(a, b)


def test_decay_of_others_is_that_of_torch():
    weight = random.normal(random.key(1), (3, 4))
    theirs = torch.nn.Parameter(weight.clone())
    sgd = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=0.2)
    ours = optimizers.choose("sgd:momentum=0.9", 0.2).build(0.1)
    params, state = {"w": weight}, ours.init({"w": weight})
    for step in range(4):
        grad = random.normal(random.fold_in(random.key(2), step), (3, 4))
        theirs.grad = grad.clone()
        sgd.step()
        updates, state = ours.update({"w": grad}, state, params)
        params = optim.apply_updates(params, updates)
    torch.testing.assert_close(params["w"], theirs.detach())


@pytest.mark.parametrize(
    ("text", "decay", "message"),
    [
        ("adma", None, "'adma' is no optimizer; near names: adam"),
        ("adamw:b3=2", None, "'b3' is no option of adamw; near names: b2, b1"),
        ("adamw:learning_rate=2", None, "write the learning rate as --lr 2"),
        ("adamw:weight_decay=0.1", 0.2, "leave one out"),
        ("torch", None, "names no class"),
        ("torch:Adma", None, "did you mean 'Ada"),
        ("torch:Adam,betas=2", None, "betas"),
        ("sgd:momentum=x", None, "sgd:momentum=x"),
        ("adam:mask=x", None, "'mask' is no option of adam"),
    ],
)
def test_what_is_no_optimizer(text, decay, message):
    with pytest.raises(RunError, match=message):
        optimizers.choose(text, decay).build(0.1)


def test_a_config_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError, match="epochs"):
        Config(data="digits", model="linear").epochs = 3
