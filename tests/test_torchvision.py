"""Every classification model of torchvision: from a key and back, pure, a training step, counted, mapped, compiled."""

import pytest
import torch
import torchvision
from torch import Tensor

from funcnet import Model, counts, grad, jit, random, tree, vmap
from tests.models import built

KEY = random.key(1)
FAST = ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5"]
# The smallest images that each takes, or that leave batch normalization more than two values a channel; vision
# transformers are told by their constructor.
SIZES = {"alexnet": 64, "inception_v3": 299, "maxvit_t": 224, "vit_h_14": 28}
SIZES |= dict.fromkeys([f"efficientnet_b{n}" for n in range(8)], 64)
LIMIT = 200_000_000  # parameters, above which a step differentiates a quarter of them, to spare memory
HALF = 30_000_000  # parameters, which half of the models exceed

pytestmark = pytest.mark.filterwarnings("ignore:The default weight initialization")


def names() -> list[str]:
    return torchvision.models.list_models(module=torchvision.models)


def case(name: str) -> tuple[Model, Tensor]:
    size = SIZES.get(name, 32)
    options = {"image_size": size} if name.startswith("vit") else {}
    model = Model(getattr(torchvision.models, name), **options)
    return model, random.normal(KEY, (2, 3, size, size))


def some(among: list[str]) -> list[object]:
    return [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in among]


def published(name: str) -> int:
    """The number of parameters, as torchvision gives it with its weights."""
    return torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]


def published_options(name: str) -> dict[str, int]:
    """What `published` holds for: images of one size for a vision transformer, and no auxiliary heads for GoogLeNet."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    if name == "googlenet":
        return {"aux_logits": False}
    return {"image_size": weights.transforms.keywords["crop_size"]} if name.startswith("vit") else {}


def smaller() -> list[str]:
    return [name for name in names() if published(name) < HALF]


def loss_of(outputs: object) -> Tensor:
    """Of the logits and those of auxiliary heads."""
    return sum((out.square().mean() for out in tree.leaves(outputs)), torch.zeros(()))


def same(a: object, b: object) -> bool:
    return all(map(torch.equal, tree.leaves(a), tree.leaves(b)))


def test_there_are_as_many_as_ever():
    assert len(names()) >= 80


@pytest.mark.parametrize("name", some(names()))
def test_initialises_evaluates_and_round_trips(name):
    model, x = case(name)
    params, state = model.init(KEY)
    assert all(p.isfinite().all() for p in params.values())

    # Bit for bit, also against the plain module that the same key makes; and twice the same.
    module = built(model._constructor, seed=1).eval()
    before = x.clone()
    out = model(params, state, x)
    assert torch.equal(out, module(x))
    assert torch.equal(out, model(params, state, x))
    assert torch.equal(x, before)
    assert all(same(params[n], p) for n, p in module.named_parameters())

    # Counted, without building it.
    counted = counts.parameters(model)
    assert counted.count == sum(row.count for row in counted.rows) == sum(p.numel() for p in params.values())
    full = Model(getattr(torchvision.models, name), **published_options(name))
    assert counts.parameters(full).count == published(name)
    assert counted.buffers == sum(b.numel() for b in state.values())

    # Through a state_dict and back.
    bound = model.bind(params, state)
    assert list(bound.state_dict()) == list(module.state_dict())
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.zero_()
    module.load_state_dict(bound.state_dict())
    del bound
    again, *back = Model.from_module(module)
    tree.check_like(tuple(back), (params, state), dtype=True)
    assert same(tuple(back), (params, state))
    assert repr(again) == f"Model({type(module).__name__})"


@pytest.mark.parametrize("name", some(names()))
def test_one_step_of_training(name):
    model, x = case(name)
    params, state = model.init(KEY)
    module = model.bind(params, state).train()
    if sum(p.numel() for p in params.values()) > LIMIT:
        chosen = set(list(params)[::4])
        params, frozen = tree.split(params, lambda name, _: name in chosen)
        state = tree.merge(state, frozen)
        for n, p in module.named_parameters():
            p.requires_grad_(n in chosen)

    def loss(params):
        outputs, new_state = model.apply(params, state, x, key=KEY, train=True)
        return loss_of(outputs), new_state

    kept = tree.map(lambda t: t._version, (params, state))
    grads, new_state = grad(loss, has_aux=True)(params)
    assert tree.map(lambda t: t._version, (params, state)) == kept

    with random.seeded(KEY):  # its dropout draws from the key
        loss_of(module(x)).backward()
    # Sums over many paths may be taken in another order.
    for n, p in module.named_parameters():
        if n in params:
            torch.testing.assert_close(params[n] - 0.1 * grads[n], p.detach() - 0.1 * p.grad, rtol=1e-5, atol=1e-6)
    for n, b in module.named_buffers():
        torch.testing.assert_close(new_state[n], b)


def test_the_smaller_are_half():
    assert abs(len(smaller()) - len(names()) / 2) <= 3


@pytest.mark.parametrize("name", some(smaller()))
def test_the_smaller_half_mapped_and_compiled(name):
    model, x = case(name)

    def f(params, state, x):
        outputs, state = model.apply(params, state, x, key=KEY, train=True)
        return loss_of(outputs), state

    # In float64, since batch normalization of two small images amplifies rounding.
    members = tree.stack([model.init(key, dtype=torch.float64) for key in random.split(KEY, 2)])
    want = tree.stack([f(*member, x.double()) for member in tree.unstack(members)])
    tree.map(torch.testing.assert_close, vmap(f, in_dims=(0, 0, None))(*members, x.double()), want)

    params, state = tree.cast(tree.unstack(members)[0], torch.float32)
    compiled = jit(f, backend="aot_eager")
    tree.map(torch.testing.assert_close, compiled(params, state, x), f(params, state, x))
    assert compiled.compiles == 1
