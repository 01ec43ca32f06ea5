"""Updates of optimizers, in one run: funcnet, torch.optim, optax under jax.jit, and TorchOpt where it is installed.

    python benchmarks/optim.py [--optimizers adam,sgd] [--trees resnet50,tiny] [--rounds 20] [--json OUT]

A step makes new parameters and a new state from one gradient, as a training loop would. Times are medians of blocks of
steps, all ways in turn; each ratio has the 95 % confidence interval of the median over rounds. "Best" is the faster of
torch's eager ways, foreach and fused; "donating" writes into the memory of the old values as they do. Peak memory is in
`benchmarks/memory.py optim`.
"""

import argparse
import importlib.util
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from rich.console import Console
from rich.table import Table

from funcnet import bench, jit, optim, random, tree

RATE = 1e-4


def resnet50() -> dict[str, torch.Tensor]:
    """The 161 parameters of resnet50, 25.6 million numbers."""
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in torchvision.models.resnet50().named_parameters()}
    return drawn(shapes)


def tiny() -> dict[str, torch.Tensor]:
    """160 vectors of 16 numbers: what is left is the cost of a step."""
    return drawn({f"layer{i}.weight": torch.Size([16]) for i in range(160)})


def drawn(shapes: dict[str, torch.Size]) -> dict[str, torch.Tensor]:
    """Normal numbers for every shape."""
    return {name: random.normal(random.fold_in(random.key(0), i), s) for i, (name, s) in enumerate(shapes.items())}


TREES = {"resnet50": resnet50, "tiny": tiny}

# An optimizer by its funcnet, torch and optax arguments.
OPTIMIZERS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "adam": ({}, "Adam", {}),
    "adamw": ({"weight_decay": 1e-2}, "AdamW", {"weight_decay": 1e-2}),
    "sgd": ({"momentum": 0.9}, "SGD", {"momentum": 0.9}),
    "rmsprop": ({"decay": 0.99, "eps_in_sqrt": False}, "RMSprop", {"alpha": 0.99}),
}


def torch_step(name: str, how: str, params: dict[str, torch.Tensor], grads: dict[str, torch.Tensor]) -> Any:
    """torch.optim in place: "foreach", "fused", or compiled."""
    _, kind, kwargs = OPTIMIZERS[name]
    own = [torch.nn.Parameter(p.clone()) for p in params.values()]
    for p, g in zip(own, grads.values(), strict=True):
        p.grad = g.clone()
    if how == "compiled":
        optimizer = getattr(torch.optim, kind)(own, lr=torch.tensor(RATE), **kwargs)
        return torch.compile(optimizer.step)
    return getattr(torch.optim, kind)(own, lr=RATE, **kwargs, **{how: True}).step


def funcnet_step(name: str, compiled: bool, params: Any, grads: Any, donate: bool = True) -> Callable[[], None]:
    """A pure update and its application, which donates what it replaces."""
    kwargs, _, _ = OPTIMIZERS[name]
    optimizer = getattr(optim, name)(RATE, **kwargs)

    def step(params: Any, state: Any, grads: Any) -> Any:
        return optim.advance(optimizer, grads, state, params, donate=donate)

    run = jit(step, donate=(0, 1)) if compiled else step
    now = tree.map(torch.clone, params), optimizer.init(params)

    def again() -> None:
        nonlocal now
        now = run(*now, grads)

    return again


def optax_step(name: str, params: Any, grads: Any) -> Callable[[], None]:
    """optax under jax.jit, which donates."""
    import jax
    import optax

    kwargs, _, _ = OPTIMIZERS[name]
    optimizer = getattr(optax, name)(RATE, **kwargs)
    params, grads = (jax.tree.map(lambda t: jax.numpy.array(t.numpy()), value) for value in (params, grads))

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    now = params, optimizer.init(params)

    def again() -> None:
        nonlocal now
        now = jax.block_until_ready(step(*now, grads))

    return again


def torchopt_step(name: str, params: Any, grads: Any) -> Callable[[], None]:
    """TorchOpt's functional optimizer of the same name."""
    import torchopt

    *_, kwargs = OPTIMIZERS[name]  # it has torch's names
    optimizer = getattr(torchopt, name)(RATE, **kwargs)
    state = optimizer.init(params)

    def again() -> None:
        nonlocal params, state
        updates, state = optimizer.update(grads, state, params=params, inplace=False)
        params = torchopt.apply_updates(params, updates, inplace=False)

    return again


def ways(name: str, params: Any, grads: Any) -> dict[str, Callable[[], Any]]:
    """Every way that is installed."""
    found = {f"torch {how}": torch_step(name, how, params, grads) for how in ("foreach", "compiled")}
    if name in ("adam", "adamw", "sgd"):
        found["torch fused"] = torch_step(name, "fused", params, grads)
    found["funcnet eager"] = funcnet_step(name, False, params, grads, donate=False)
    found["funcnet donating"] = funcnet_step(name, False, params, grads)
    found["funcnet compiled"] = funcnet_step(name, True, params, grads)
    if importlib.util.find_spec("optax"):
        found["optax jit"] = optax_step(name, params, grads)
    if importlib.util.find_spec("torchopt"):
        found["torchopt"] = torchopt_step(name, params, grads)
    return found


def measured(name: str, which: str, rounds: int) -> dict[str, Any]:
    """Milliseconds of every way, and the ratios that the project holds itself to."""
    params = TREES[which]()
    grads = tree.map(lambda p: 1e-3 * p, params)
    with torch.no_grad():
        timings = bench.compare(ways(name, params, grads), rounds=rounds, block=2 if which == "resnet50" else 20)
    best = min((w for w in timings if w in ("torch foreach", "torch fused")), key=lambda w: timings[w].median)
    eager, donating = (timings[f"funcnet {how}"].over(timings[best]) for how in ("eager", "donating"))
    compiled = timings["funcnet compiled"].over(timings["torch compiled"])
    return {
        "optimizer": name,
        "tree": which,
        "ms": {way: 1e3 * timing.median for way, timing in timings.items()},
        "best in place": best,
        "eager / best": eager,
        "donating / best": donating,
        "compiled / torch compiled": compiled,
    }


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--optimizers", default="adam,adamw,sgd,rmsprop")
    parser.add_argument("--trees", default="resnet50,tiny")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    print(f"torch {torch.__version__}, {bench.environment()['machine']}, {torch.get_num_threads()} threads\n")
    results = [measured(o, t, args.rounds) for t in args.trees.split(",") for o in args.optimizers.split(",")]
    names = list(dict.fromkeys(way for result in results for way in result["ms"]))
    ratios = [name for name in results[0] if " / " in name]
    table = Table("tree", "optimizer", *(f"{name}, ms" for name in names), *ratios)
    for result in results:
        times = [f"{result['ms'][name]:.2f}" if name in result["ms"] else "" for name in names]
        figures = [f"{middle:.2f} ({low:.2f} to {high:.2f})" for middle, low, high in map(result.get, ratios)]
        table.add_row(result["tree"], result["optimizer"], *times, *figures)
    Console(width=200).print(table)
    if args.json:
        args.json.write_text(json.dumps({**bench.environment(), "results": results}, indent=1) + "\n")
    return results


if __name__ == "__main__":
    main()
