"""Whole training loops on MNIST, in turns: `fit`, the loop of a tutorial, Lightning's Fabric and Trainer if installed.

    python benchmarks/train.py --data ROOT [--models mlp,cnn] [--steps 200] [--rounds 7] [--json OUT]

ROOT holds MNIST/raw, as `funcnet.data.load("mnist", root=ROOT)` reads it. Every way takes so many steps of 64 digits
with Adam in one piece, loading included, compiling not: what a second run or a later epoch costs. The tutorial's loop
reads pictures through a DataLoader and torchvision's ToTensor and Normalize, as most do, and asks each loss for its
value; "in memory" is the same loop over a TensorDataset of normalized rows. `fit` takes rows from memory, or the
tutorial's pictures through `data.loader`. Ratios are medians over rounds, with 95 % intervals. Last comes what `fit`
itself costs a step.
"""

import argparse
import importlib.util
import json
import logging
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.transforms import Compose, Normalize, ToTensor

from funcnet import Model, bench, data, fit, jit, make_step, optim, random

SIZE, RATE, MEAN, STD = 64, 1e-3, 0.1307, 0.3081
KEY = random.key(0)


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)
    )


def cnn() -> nn.Module:
    first = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    second = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(first, second, nn.Flatten(), nn.Linear(32 * 7 * 7, 10))


MODELS = {"mlp": mlp, "cnn": cnn}


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """What `torchvision.datasets.MNIST` does for an example: a PIL image, and the transform of it."""

    def __init__(self, rows: dict[str, torch.Tensor]) -> None:
        self.pictures, self.labels = rows["x"][:, 0].numpy(), rows["label"].tolist()
        self.transform = Compose([ToTensor(), Normalize((MEAN,), (STD,))])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.pictures[row])), self.labels[row]


def tutorial(make: Callable[[], nn.Module], dataset: Dataset[Any], steps: int) -> Callable[[], float]:
    """The loop that tutorials write."""
    module = make()
    optimizer = torch.optim.Adam(module.parameters(), lr=RATE)
    batches = forever(DataLoader(dataset, SIZE, shuffle=True, drop_last=True))

    def run() -> float:
        module.train()
        total = 0.0
        for x, label in islice(batches, steps):
            optimizer.zero_grad()
            loss = F.cross_entropy(module(x), label)
            loss.backward()
            optimizer.step()
            total += loss.item()
        return total / steps

    return run


def forever(loader: Any) -> Any:
    while True:
        yield from loader


def fitted(make: Callable[[], nn.Module], stream: data.Stream, steps: int, *, compiled: bool) -> Callable[[], float]:
    """`fit` over a stream, compiled, or eager and donating; each call goes on where the one before ended."""
    model, optimizer = Model(make), optim.adam(RATE)

    def loss(params: Any, state: Any, batch: Any, key: torch.Tensor) -> Any:
        x, label = batch.values() if isinstance(batch, dict) else batch
        x = (x / 255 - MEAN) / STD if x.dtype == torch.uint8 else x
        logits, state = model.apply(params, state, x, key=key, train=True)
        return F.cross_entropy(logits, label), (state, {})

    step = make_step(loss, optimizer, donate=not compiled)
    run_step: Any = jit(step, donate=0) if compiled else step
    ts, place, done = step.init(*model.init(KEY), KEY), (0, 0), 0

    def run() -> float:
        nonlocal ts, place, done
        done += steps
        at: dict[str, Any] = {}
        ts, history = fit(
            run_step, ts, stream, steps=done, start=place, progress=False,
            save=lambda ts, step, *, position, **_: at.update(position),
        )  # fmt: skip
        place = (at["epoch"], at["batch"])
        return history[-1]["loss"]

    return run


def fabric(make: Callable[[], nn.Module], dataset: Dataset[Any], steps: int) -> Callable[[], float]:
    """The tutorial's loop with Lightning Fabric around it."""
    from lightning.fabric import Fabric

    own = Fabric(accelerator="cpu", devices=1)
    module = make()
    module, optimizer = own.setup(module, torch.optim.Adam(module.parameters(), lr=RATE))
    batches = forever(own.setup_dataloaders(DataLoader(dataset, SIZE, shuffle=True, drop_last=True)))

    def run() -> float:
        module.train()
        total = 0.0
        for x, label in islice(batches, steps):
            optimizer.zero_grad()
            loss = F.cross_entropy(module(x), label)
            own.backward(loss)
            optimizer.step()
            total += loss.item()
        return total / steps

    return run


def trainer(make: Callable[[], nn.Module], dataset: Dataset[Any], steps: int) -> Callable[[], float]:
    """Lightning's Trainer, without its bar, logs and checkpoints."""
    from lightning.pytorch import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.last = make(), torch.tensor(0.0)

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            self.last = F.cross_entropy(self.net(batch[0]), batch[1])
            return self.last

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=RATE)

    module, loader = Module(), DataLoader(dataset, SIZE, shuffle=True, drop_last=True)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }

    def run() -> float:
        Trainer(max_steps=steps, max_epochs=-1, accelerator="cpu", devices=1, **quiet).fit(module, loader)
        return module.last.item()

    return run


def ways(make: Callable[[], nn.Module], rows: dict[str, torch.Tensor], steps: int) -> dict[str, Callable[[], float]]:
    pictures = Pictures(rows)
    memory = TensorDataset((rows["x"] / 255 - MEAN) / STD, rows["label"])
    found = {
        "tutorial": tutorial(make, pictures, steps),
        "tutorial, in memory": tutorial(make, memory, steps),
        "fit": fitted(make, data.stream(KEY, rows, SIZE), steps, compiled=True),
        "fit, eager": fitted(make, data.stream(KEY, rows, SIZE), steps, compiled=False),
        "fit, pictures": fitted(make, data.loader(pictures, SIZE, key=KEY), steps, compiled=True),
        "fit, pictures ahead": fitted(make, data.prefetch(data.loader(pictures, SIZE, key=KEY)), steps, compiled=True),
    }
    if importlib.util.find_spec("lightning"):
        found |= {"Fabric": fabric(make, pictures, steps), "Trainer": trainer(make, pictures, steps)}
    return found


# A way, what it is set against, and how many times as fast it shall be, by model.
TARGETS = {
    ("fit", "tutorial"): {"mlp": 1.5, "cnn": 1.0},
    ("fit", "tutorial, in memory"): {"mlp": 1.0, "cnn": 1.0},
    ("fit, pictures", "tutorial"): {"mlp": 1.0, "cnn": 1.0},
    ("fit, pictures ahead", "tutorial"): {"mlp": 1.0, "cnn": 1.0},
    ("fit", "Fabric"): {"mlp": 1.5, "cnn": 1.0},
    ("fit", "Trainer"): {"mlp": 1.5, "cnn": 1.0},
}
AGAINST = list(dict.fromkeys(other for _, other in TARGETS))


def overhead(rounds: int) -> dict[str, float]:
    """Microseconds a step of `fit` over those of a bare loop that calls the same step, which does nothing."""
    batches, metrics, steps = [torch.ones(1)] * 2000, {"loss": torch.tensor(0.5)}, 2000

    def step(ts: Any, batch: torch.Tensor) -> Any:
        return ts, metrics

    def bare() -> None:
        ts = torch.tensor(0.0)
        for batch in batches:
            ts, _ = step(ts, batch)

    found = {"bare": bare, "fit": partial(fit, step, torch.tensor(0.0), batches, progress=False)}
    found["fit, bar"] = partial(fit, step, torch.tensor(0.0), batches)
    with redirect_stderr(StringIO()):
        timings = bench.compare(found, rounds=rounds, block=1)
    return {name: 1e6 * (timings[name].median - timings["bare"].median) / steps for name in ("fit", "fit, bar")}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds MNIST/raw")
    parser.add_argument("--models", default="mlp,cnn")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    warnings.filterwarnings("ignore", module="lightning")
    for part in ("pytorch", "fabric", "pytorch.utilities.rank_zero"):
        logging.getLogger(f"lightning.{part}").setLevel(logging.ERROR)
    rows = data.load("mnist", root=args.data).train
    print(f"torch {torch.__version__}, {bench.environment()['machine']}, {torch.get_num_threads()} threads\n")
    results: dict[str, Any] = {}
    missed = False
    for name in args.models.split(","):
        timings = bench.compare(ways(MODELS[name], rows, args.steps), rounds=args.rounds, block=1)
        table = Table(name, "images/s", *(f"over {way}" for way in AGAINST))
        speeds = {way: SIZE * args.steps / timing.median for way, timing in timings.items()}
        ratios = {}
        for way in timings:
            cells = []
            for other in AGAINST:
                ratio = timings[other].over(timings[way]) if other in timings and other != way else None
                target = TARGETS.get((way, other), {}).get(name)
                if ratio is not None:
                    ratios[f"{way} / {other}"] = ratio
                    missed |= target is not None and ratio.value < target
                wanted = "" if target is None or ratio is None else f", >= {target}"
                cells.append("" if ratio is None else f"{ratio}{wanted}")
            table.add_row(way, f"{speeds[way]:,.0f}", *cells)
        results[name] = {"images a second": speeds, "ratios": ratios}
        Console(width=160).print(table)
    results["overhead"] = overhead(4 * args.rounds)
    for way, cost in results["overhead"].items():
        print(f"{way}: {cost:.1f} us a step (at most 100)")
        missed |= cost > 100
    if args.json:
        args.json.write_text(json.dumps({**bench.environment(), "results": results}, indent=1) + "\n")
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
