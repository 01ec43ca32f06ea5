"""What a call costs beside the work: a hundred tiny layers, a thousand small parameters, equal blocks to compile."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from funcnet import random, tree
from funcnet.bench import ways
from funcnet.bench.subject import Running, Setting, Subject, Way, bytes_of
from funcnet.bench.workloads.workload import Workload, classified, cross_entropy
from funcnet.jit import jit
from funcnet.model import Model
from funcnet.transforms import grad

__all__ = ["SUBJECTS"]

_WIDTH, _LAYERS, _BATCH = 16, 100, 4


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
    """The gradient of a stack of equal blocks, compiled: how the time to compile grows with their number."""
    device = setting.device

    def block() -> nn.Module:
        return nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True, norm_first=True)

    def make(count: int) -> Running:
        model = Model(lambda: nn.Sequential(*(block() for _ in range(count))))
        params, state = model.init(random.key(0), device=device)
        x = random.normal(random.key(1), (2, 16, 32)).to(device)

        def loss(params: Any, x: Tensor) -> Tensor:
            value: Tensor = model.apply(params, state, x, train=True)[0].square().mean()
            return value

        gradient = jit(grad(loss))
        # What two numbers of blocks agree about is that every gradient is there.
        return Running(
            lambda: torch.tensor([float(len(tree.leaves(gradient(params, x))) // count)]), lambda: bytes_of(params)
        )

    made = {f"{count} blocks": Way(partial(make, count), compiled=True) for count in (12, 48)}
    return Subject("blocks", made, ("12 blocks",), device=device)


SUBJECTS: Mapping[str, Callable[[Setting], Subject]] = {
    "overhead": _call,
    "overhead-gradient": _gradient,
    "thousand-parameters": _thousand,
    "blocks": _blocks,
}
