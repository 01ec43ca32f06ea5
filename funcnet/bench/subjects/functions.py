"""Functions of functions: Hessian-vector products, an epoch as one scan, keyed draws."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from funcnet import optim, random, tree
from funcnet.bench.subject import Running, Setting, Subject, Way, bytes_of
from funcnet.bench.ways.in_jax import Jitted, absent, placed
from funcnet.control import scan
from funcnet.jit import jit
from funcnet.model import Model
from funcnet.train import TrainState, make_step
from funcnet.transforms import hvp

__all__ = ["SUBJECTS"]

_RATE, _DRAWS = 1e-4, 1_000_000


def _network() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.Tanh(), nn.Linear(128, 10))


def _images(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Noise of MNIST's size, with labels."""
    x = random.normal(random.key(1), (count, 28, 28))
    return x.to(device), random.randint(random.key(2), (count,), 0, 10).long().to(device)


def _hvp(setting: Setting) -> Subject:
    """The product of a loss's Hessian with a vector."""
    device = setting.device
    model, (x, y) = Model(_network), _images(64, device)
    params, state = model.init(random.key(0), device=device)
    names = list(params)
    tangent = {
        name: random.normal(random.fold_in(random.key(3), i), tuple(params[name].shape)).to(device)
        for i, name in enumerate(names)
    }

    def loss(params: Any) -> Tensor:
        return F.cross_entropy(model.apply(params, state, x)[0], y)

    def product(params: Any, tangent: Any) -> Any:
        return list(hvp(loss, (params,), (tangent,)).values())

    def backward() -> Running:
        """Reverse over reverse, as torch.autograd has it."""
        module = model.bind(params, state)

        def run() -> Any:
            leaves = list(module.parameters())
            grads = torch.autograd.grad(F.cross_entropy(module(x), y), leaves, create_graph=True)
            along = torch.stack([(g * v).sum() for g, v in zip(grads, tangent.values(), strict=True)]).sum()
            return torch.autograd.grad(along, leaves)

        return Running(run, lambda: bytes_of(params))

    def ours(compiled: bool) -> Running:
        run: Any = jit(product) if compiled else product
        return Running(lambda: run(params, tangent), lambda: bytes_of(params))

    def in_jax() -> Running:
        import jax

        arrays = tree.map(lambda t: t.cpu().numpy(), (x, y, params, tangent))
        with placed(device) as there:
            images, labels, given, vector = jax.device_put(jax.tree.map(jax.numpy.asarray, arrays), there)

        def loss(p: Any) -> Any:
            hidden = jax.numpy.tanh(images.reshape(64, -1) @ p["1.weight"].T + p["1.bias"])
            scores = jax.nn.log_softmax(hidden @ p["3.weight"].T + p["3.bias"])
            return -jax.numpy.take_along_axis(scores, labels[:, None], 1).mean()

        def product(params: Any, tangent: Any) -> Any:
            out = jax.jvp(jax.grad(loss), (params,), (tangent,))[1]
            return [out[name] for name in names]

        run = Jitted(product, device)
        return Running(lambda: run(given, vector), lambda: bytes_of(given), run.wait, run.taken)

    ways = {
        "backward of backward": Way(backward),
        "funcnet": Way(partial(ours, False)),
        "funcnet compiled": Way(partial(ours, True), compiled=True),
        "jax": Way(in_jax, compiled=True, absent=absent(device)),
    }
    return Subject("hvp", ways, ("backward of backward",), 64, "image", {"batch": 64}, device=device)


def _epoch(setting: Setting) -> Subject:
    """An epoch over 2,048 images of MNIST's size in batches of 64: a loop of steps, or one compiled scan."""
    device = setting.device
    count, batch = 2048, 64
    model, (x, y) = Model(_network), _images(count, device)
    batches = x.reshape(-1, batch, 28, 28), y.reshape(-1, batch)
    optimizer = optim.adam(_RATE)

    def loss(params: Any, state: Any, batch: Any, key: Tensor) -> Any:
        output, state = model.apply(params, state, batch[0], train=True)
        return F.cross_entropy(output, batch[1]), (state, {})

    step = make_step(loss, optimizer)

    def start() -> TrainState:
        return TrainState.create(*model.init(random.key(0), device=device), optimizer, random.key(4).to(device))

    def looped(one: Any, make: Callable[[], Any]) -> Running:
        """A loop of steps in Python."""
        ts = make()

        def run() -> Any:
            nonlocal ts
            losses = []
            for batch in zip(*batches, strict=True):
                ts, metrics = one(ts, batch)
                losses.append(metrics["loss"])
            return torch.stack(losses)

        return Running(run, lambda: bytes_of(ts))

    def module() -> Running:
        net = model.bind(*model.init(random.key(0), device=device))
        rule = torch.optim.Adam(net.parameters(), lr=_RATE, fused=True)

        def one(_: Any, batch: Any) -> Any:
            rule.zero_grad(set_to_none=True)
            loss = F.cross_entropy(net(batch[0]), batch[1])
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own method
            rule.step()
            return None, {"loss": loss.detach()}

        return looped(one, lambda: list(net.parameters()))

    def scanned() -> Running:
        def epoch(ts: TrainState, batches: Any) -> Any:
            return scan(step, ts, batches)

        compiled, ts = jit(epoch, donate=0), start()

        def run() -> Any:
            nonlocal ts
            ts, metrics = compiled(ts, batches)
            return metrics["loss"]

        return Running(run, lambda: bytes_of(ts))

    ways = {
        "module, fused": Way(module),
        "funcnet": Way(lambda: looped(step, start)),
        "funcnet compiled": Way(lambda: looped(jit(step, donate=0), start), compiled=True),
        "one compiled scan": Way(scanned, compiled=True),
    }
    settings = {"images": count, "batch": batch}
    return Subject("epoch", ways, ("module, fused",), count, "image", settings, device=device)


def _draws(name: str, setting: Setting) -> Subject:
    """A million random numbers; torch's come from a global generator, and are others."""
    device = setting.device
    key, shape = random.key(0).to(device), (_DRAWS,)
    draw = getattr(random, name)
    generator = torch.Generator(device).manual_seed(0)
    theirs = {"uniform": torch.rand, "normal": torch.randn}[name]

    def in_jax() -> Running:
        import jax

        run = Jitted(lambda key: getattr(jax.random, name)(key, shape), device)
        with placed(device) as there:
            key = jax.device_put(jax.random.key(0), there)
        return Running(lambda: run(key), lambda: 0, run.wait, run.taken)

    def compiled() -> Running:
        run = jit(lambda key: draw(key, shape))
        return Running(lambda: run(key), lambda: 0)

    original = Way(lambda: Running(lambda: theirs(shape, generator=generator, device=device), lambda: 0), agrees=False)
    ways = {
        f"torch.{theirs.__name__}": original,
        "funcnet": Way(lambda: Running(lambda: draw(key, shape), lambda: 0)),
        "funcnet compiled": Way(compiled, compiled=True),
        "jax": Way(in_jax, compiled=True, absent=absent(device)),
    }
    return Subject(name, ways, (f"torch.{theirs.__name__}",), _DRAWS, "number", device=device)


SUBJECTS: Mapping[str, Callable[[Setting], Subject]] = {
    "hvp": _hvp,
    "epoch": _epoch,
    "uniform": partial(_draws, "uniform"),
    "normal": partial(_draws, "normal"),
}
