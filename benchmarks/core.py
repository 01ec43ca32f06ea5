"""One run, paired and interleaved: pure compiled and pure eager steps against nn.Module with torch.optim.

    python benchmarks/core.py [--rounds 20] [--block 10]

Prints medians with the 10th and 90th percentile, and the ratios the project holds itself to.
"""

import argparse
import platform
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from funcnet import bench, jit, optim, random
from funcnet.model import Model
from funcnet.train import TrainState, make_step

LR = 1e-4  # small, so that the loss does not reach zero, where denormals slow every variant at random


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))


def cnn() -> nn.Module:
    def stage(channels: int, features: int) -> list[nn.Module]:
        conv = nn.Conv2d(channels, features, 3, padding=1)
        return [conv, nn.BatchNorm2d(features), nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(*stage(3, 32), *stage(32, 64), nn.Flatten(), nn.Linear(64 * 8 * 8, 10))


def module_step(module: nn.Module, batch: Any, compiled: bool, optimizer: str) -> Callable[[], Any]:
    """A training step as PyTorch's own users write it."""
    x, y = batch
    lr = torch.tensor(LR) if optimizer == "compiled" else LR
    opt = torch.optim.Adam(module.parameters(), lr=lr, fused=optimizer == "fused" or None)
    forward = torch.compile(module) if compiled else module
    update = torch.compile(opt.step) if optimizer == "compiled" else opt.step

    def step() -> Any:
        opt.zero_grad(set_to_none=True)
        loss = F.cross_entropy(forward(x), y)
        loss.backward()
        update()
        return loss

    return step


def pure_step(
    constructor: Callable[[], nn.Module], batch: Any, compiled: bool, donate: bool = False
) -> Callable[[], Any]:
    model = Model(constructor)
    params, state = model.init(random.key(0), device=batch[0].device)
    optimizer = optim.adam(LR)

    def loss(params: Any, state: Any, batch: Any, key: Any) -> Any:
        x, y = batch
        logits, state = model.apply(params, state, x, train=True)
        return F.cross_entropy(logits, y), (state, {})

    step = make_step(loss, optimizer, donate=donate)
    if compiled:
        step = jit(step, donate=0)
    ts = TrainState.create(params, state, optimizer, random.key(1))

    def run() -> Any:
        nonlocal ts
        ts, metrics = step(ts, batch)
        return metrics

    return run


def race(name: str, constructor: Callable[[], nn.Module], shape: tuple[int, ...], args: argparse.Namespace) -> None:
    device = torch.device(args.device)
    x = random.normal(random.key(2), shape).to(device)
    y = random.randint(random.key(3), shape[:1], 0, 10).long().to(device)
    steps = {
        "module eager, fused": module_step(constructor().to(device), (x, y), False, "fused"),
        "module compiled, fused": module_step(constructor().to(device), (x, y), True, "fused"),
        "module compiled, compiled": module_step(constructor().to(device), (x, y), True, "compiled"),
        "pure eager": pure_step(constructor, (x, y), False),
        "pure eager, donating": pure_step(constructor, (x, y), False, donate=True),
        "pure compiled": pure_step(constructor, (x, y), True),
    }
    print(f"\n{name}, batch {shape[0]}")
    for label, step in steps.items():
        start = time.perf_counter()
        for _ in range(3):
            step()
        print(f"  {label:28s} first three steps {time.perf_counter() - start:6.2f} s")
    timings = bench.compare(steps, rounds=args.rounds, block=args.block)
    for label, t in timings.items():
        print(f"  {label:28s} {t.median * 1e3:8.3f} ms  ({t.low * 1e3:.3f} to {t.high * 1e3:.3f})")
    best = min((label for label in steps if label.startswith("module")), key=lambda label: timings[label].median)
    compiled = timings["pure compiled"].over(timings[best])
    print(f"  pure compiled / {best}: {compiled[0]:.3f} ({compiled[1]:.3f} to {compiled[2]:.3f}), target 1.0")
    for way in ("pure eager", "pure eager, donating"):
        eager = timings[way].over(timings["module eager, fused"])
        print(f"  {way} / module eager, fused: {eager[0]:.3f} ({eager[1]:.3f} to {eager[2]:.3f}), target 1.25")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--block", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads")
    race("MLP 784-512-256-10", mlp, (64, 784), args)
    race("CNN, two 3x3 convolutions with BatchNorm", cnn, (64, 3, 32, 32), args)


if __name__ == "__main__":
    main()
