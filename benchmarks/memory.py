"""Peak memory of a training step, each way in a process of its own (Linux: peak resident set).

    python benchmarks/memory.py donation [--width 4096] [--layers 4]
    python benchmarks/memory.py remat    [--width 256] [--layers 24] [--tokens 256] [--batch 8]
    python benchmarks/memory.py optim    [--optimizers adam,sgd] [--tree resnet50]

Donation should bring a pure step down to an optimizer that works in place, recomputation the gradient of a deep
transformer down to what one of its blocks needs, and donation in the update of parameters alone to what torch's own
optimizers need above parameters, gradients and state. Each takes `--json OUT`.
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

import optim as update  # benchmarks/optim.py
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn

from funcnet import TrainState, bench, jit, make_step, optim, random, remat, tree, value_and_grad
from funcnet.model import Model

DONATION = ("module, in place", "pure compiled, donated", "pure compiled", "pure eager")
REMAT = ("eager", "eager, remat", "compiled", "compiled, remat")
OPTIM = ("torch foreach", "torch fused", "torch compiled", "funcnet eager", "funcnet donating", "funcnet compiled")


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


def optimizer_step(way: str, which: str) -> Callable[[], Any]:
    """A step of benchmarks/optim.py, which keeps no second copy of its parameters."""
    name, how = way.split(": ")
    library, kind = how.split()
    params = update.TREES[which]()
    grads = tree.map(lambda p: 1e-3 * p, params)
    if library == "torch":
        return torch.no_grad()(update.torch_step(name, kind, params, grads))
    return update.funcnet_step(name, kind == "compiled", params, grads, donate=kind == "donating")


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
    elif what == "optim":
        run = optimizer_step(way, args.tree)
    else:
        x = random.normal(random.key(2), (args.batch, args.tokens, args.width))
        run = gradient(way, args.width, args.layers, x)
    run()  # compiles, and makes the optimizer's moments
    run()
    gc.collect()
    if what != "donation":  # what is held, and what the compiler holds, is no part of a gradient or an update
        ctypes.CDLL(None).malloc_trim(0)
        before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    start = time.perf_counter()
    for _ in range(args.steps):
        run()
    seconds = (time.perf_counter() - start) / args.steps
    return {"peak": resident("VmHWM") - before, "seconds": seconds}


def ways(args: argparse.Namespace) -> list[str]:
    """Every way that one benchmark compares; the first is what the others are set against."""
    if args.what == "optim":
        pairs = [(name, way) for name in args.optimizers.split(",") for way in OPTIM]
        return [f"{name}: {way}" for name, way in pairs if name != "rmsprop" or way != "torch fused"]  # torch has none
    return list(DONATION if args.what == "donation" else REMAT)


def tabled(peaks: dict[str, float], which: str) -> Table:
    """The peaks of updates by optimizer, and what donation is held to."""
    size = sum(p.nbytes for p in tree.leaves(update.TREES[which]())) / 2**20
    table = Table("optimizer", *(f"{way}, MiB" for way in OPTIM), "compiled less torch's", "donating less fused")
    table.caption = f"above parameters ({size:.1f} MiB), gradients and state"
    for name in dict.fromkeys(way.split(":")[0] for way in peaks):
        own = {way: peaks[f"{name}: {way}"] for way in OPTIM if f"{name}: {way}" in peaks}
        pairs = [("funcnet compiled", "torch compiled"), ("funcnet donating", "torch fused")]
        verdicts = [f"{round(own[a] - own[b], 1) + 0.0:+.1f}" if b in own else "" for a, b in pairs]  # no -0.0
        table.add_row(name, *(f"{own[way]:.1f}" if way in own else "" for way in OPTIM), *verdicts)
    return table


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("donation", "remat", "optim"))
    parser.add_argument("--width", type=int)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--optimizers", default="adam,adamw,sgd,rmsprop")
    parser.add_argument("--tree", default="resnet50", choices=update.TREES)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--way", help="measure one way in this process, and print JSON")
    args = parser.parse_args(argv)
    width, layers = (4096, 4) if args.what == "donation" else (256, 24)
    args.width, args.layers = args.width or width, args.layers or layers
    if args.way:
        print(json.dumps(measure(args.what, args.way, args)))
        return {}
    results: dict[str, dict[str, float]] = {}
    # Freed memory goes back at once, so that the peak is of what is in use.
    variables = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    names = ("tree",) if args.what == "optim" else ("width", "layers", "tokens", "batch")
    options = {name: getattr(args, name) for name in (*names, "steps")}
    for way in ways(args):
        command = [sys.executable, __file__, args.what, "--way", way, *[f"--{k}={v}" for k, v in options.items()]]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=variables)
        results[way] = json.loads(done.stdout.splitlines()[-1])
        peak, first = results[way]["peak"], next(iter(results))
        ratio = "" if args.what == "optim" else f"{peak / results[first]['peak']:.2f} of {first}  "
        print(f"  {way:26s} {peak:7.1f} MiB  {ratio}{results[way]['seconds']:.3f} s a step", flush=True)
    peaks = {way: result["peak"] for way, result in results.items()}
    if args.what == "optim":
        Console(width=160).print(tabled(peaks, args.tree))
    if args.json:
        report = {**bench.environment(), "what": args.what, **options, "unit": "MiB", "results": results}
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return peaks


if __name__ == "__main__":
    main()
