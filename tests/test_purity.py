"""No public function moves the global generator or changes what it is given: one property for all of them."""

import inspect
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import funcnet
from funcnet import Model, TrainState, diagnostics, optim, random, tree
from funcnet.data import augment
from tests.models import Everything

MODEL = Model(Everything)
seeds = st.integers(0, 2**31 - 1)


def draws(key):
    """Arguments of every kind, drawn from a key."""
    keys = random.split(key, 6)
    x = random.normal(keys[0], (4, 3))
    params, state = MODEL.init(keys[1])
    images = random.normal(keys[2], (4, 3, 8, 8))
    flat = {"a": random.normal(keys[3], (2, 3)), "b": {"c": random.normal(keys[4], (4,))}}
    return {"key": keys[5], "x": x, "params": params, "state": state, "images": images, "tree": flat}


def square(x):
    return (x**2).sum()


def loss(params, state, batch, key):
    out, state = MODEL.apply(params, state, batch, key=key, train=True)
    return out.square().mean(), (state, {"mean": out.mean()})


def terms(params, state, batch, key):
    out, state = MODEL.apply(params, state, batch, key=key, train=True)
    return {"mean": out.mean(), "size": out.square().mean()}, (state, {})


SGD = optim.sgd(1e-2)


def train_state(a):
    return TrainState.create(a["params"], a["state"], optim.adamw(1e-2), a["key"])


STEP = funcnet.make_step(loss, optim.adamw(1e-2))
JITTED = funcnet.jit(STEP, backend="aot_eager")


def curve(rows):
    return funcnet.train.draw_curves(rows).axes[0].lines[0].get_ydata().tolist()


def picture(a):
    with TemporaryDirectory() as folder:
        path = Path(folder, "new", "curves.png")
        funcnet.train.save_figure(funcnet.train.draw_curves([{"loss": a["x"][0, 0].item()}]), path)
        return torch.tensor(list(path.read_bytes()))


def two_steps(a, step=STEP):
    return funcnet.fit(step, train_state(a), [a["images"]] * 2, progress=False)


def distance(params, state, batch, key):
    return square(params["a"].sum(0) - batch), (state, {})


def swept(a):
    return diagnostics.find_rate(distance, optim.adamw, a["tree"], {}, a["key"], [a["x"][0]], steps=10)


def flow(a):
    return diagnostics.gradient_flow(loss, a["params"], a["state"], a["images"], a["key"])


def update(optimizer, a):
    return optimizer.update(a["tree"], optimizer.init(a["tree"]), a["tree"])


def own_jvp(a):
    f = funcnet.custom_jvp(torch.sin)
    f.defjvp(lambda primals, tangents: (torch.sin(*primals), torch.cos(*primals) * tangents[0]))
    return funcnet.jvp(f, (a["x"],), (a["x"],)), funcnet.grad(lambda x: f(x).sum())(a["x"])


def own_vjp(a):
    f = funcnet.custom_vjp(torch.sin)
    f.defvjp(lambda x: (torch.sin(x), x), lambda x, ct: (torch.cos(x) * ct,))
    return funcnet.grad(lambda x: f(x).sum())(a["x"])


def reading(read, content, name="file"):
    """A call on a file of this content."""

    def call(a):
        with TemporaryDirectory() as folder:
            path = Path(folder, "class", name)
            path.parent.mkdir()
            path.write_bytes(content)
            return read(path)

    return call


def pixels(width=2, height=3):
    """The smallest picture format there is."""
    return f"P5 {width} {height} 255 ".encode() + bytes(range(width * height))


# Each public name, with a call that does its work. A name that is missing here fails the test below.
CALLS = {
    "Model": lambda a: (
        MODEL.init(a["key"]),
        MODEL.apply(a["params"], a["state"], a["images"], key=a["key"], train=True, capture=("conv",)),
        MODEL(a["params"], a["state"], a["images"]),
        MODEL.bind(a["params"], a["state"]),
    ),
    "TrainState": train_state,
    "associative_scan": lambda a: funcnet.associative_scan(torch.add, a["x"]),
    "cond": lambda a: funcnet.cond(a["x"].sum() > 0, torch.sin, torch.exp, a["x"]),
    "custom_jvp": own_jvp,
    "custom_vjp": own_vjp,
    "ensemble": lambda a: funcnet.ensemble(square)(a["x"]),
    "fit": two_steps,
    "fori_loop": lambda a: funcnet.fori_loop(0, 3, lambda i, x: x * i, a["x"]),
    "grad": lambda a: funcnet.grad(loss, has_aux=True)(a["params"], a["state"], a["images"], a["key"]),
    "hessian": lambda a: funcnet.hessian(square)(a["x"]),
    "hvp": lambda a: funcnet.hvp(square, (a["x"],), (a["x"],)),
    "jacfwd": lambda a: funcnet.jacfwd(torch.sin)(a["x"]),
    "jacrev": lambda a: funcnet.jacrev(torch.sin)(a["x"]),
    "jit": lambda a: two_steps(a, JITTED),
    "jvp": lambda a: funcnet.jvp(torch.sin, (a["x"],), (a["x"],)),
    "linearize": lambda a: funcnet.linearize(torch.sin, a["x"])[1](a["x"]),
    "make_epoch": lambda a: funcnet.make_epoch(STEP)(train_state(a), a["images"], torch.tensor([[0, 2], [1, 3]])),
    "make_eval": lambda a: funcnet.make_eval(
        lambda params, state, x: {"mean": MODEL(params, state, x).flatten(1).mean(1)}, 3
    )(train_state(a), a["images"]),
    "make_step": lambda a: funcnet.make_step(loss, optim.adam(1e-2))(
        TrainState.create(a["params"], a["state"], optim.adam(1e-2), a["key"]), a["images"]
    ),
    "per_example_grad": lambda a: funcnet.per_example_grad(lambda w, x: (x @ w).sum())(a["x"][0], a["x"]),
    "remat": lambda a: funcnet.grad(funcnet.remat(square))(a["x"]),
    "scan": lambda a: funcnet.scan(lambda c, x: (c + x, c * x), a["x"][0], a["x"]),
    "stack_blocks": lambda a: funcnet.stack_blocks({"0.w": a["x"], "1.w": a["x"].cos()}, ""),
    "stacked": lambda a: Model(lambda: funcnet.stacked(nn.Sequential(*(nn.Linear(3, 3) for _ in range(2))), "")).init(
        a["key"]
    ),
    "stop_gradient": lambda a: funcnet.stop_gradient(a["tree"]),
    "unstack_blocks": lambda a: funcnet.unstack_blocks({"*.w": a["x"]}),
    "value_and_grad": lambda a: funcnet.value_and_grad(square)(a["x"]),
    "vjp": lambda a: funcnet.vjp(torch.sin, a["x"])[1](a["x"]),
    "vmap": lambda a: funcnet.vmap(square)(a["x"]),
    "while_loop": lambda a: funcnet.while_loop(lambda x: x.sum() < 100, lambda x: x.abs() * 2 + 1, a["x"]),
    "augment.compose": lambda a: augment.compose(augment.flip, augment.grayscale)(a["key"], a["images"]),
    "augment.color_jitter": lambda a: augment.color_jitter(a["key"], a["images"], 0.4, 0.4, 0.4, 0.1),
    "augment.crop": lambda a: augment.crop(a["key"], a["images"], 8),
    "augment.cutmix": lambda a: augment.cutmix(a["key"], a["images"], torch.arange(4), classes=4),
    "augment.cutout": lambda a: augment.cutout(a["key"], a["images"], 3),
    "augment.each": lambda a: augment.each(lambda k, x: x + random.normal(k, x.shape))(a["key"], a["images"]),
    "augment.flip": lambda a: augment.flip(a["key"], a["images"]),
    "augment.grayscale": lambda a: augment.grayscale(a["key"], a["images"], 0.5),
    "augment.mixup": lambda a: augment.mixup(a["key"], a["images"], torch.arange(4), classes=4),
    "augment.normalize": lambda a: augment.normalize(a["images"], 0.5, [0.2, 0.3, 0.4]),
    "augment.random_erasing": lambda a: augment.random_erasing(a["key"], a["images"]),
    "augment.resized_crop": lambda a: augment.resized_crop(a["key"], a["images"], 6),
    "augment.rotate": lambda a: augment.rotate(a["key"], a["images"], 30),
    "data.batches": lambda a: list(funcnet.data.batches(a["key"], a["images"], 2)),
    "data.check_labels": lambda a: funcnet.data.check_labels(a["key"] % 3, 3),
    "data.chunks": lambda a: funcnet.data.chunks(a["key"].repeat(4), 3),
    "data.decode": lambda a: funcnet.data.decode(a["key"] % 256),
    "data.encode": lambda a: funcnet.data.encode("text"),
    "data.load": lambda a: funcnet.data.load("synthetic:images?n=20&size=8", key=a["key"]),
    "data.loader": lambda a: list(funcnet.data.loader(list(a["images"]), 2, key=a["key"], epochs=1)),
    "data.order": lambda a: funcnet.data.order(a["key"], 9, 2),
    "data.prefetch": lambda a: list(funcnet.data.prefetch([a["images"]])),
    "data.read_idx": reading(funcnet.data.read_idx, bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 8])),
    "data.read_images": reading(lambda path: funcnet.data.read_images(path.parents[1], 4), pixels(), "a.pgm"),
    "data.read_table": reading(funcnet.data.read_table, b"a,b\n1,x\n2,y\n"),
    "data.read_text": reading(funcnet.data.read_text, b"text"),
    "data.split": lambda a: funcnet.data.split(a["key"], a["images"], 0.5),
    "train.draw_curves": lambda a: curve([{"loss": value} for value in a["x"].flatten().tolist()]),
    "train.save_figure": picture,
    "train.weighted": lambda a: funcnet.make_step(funcnet.train.weighted(terms, {"mean": 0.5, "size": 2.0}), SGD)(
        TrainState.create(a["params"], a["state"], SGD, a["key"]), a["images"]
    ),
    "data.statistics": lambda a: funcnet.data.statistics(a["images"]),
    "data.stream": lambda a: list(funcnet.data.stream(a["key"], a["images"], 2, epochs=2)),
    "data.vocabulary": lambda a: funcnet.data.vocabulary("text"),
    "data.windows": lambda a: funcnet.data.windows(a["key"], a["key"].repeat(4), 3, 2),
    "diagnostics.anomaly": lambda a: diagnostics.anomaly(STEP)(train_state(a), a["images"]),
    "diagnostics.draw_flow": lambda a: diagnostics.draw_flow(flow(a)).axes[0].get_yticks(),
    "diagnostics.draw_rates": lambda a: diagnostics.draw_rates(swept(a)).axes[0].lines[0].get_ydata(),
    "diagnostics.find_rate": lambda a: swept(a)[:3],
    "diagnostics.flow_numbers": lambda a: diagnostics.flow_numbers(
        loss, a["params"], a["state"], a["images"], a["key"]
    ),
    "diagnostics.gradient_flow": lambda a: [row.norm for row in flow(a).rows],
    "diagnostics.memory_report": lambda a: diagnostics.memory_report(STEP, train_state(a), a["images"]).peak,
    "diagnostics.profile": lambda a: [
        one.calls for one in diagnostics.profile(STEP, train_state(a), a["images"], steps=1, warmup=0).operations
    ],
    "diagnostics.try_rates": lambda a: diagnostics.try_rates(
        loss, optim.adamw, a["params"], a["state"], a["key"], [a["images"]], a["x"][0].abs(), steps=2
    ),
    "tree.cast": lambda a: tree.cast(a["tree"], torch.float64),
    "tree.check_like": lambda a: tree.check_like(a["tree"], a["tree"]),
    "tree.flatten": lambda a: tree.unflatten(*reversed(tree.flatten(a["tree"]))),
    "tree.global_norm": lambda a: tree.global_norm(a["tree"]),
    "tree.leaves": lambda a: tree.leaves(a["tree"]),
    "tree.leaves_with_path": lambda a: tree.leaves_with_path(a["tree"]),
    "tree.map": lambda a: tree.map(torch.add, a["tree"], a["tree"]),
    "tree.merge": lambda a: tree.merge(a["params"], a["state"]),
    "tree.nbytes": lambda a: tree.nbytes(a["tree"]),
    "tree.ones_like": lambda a: tree.ones_like(a["tree"]),
    "tree.paths": lambda a: tree.paths(a["tree"]),
    "tree.ravel": lambda a: tree.ravel(a["tree"])[1](tree.ravel(a["tree"])[0] + 1),
    "tree.size": lambda a: tree.size(a["tree"]),
    "tree.split": lambda a: tree.split(a["params"], "conv.*"),
    "tree.stack": lambda a: tree.stack([a["tree"], a["tree"]]),
    "tree.structure": lambda a: tree.structure(a["tree"]),
    "tree.to": lambda a: tree.to(a["tree"], "cpu"),
    "tree.unflatten": lambda a: tree.unflatten(*reversed(tree.flatten(a["tree"]))),
    "tree.unstack": lambda a: tree.unstack(tree.stack([a["tree"], a["tree"]])),
    "tree.zeros_like": lambda a: tree.zeros_like(a["tree"]),
    "optim.adam": lambda a: update(optim.adam(1e-2), a),
    "optim.adamw": lambda a: update(optim.adamw(optim.cosine_decay_schedule(1e-2, 10)), a),
    "optim.add_decayed_weights": lambda a: update(optim.add_decayed_weights(0.1), a),
    "optim.advance": lambda a: optim.advance(optim.adamw(0.1), a["tree"], optim.adamw(0.1).init(a["tree"]), a["tree"]),
    "optim.apply_updates": lambda a: optim.apply_updates(a["tree"], a["tree"]),
    "optim.chain": lambda a: update(optim.chain(optim.scale(2.0), optim.adam(0.1)), a),
    "optim.clip_by_global_norm": lambda a: update(optim.clip_by_global_norm(0.1), a),
    "optim.constant_schedule": lambda a: optim.constant_schedule(0.1)(a["x"]),
    "optim.cosine_decay_schedule": lambda a: optim.cosine_decay_schedule(0.1, 10)(a["x"].abs()),
    "optim.identity": lambda a: update(optim.identity(), a),
    "optim.join_schedules": lambda a: optim.join_schedules([optim.constant_schedule(1.0)] * 2, [3])(torch.tensor(4)),
    "optim.linear_schedule": lambda a: optim.linear_schedule(0.0, 1.0, 10)(a["x"].abs()),
    "optim.masked": lambda a: update(optim.masked(optim.scale(2.0), {"a": True, "b": {"c": False}}, outside="zero"), a),
    "optim.scale": lambda a: update(optim.scale(2.0), a),
    "optim.scale_by_adam": lambda a: update(optim.scale_by_adam(), a),
    "optim.scale_by_learning_rate": lambda a: update(optim.scale_by_learning_rate(0.1), a),
    "optim.scale_by_schedule": lambda a: update(optim.scale_by_schedule(optim.constant_schedule(0.1)), a),
    "optim.sgd": lambda a: update(optim.sgd(0.1, momentum=0.9), a),
    "optim.trace": lambda a: update(optim.trace(0.9, nesterov=True), a),
    "optim.warmup_cosine_decay_schedule": lambda a: optim.warmup_cosine_decay_schedule(0.0, 1.0, 2, 10)(a["x"].abs()),
}


def public():
    """Every public function and class that computes; types, errors and random.* (whose own contract tests it) aside."""
    for room, prefix in (
        (funcnet, ""),
        (tree, "tree."),
        (optim, "optim."),
        (funcnet.data, "data."),
        (augment, "augment."),
        (funcnet.train, "train."),
        (diagnostics, "diagnostics."),
    ):
        for name, value in vars(room).items():
            if room is funcnet.train and hasattr(funcnet, name):
                continue  # listed by its shorter name
            if (
                name.startswith("_")
                or not callable(value)
                or not getattr(value, "__module__", "").startswith("funcnet")
            ):
                continue
            # Optimizers, schedules and losses have contracts of their own: tests/optim and tests/losses.
            if value.__module__.startswith(("funcnet.optim", "funcnet.losses")) and prefix + name not in CALLS:
                continue
            record = inspect.isclass(value) and (issubclass(value, tuple | Exception) or not inspect.isfunction(value))
            if not record or value in (Model, TrainState, funcnet.custom_jvp, funcnet.custom_vjp):
                yield prefix + name


def snapshot(value):
    return [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in tree.leaves(value)]


def test_every_public_function_is_listed():
    exempt = {"tree.register_dataclass"}  # registers a type, which is its purpose
    assert sorted(set(public()) - exempt) == sorted(set(CALLS) & set(public()) - exempt)
    assert set(CALLS) <= set(public())


@pytest.mark.parametrize("name", CALLS)
@given(seed=seeds)
def test_inputs_and_the_global_generator_stay_bit_identical(name, seed):
    arguments = draws(random.key(seed))
    before, generator = snapshot(arguments), torch.get_rng_state()
    versions = [leaf._version for leaf in tree.leaves(arguments)]
    first = CALLS[name](arguments)
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(arguments), before, strict=True))
    assert [leaf._version for leaf in tree.leaves(arguments)] == versions
    assert torch.equal(generator, torch.get_rng_state())
    second = CALLS[name](arguments)
    for a, b in zip(snapshot(first), snapshot(second), strict=True):
        if isinstance(a, Tensor):
            assert torch.equal(a, b)
        elif isinstance(a, nn.Module):
            assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
