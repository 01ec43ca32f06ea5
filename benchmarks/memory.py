"""Peak memory of a training step, each way in a process of its own (Linux: peak resident set).

    python benchmarks/memory.py [--width 4096] [--layers 4]

Donation should bring a pure step down to an optimizer that works in place.
"""

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from funcnet import TrainState, jit, make_step, optim, random
from funcnet.model import Model

WAYS = ("module, in place", "pure compiled, donated", "pure compiled", "pure eager")


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


def resident(field: str) -> float:
    """A line of /proc/self/status, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(field)).split()[1]) / 1024


def measure(way: str, width: int, layers: int) -> dict[str, float]:
    x = random.normal(random.key(2), (8, width))
    before = resident("VmRSS")
    run = module_step(width, layers, x) if way.startswith("module") else pure_step(way, width, layers, x)
    run()  # compiles, and makes the optimizer's moments
    run()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    for _ in range(5):
        run()
    return {"peak": resident("VmHWM") - before}


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--way", choices=WAYS, help="measure one way in this process, and print JSON")
    args = parser.parse_args(argv)
    if args.way:
        print(json.dumps(measure(args.way, args.width, args.layers)))
        return {}
    parameters = args.layers * (args.width**2 + args.width) * 4 / 2**20
    print(f"parameters {parameters:.0f} MiB in float32; with gradients and Adam's moments {4 * parameters:.0f} MiB")
    peaks = {}
    for way in WAYS:
        command = [sys.executable, __file__, "--way", way, "--width", str(args.width), "--layers", str(args.layers)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[way] = json.loads(done.stdout.splitlines()[-1])["peak"]
        print(f"  {way:24s} {peaks[way]:7.0f} MiB  {peaks[way] / peaks[WAYS[0]]:.2f} of in place")
    return peaks


if __name__ == "__main__":
    main()
