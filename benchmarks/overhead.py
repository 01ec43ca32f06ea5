"""What pure calls cost over torch's own: 100 tiny layers, where hardly anything but overhead is measured.

    python benchmarks/overhead.py [--layers 100] [--rounds 30] [--block 10] [--json FILE]

Each ratio is the median over rounds in which both take turns, with the 10th and 90th percentile. Both sides of a ratio
record for autograd alike: a call of a model of detached parameters is held against the module under `no_grad`.
Exits with 1 where a ratio misses its target.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from funcnet import bench, random, tree, value_and_grad
from funcnet.model import Model

WIDTH, BATCH = 16, 4
TARGETS = {"call": 1.3, "recording call": 1.3, "gradient": 1.2}


class Mine(nn.Module):
    """The same layers in a class of a user's, whose forward may call anything: it runs under the function mode."""

    def __init__(self, layers: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.layers = deep(layers, activation)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def deep(layers: int, activation: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(*[m for _ in range(layers) for m in (nn.Linear(WIDTH, WIDTH), activation())])


def ways(constructor: Callable[..., nn.Module], *args: Any) -> dict[str, Callable[[], Any]]:
    """Both sides of each ratio."""
    model = Model(constructor, *args)
    params, state = model.init(random.key(0))
    module = model.bind(params, state)
    x = random.normal(random.key(1), (BATCH, WIDTH))
    recording = tree.map(lambda p: p.clone().requires_grad_(), params)
    gradient = value_and_grad(lambda params: (model(params, state, x) ** 2).mean())

    def unrecorded() -> Any:
        with torch.no_grad():
            return module(x)

    def backward() -> Any:
        module.zero_grad(set_to_none=True)
        loss = (module(x) ** 2).mean()
        loss.backward()
        return loss

    return {
        "call": lambda: model(params, state, x),
        "call, module": unrecorded,
        "recording call": lambda: model(recording, state, x),
        "recording call, module": lambda: module(x),
        "gradient": lambda: gradient(params),
        "gradient, module": backward,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--block", type=int, default=10)
    parser.add_argument("--json", metavar="FILE", help="also write the ratios, and where they were measured")
    args = parser.parse_args()
    where = (
        f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    )
    print(where)
    nets: dict[str, tuple[Any, ...]] = {
        "Linear and Tanh": (deep, args.layers, nn.Tanh),
        "Linear and ReLU": (deep, args.layers, nn.ReLU),
        "Linear and ReLU in a class of one's own": (Mine, args.layers, nn.ReLU),
    }
    rows = []
    for net, (constructor, *rest) in nets.items():
        timings = bench.compare(ways(constructor, *rest), rounds=args.rounds, block=args.block)
        for name, target in TARGETS.items():
            ours, theirs = timings[name], timings[f"{name}, module"]
            ratio, low, high = ours.over(theirs)
            held = constructor is deep  # the targets are for what needs no mode; the last rows show what one costs
            rows.append({"net": net, "what": name, "ratio": ratio, "low": low, "high": high, "us": ours.median * 1e6})
            rows[-1]["target"] = target if held else None
            print(f"{net}, {name}: {ratio:.3f} ({low:.3f} to {high:.3f}), target {target if held else 'none'}")
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"where": where, "layers": args.layers, "rows": rows}, file, indent=1)
    return int(any(row["target"] is not None and row["ratio"] > row["target"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
