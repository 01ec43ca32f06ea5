"""Peak memory of a training step, each way in a process of its own (Linux: peak resident set).

    python benchmarks/memory.py donation [--width 4096] [--layers 4]
    python benchmarks/memory.py remat    [--width 256] [--layers 24] [--tokens 256] [--batch 8]

Donation should bring a pure step down to an optimizer that works in place, and recomputation the gradient of a deep
transformer down to what one of its blocks needs.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from funcnet import TrainState, jit, make_step, optim, random, remat, value_and_grad
from funcnet.model import Model

DONATION = ("module, in place", "pure compiled, donated", "pure compiled", "pure eager")
REMAT = ("eager", "eager, remat", "compiled", "compiled, remat")


def network(width: int, layers: int) -> nn.Module:
    return nn.Sequential(*[m for _ in range(layers) for m in (nn.Linear(width, width), nn.ReLU())])


def module_step(width: int, layers: int, x: torch.Tensor) -> Callable[[], Any]:
    with random.seeded(random.key(0)):
        module = network(width, layers)
    # fused=True is the optimizer that works in place with no memory of its own beyond the moments
    opt = torch.optim.Adam(module.parameters(), 1e-4, fused=True)

    def step() -> None:
        opt.zero_grad(set_to_none=True)
        F.mse_loss(module(x), x).backward()
        opt.step()

    return step


def pure_step(way: str, width: int, layers: int, x: torch.Tensor) -> Callable[[], Any]:
    model = Model(network, width, layers)
    optimizer = optim.adam(1e-4)

    def loss(params: Any, state: Any, batch: Any, key: Any) -> Any:
        out, state = model.apply(params, state, batch, train=True)
        return F.mse_loss(out, batch), (state, {})

    step = make_step(loss, optimizer)
    if way.startswith("pure compiled"):
        step = jit(step, donate=0 if way.endswith("donated") else ())
    ts = TrainState.create(*model.init(random.key(0)), optimizer, random.key(1))

    def run() -> None:
        nonlocal ts
        ts, _ = step(ts, x)

    return run


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norms[0](x)
        x = x + self.dropout(self.attention(h, h, h, need_weights=False)[0])
        return x + self.dropout(self.mlp(self.norms[1](x)))


class Blocks(nn.Module):
    def __init__(self, width: int, layers: int, again: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.again = again

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = remat(block)(x) if self.again else block(x)
        return x


def gradient(way: str, width: int, layers: int, x: torch.Tensor) -> Callable[[], Any]:
    model = Model(Blocks, width, layers, way.endswith("remat"))
    params, state = model.init(random.key(0))

    def loss(params: Any, key: Any) -> Any:
        return model.apply(params, state, x, train=True, key=key)[0].square().mean()

    both = value_and_grad(loss)
    if way.startswith("compiled"):
        both = jit(both)
    return lambda: both(params, random.key(1))


def resident(field: str) -> float:
    """A line of /proc/self/status, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(field)).split()[1]) / 1024


def measure(what: str, way: str, args: argparse.Namespace) -> dict[str, float]:
    if what == "donation":
        x = random.normal(random.key(2), (args.batch, args.width))
        before = resident("VmRSS")
        make = module_step if way.startswith("module") else partial(pure_step, way)
        run = make(args.width, args.layers, x)
    else:
        x = random.normal(random.key(2), (args.batch, args.tokens, args.width))
        run = gradient(way, args.width, args.layers, x)
    run()  # compiles, and makes the optimizer's moments
    run()
    gc.collect()
    if what == "remat":  # the parameters, the input and what the compiler holds are no part of the gradient
        ctypes.CDLL(None).malloc_trim(0)
        before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    start = time.perf_counter()
    for _ in range(args.steps):
        run()
    seconds = (time.perf_counter() - start) / args.steps
    return {"peak": resident("VmHWM") - before, "seconds": seconds}


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("donation", "remat"))
    parser.add_argument("--width", type=int)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--way", help="measure one way in this process, and print JSON")
    args = parser.parse_args(argv)
    width, layers = (4096, 4) if args.what == "donation" else (256, 24)
    args.width, args.layers = args.width or width, args.layers or layers
    if args.way:
        print(json.dumps(measure(args.what, args.way, args)))
        return {}
    ways = DONATION if args.what == "donation" else REMAT
    peaks = {}
    # Freed memory goes back at once, so that the peak is of what is in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    options = [f"--{name}={getattr(args, name)}" for name in ("width", "layers", "tokens", "batch", "steps")]
    for way in ways:
        command = [sys.executable, __file__, args.what, "--way", way, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        result = json.loads(done.stdout.splitlines()[-1])
        peaks[way] = result["peak"]
        print(f"  {way:24s} {peaks[way]:7.0f} MiB  {peaks[way] / peaks[ways[0]]:.2f} of {ways[0]}  ", end="")
        print(f"{result['seconds']:.2f} s a step", flush=True)
    return peaks


if __name__ == "__main__":
    main()
