"""Many networks, many examples: what vmap is for."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from funcnet import optim, random, tree
from funcnet.bench.subject import Running, Setting, Subject, Way, bytes_of
from funcnet.bench.ways.in_jax import missing
from funcnet.jit import jit
from funcnet.model import Model
from funcnet.transforms import grad, per_example_grad, value_and_grad, vmap

__all__ = ["SUBJECTS"]

_RATE, _FEATURES, _CLASSES = 1e-3, 64, 10


def _network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(_FEATURES, 64), nn.ReLU(), nn.Linear(64, _CLASSES))


def _batch(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    x = random.normal(random.key(1), (size, _FEATURES))
    return x.to(device), random.randint(random.key(2), (size,), 0, _CLASSES).long().to(device)


def _ensemble(count: int, setting: Setting) -> Subject:
    """A training step of some small networks on one batch."""
    device = setting.device
    model, (x, y) = Model(_network), _batch(32, device)
    optimizer = optim.adam(_RATE)
    params, state = vmap(lambda key: model.init(key))(random.split(random.key(0), count))
    params = tree.map(lambda leaf: leaf.to(device), params)

    def step(params: Any, opt_state: Any) -> Any:
        loss = lambda p: F.cross_entropy(model.apply(p, state, x, train=True)[0], y)  # noqa: E731
        value, grads = value_and_grad(loss)(params)
        params, opt_state = optim.advance(optimizer, grads, opt_state, params)
        return params, opt_state, value

    def loop() -> Running:
        modules = [model.bind(tree.map(lambda leaf, i=i: leaf[i], params), {}) for i in range(count)]
        rules = [torch.optim.Adam(module.parameters(), lr=_RATE, fused=True) for module in modules]

        def run() -> Any:
            losses = []
            for module, rule in zip(modules, rules, strict=True):
                rule.zero_grad(set_to_none=True)
                losses.append(F.cross_entropy(module(x), y))
                losses[-1].backward()  # type: ignore[no-untyped-call]  # torch's own method
                rule.step()
            return torch.stack(losses)

        return Running(run, lambda: 4 * bytes_of(params))

    def vmapped(compiled: bool) -> Running:
        many: Any = vmap(step)
        many = jit(many, donate=(0, 1)) if compiled else many
        held = tree.map(torch.clone, (params, vmap(optimizer.init)(params)))  # a count is expanded, and has no memory

        def run() -> Any:
            nonlocal held
            *new, losses = many(*held)
            held = (new[0], new[1])
            return losses

        return Running(run, lambda: bytes_of(held))

    ways = {
        "loop of eager steps": Way(loop),
        "vmapped": Way(lambda: vmapped(False)),
        "vmapped, compiled": Way(lambda: vmapped(True), compiled=True),
    }
    settings = {"networks": count, "batch": 32}
    name = f"ensemble-{count}"
    return Subject(name, ways, ("loop of eager steps",), count, "network", settings, device=device)


def _per_example(setting: Setting) -> Subject:
    """The gradient of each example of a batch."""
    device = setting.device
    model, (x, y) = Model(_network), _batch(64, device)
    params, state = model.init(random.key(0), device=device)

    def loss(params: Any, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model.apply(params, state, x)[0], y, reduction="sum")

    def loop() -> Running:
        one = grad(loss)
        stack = lambda *leaves: torch.stack(leaves)  # noqa: E731
        return Running(
            lambda: list(tree.map(stack, *[one(params, a, b) for a, b in zip(x, y, strict=True)]).values()),
            lambda: bytes_of(params),
        )

    def ours(compiled: bool) -> Running:
        every: Any = per_example_grad(lambda p, batch: loss(p, *batch))
        every = jit(every) if compiled else every
        return Running(lambda: list(every(params, (x, y)).values()), lambda: bytes_of(params))

    def opacus() -> Running:
        from opacus import GradSampleModule

        module = GradSampleModule(model.bind(params, state), loss_reduction="sum")

        def run() -> Any:
            module.zero_grad(set_to_none=True)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Full backward hook is firing")  # on its own hooks
                F.cross_entropy(module(x), y, reduction="sum").backward()  # type: ignore[no-untyped-call]  # torch's
            return [p.grad_sample for p in module.parameters()]

        return Running(run, lambda: bytes_of(params))

    ways = {
        "loop": Way(loop),
        "Opacus": Way(opacus, absent=missing("opacus")),
        "per_example_grad": Way(lambda: ours(False)),
        "per_example_grad, compiled": Way(lambda: ours(True), compiled=True),
    }
    return Subject("per-example", ways, ("loop", "Opacus"), 64, "example", {"batch": 64}, device=device)


SUBJECTS: Mapping[str, Callable[[Setting], Subject]] = {
    **{f"ensemble-{count}": partial(_ensemble, count) for count in (1, 4, 16, 64, 256)},
    "per-example": _per_example,
}
