"""What a scan costs to compile and to run, against the same steps written out in a Python loop.

    python benchmarks/scan_compile.py [--lengths 16 64 256] [--unrolled 16 64] [--hidden 64] [--batch 16]

The function is the gradient of a loss through two layers of a GRU-like cell (Cho et al. 2014). Each compilation is in
a process of its own with empty caches, after one small compilation that brings the compiler in. Running times are
ratios of runs by turns in one process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from funcnet import jit, random, scan, value_and_grad
from funcnet.bench import compare

WAYS = ("scan", "unrolled")


def weights(hidden: int) -> list[dict[str, Tensor]]:
    def normal(n: int, *shape: int) -> Tensor:
        return random.normal(random.key(n), shape) / hidden**0.5

    return [{"w": normal(2 * n, hidden, 3 * hidden), "u": normal(2 * n + 1, hidden, 3 * hidden)} for n in range(2)]


def cell(layer: dict[str, Tensor], h: Tensor, x: Tensor) -> Tensor:
    update, reset, new = (x @ layer["w"]).chunk(3, -1)
    update_h, reset_h, new_h = (h @ layer["u"]).chunk(3, -1)
    gate = torch.sigmoid(update + update_h)
    return gate * h + (1 - gate) * torch.tanh(new + torch.sigmoid(reset + reset_h) * new_h)


def gradient(unrolled: bool) -> Callable[..., Any]:
    def loss(layers: list[dict[str, Tensor]], xs: Tensor) -> Tensor:
        def step(hs: tuple[Tensor, Tensor], x: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
            first = cell(layers[0], hs[0], x)
            second = cell(layers[1], hs[1], first)
            return (first, second), second

        _, ys = scan(step, (torch.zeros_like(xs[0]), torch.zeros_like(xs[0])), xs, unroll=unrolled)
        return ys.square().mean()

    return value_and_grad(loss)


def inputs(args: argparse.Namespace, length: int) -> tuple[Any, Tensor]:
    return weights(args.hidden), random.normal(random.key(9), (length, args.batch, args.hidden))


def compile_seconds(args: argparse.Namespace, way: str, length: int) -> float:
    """In this process: the first call, less a second one."""
    jit(lambda x: x.exp() @ x)(torch.ones(3, 3))
    compiled, given = jit(gradient(way == "unrolled")), inputs(args, length)
    start = time.perf_counter()
    compiled(*given)
    between = time.perf_counter()
    compiled(*given)
    return 2 * between - start - time.perf_counter()


def in_process(args: argparse.Namespace, way: str, length: int) -> float:
    shape = ["--hidden", str(args.hidden), "--batch", str(args.batch)]
    with tempfile.TemporaryDirectory() as empty:
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": empty}
        done = subprocess.run(
            [sys.executable, __file__, "--one", way, str(length), *shape],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--unrolled", type=int, nargs="*", default=[16, 64])
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(compile_seconds(args, args.one[0], int(args.one[1]))))
        return
    table = Table("length", "compile scan, s", "of the first", "compile unrolled, s", "run: compiled scan / eager loop")
    first: float | None = None
    for length in args.lengths:
        seconds = {way: in_process(args, way, length) for way in WAYS if way == "scan" or length in args.unrolled}
        first = first or seconds["scan"]
        eager, compiled, given = gradient(True), jit(gradient(False)), inputs(args, length)
        timings = compare(
            {"eager": partial(eager, *given), "compiled": partial(compiled, *given)}, rounds=args.rounds, block=2
        )
        ratio, low, high, _ = timings["compiled"].over(timings["eager"])
        table.add_row(
            str(length),
            f"{seconds['scan']:.1f}",
            f"{seconds['scan'] / first:.2f}",
            f"{seconds['unrolled']:.1f}" if "unrolled" in seconds else "",
            f"{ratio:.2f} ({low:.2f} to {high:.2f})",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
