"""What a call costs beside the work: a hundred tiny layers, a thousand small parameters, equal blocks to compile."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from funcnet import optim, random
from funcnet.bench import ways
from funcnet.bench.subject import Running, Setting, Subject, Way, bytes_of
from funcnet.bench.workloads.workload import Workload, classified, cross_entropy
from funcnet.jit import jit
from funcnet.model import Model
from funcnet.stacking import stacked
from funcnet.train import TrainState, make_step
from funcnet.transforms import grad

__all__ = ["SUBJECTS"]

_WIDTH, _LAYERS, _BATCH = 16, 100, 4
_WIDE = 64


def _deep() -> nn.Sequential:
    return nn.Sequential(*(part for _ in range(_LAYERS) for part in (nn.Linear(_WIDTH, _WIDTH), nn.Tanh())))


def _start(build: Callable[[], nn.Module], device: torch.device) -> tuple[Model, Any, Any, Tensor]:
    model = Model(build)
    params, state = model.init(random.key(0), device=device)
    return model, params, state, random.normal(random.key(1), (_BATCH, _WIDTH)).to(device)


def _call(setting: Setting) -> Subject:
    device = setting.device
    model, params, state, x = _start(_deep, device)
    module = model.bind(params, state).eval()
    held = lambda: bytes_of(params, state)  # noqa: E731

    def plain() -> Any:
        with torch.no_grad():
            return module(x)

    def pure() -> Any:
        with torch.no_grad():
            return model(params, state, x)

    def raw() -> Any:
        with torch.no_grad():
            return torch.func.functional_call(module, params, (x,))

    calls = {"module": plain, "model": pure, "functional_call": raw}
    made = {name: Way(partial(Running, call, held)) for name, call in calls.items()}
    return Subject("overhead", made, ("module",), settings={"layers": _LAYERS, "width": _WIDTH}, device=device)


def _gradient(setting: Setting) -> Subject:
    device = setting.device
    model, params, state, x = _start(_deep, device)
    module = model.bind(params, state)
    held = lambda: bytes_of(params, state)  # noqa: E731

    def backward() -> Any:
        module.zero_grad(set_to_none=True)
        module(x).square().sum().backward()
        return [p.grad for p in module.parameters()]

    def loss(params: Any) -> Tensor:
        value: Tensor = model.apply(params, state, x)[0].square().sum()
        return value

    def raw(params: Any) -> Tensor:
        value: Tensor = torch.func.functional_call(module, params, (x,)).square().sum()
        return value

    ours, theirs = grad(loss), torch.func.grad(raw)
    calls = {
        "backward": backward,
        "gradient": lambda: list(ours(params).values()),
        "torch.func.grad": lambda: list(theirs(params).values()),
    }
    made = {name: Way(partial(Running, call, held)) for name, call in calls.items()}
    settings = {"layers": _LAYERS, "width": _WIDTH}
    return Subject("overhead-gradient", made, ("backward",), settings=settings, device=device)


def _thousand(setting: Setting) -> Subject:
    """A training step of 500 tiny layers: 1,000 parameters."""

    def build() -> nn.Module:
        layers = [part for _ in range(499) for part in (nn.Linear(8, 8), nn.Tanh())]
        return nn.Sequential(*layers, nn.Linear(8, 10))

    def batch(key: Tensor) -> Any:
        return classified(key, shape=(_BATCH, 8), classes=10)

    workload = Workload("thousand-parameters", build, batch, cross_entropy, _BATCH, "example", settings={"layers": 500})
    return ways.training(workload, setting)


def _blocks(setting: Setting) -> Subject:
    """A training step of equal blocks, compiled, as they are and stacked: how the time to compile grows with them."""
    device = setting.device
    optimizer = optim.adam(1e-3)

    def block() -> nn.Module:
        return nn.TransformerEncoderLayer(_WIDE, 4, 4 * _WIDE, dropout=0.0, batch_first=True, norm_first=True)

    def make(count: int, stack: bool) -> Running:
        def build() -> nn.Module:
            blocks = nn.Sequential(*(block() for _ in range(count)))
            return stacked(blocks, "") if stack else blocks

        model = Model(build)
        x = random.normal(random.key(1), (2, 16, _WIDE)).to(device)

        def loss(params: Any, state: Any, x: Tensor, key: Tensor) -> Any:
            out, state = model.apply(params, state, x, train=True, key=key)
            return out.square().mean(), (state, {})

        step = jit(make_step(loss, optimizer), donate=0)
        states = [TrainState.create(*model.init(random.key(0), device=device), optimizer, random.key(2))]

        def run() -> Any:
            states[0], metrics = step(states[0], x)
            return metrics["loss"]

        return Running(run, lambda: bytes_of(states[0]))

    made = {
        "12 blocks": Way(partial(make, 12, False), compiled=True),
        "12 blocks, stacked": Way(partial(make, 12, True), compiled=True),
        "48 blocks, stacked": Way(partial(make, 48, True), compiled=True, agrees=False),  # another network
    }
    return Subject("blocks", made, ("12 blocks",), settings={"width": _WIDE}, device=device)


SUBJECTS: Mapping[str, Callable[[Setting], Subject]] = {
    "overhead": _call,
    "overhead-gradient": _gradient,
    "thousand-parameters": _thousand,
    "blocks": _blocks,
}
