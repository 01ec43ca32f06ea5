"""Pure training against the loop that PyTorch's users write, step for step."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from funcnet import Model, TrainState, jit, make_step, optim, random
from tests.models import built, twin

KEY = random.key(21)


def mlp():
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).double()


def cnn():
    # No bias before a BatchNorm, which takes it out again: its gradient is rounding noise, and Adam makes steps of it.
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 2, bias=False),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(16, 4),
    ).double()


OPTIMIZERS = {
    "sgd": (lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True), optim.sgd(0.05, 0.9, nesterov=True)),
    "adam": (lambda p: torch.optim.Adam(p, 1e-2), optim.adam(1e-2)),
    "adamw": (lambda p: torch.optim.AdamW(p, 1e-2, weight_decay=0.1), optim.adamw(1e-2, weight_decay=0.1)),
}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("constructor", "shape"), [(mlp, (12, 8)), (cnn, (12, 2, 6, 6))], ids=["mlp", "cnn"])
def test_fifty_steps_equal_the_plain_loop(constructor, shape, optimizer, compiled):
    module = built(constructor)
    model, params, state = Model.from_module(twin(module))
    theirs, ours = OPTIMIZERS[optimizer]
    opt = theirs(module.parameters())

    def loss(params, state, batch, key):
        x, y = batch
        logits, state = model.apply(params, state, x, train=True)
        return F.cross_entropy(logits, y), (state, {})

    step = make_step(loss, ours)
    if compiled:
        step = jit(step, donate=0, backend="aot_eager")
    ts = TrainState.create(params, state, ours, KEY)
    for i in range(50):
        x_key, y_key = random.split(random.fold_in(KEY, i))
        x, y = random.normal(x_key, shape, torch.float64), random.randint(y_key, shape[:1], 0, 4).long()
        opt.zero_grad()
        expected = F.cross_entropy(module(x), y)
        expected.backward()
        opt.step()
        ts, metrics = step(ts, (x, y))
        torch.testing.assert_close(metrics["loss"], expected.detach(), rtol=1e-9, atol=1e-9)
    for name, value in module.named_parameters():
        torch.testing.assert_close(ts.params[name], value.detach(), rtol=1e-9, atol=1e-9)
    for name, value in module.named_buffers():
        torch.testing.assert_close(ts.state[name], value, rtol=1e-9, atol=1e-9)
    assert ts.step == 50


def test_clipping_and_a_schedule_equal_the_plain_loop():
    module = built(mlp)
    model, params, state = Model.from_module(twin(module))
    opt = torch.optim.AdamW(module.parameters(), 1.0, weight_decay=1e-4)
    schedule = optim.warmup_cosine_decay_schedule(0.0, 0.01, 5, 30)
    scheduler = torch.optim.lr_scheduler.LambdaLR(opt, lambda i: float(schedule(torch.tensor(i))))
    ours = optim.chain(optim.clip_by_global_norm(0.1), optim.adamw(schedule))

    def loss(params, state, batch, key):
        return F.mse_loss(model(params, state, batch), batch[:, :4]), (state, {})

    step = make_step(loss, ours)
    ts = TrainState.create(params, state, ours, KEY)
    for i in range(30):
        x = random.normal(random.fold_in(KEY, i), (12, 8), torch.float64)
        opt.zero_grad()
        F.mse_loss(module(x), x[:, :4]).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 0.1)
        opt.step()
        scheduler.step()
        ts, _ = step(ts, x)
    for name, value in module.named_parameters():
        # torch divides by norm + 1e-6 when clipping; optax and we by the norm
        torch.testing.assert_close(ts.params[name], value.detach(), rtol=1e-4, atol=1e-6)


def test_each_step_has_a_key_of_its_own():
    model = Model(nn.Dropout, 0.5)

    def loss(params, state, batch, key):
        out, state = model.apply({}, {}, batch, key=key, train=True)
        return params["w"] * out.sum(), (state, {"out": out})

    step = make_step(loss, optim.sgd(0.1))
    ts = TrainState.create({"w": torch.tensor(1.0)}, {}, optim.sgd(0.1), KEY)
    x = torch.ones(64)
    ts1, first = step(ts, x)
    _, again = step(ts, x)
    _, second = step(ts1, x)
    assert torch.equal(first["out"], again["out"])
    assert not torch.equal(first["out"], second["out"])


def test_a_loss_of_the_wrong_form_is_explained():
    step = make_step(lambda p, s, b, k: (p["w"].sum(), s), optim.sgd(0.1))
    ts = TrainState.create({"w": torch.ones(2)}, {}, optim.sgd(0.1), KEY)
    with pytest.raises(TypeError, match=r"returns \(loss, \(state, metrics\)\).*The second was a dict"):
        step(ts, None)
