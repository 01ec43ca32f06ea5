"""The demo from beginning to end."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from funcnet import random, tree
from funcnet.checkpoint.files import whole
from funcnet.checkpoint.tensorfile import chunks
from funcnet.demo import pictures, speed
from funcnet.demo.data import Digits, digits
from funcnet.demo.models import BATCH_SIZE, CNN, MLP, Recipe
from funcnet.demo.training import Trained, train

__all__ = ["Settings", "run"]


class Settings(NamedTuple):
    """How much the demo does; tests take less."""

    epochs: int | None = None
    """None: as each recipe says."""
    backend: str | None = "inductor"
    """None: nothing is compiled."""
    rounds: int = 15
    block: int = 10
    progress: bool = True


def run(out: Path, seed: int = 0, settings: Settings | None = None, console: Console | None = None) -> bool:
    """Train both models, time their steps, and write pictures and weights into a folder.

    Args:
        out: the folder, made where it is missing.
        seed: everything random follows from it; the same seed gives the same weights to the bit.
        settings: how much is done.
        console: where the story is printed.

    Returns:
        Whether both models reached their target.

    Raises:
        OSError: the folder cannot be written.
    """
    settings = settings or Settings()
    console = console or Console(highlight=False)
    start = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out):
        pass  # a folder that cannot be written is known before anything is trained
    split_key, *model_keys = random.split(random.key(seed), 3)
    train_part, test_part = digits(split_key)
    console.print(
        f"[bold]Handwritten digits[/], 8x8 pixels: {len(train_part['label']):,} to train on, {len(test_part['label'])} "
        f"held out, split by key({seed}).\nEvery step is one pure function, (state, batch) -> (state, metrics): run "
        f"the model, differentiate, clip, AdamW. "
        + ("It is run as it is." if settings.backend is None else "jit compiles it once, with its memory donated.")
    )
    with _fresh_compiler_cache(), _one_thread():
        results = [
            _train(recipe, key, train_part, test_part, seed, settings, console, out)
            for recipe, key in zip((MLP, CNN), model_keys, strict=True)
        ]
        console.print("\n[bold]Speed[/]: the same step in ordinary torch (fused AdamW), pure, and pure compiled.")
        speeds = [speed.measure(r, train_part, rounds=settings.rounds, block=settings.block) for r in results]
    console.print(speed.table(speeds))
    pictures.draw_curves(results, out / "curves.png")
    pictures.draw_speed(speeds, out / "speed.png")
    _conclude(results, console, out, time.perf_counter() - start)
    return all(r.accuracy >= r.recipe.target for r in results)


def _train(
    recipe: Recipe,
    key: Tensor,
    train_part: Digits,
    test_part: Digits,
    seed: int,
    settings: Settings,
    console: Console,
    out: Path,
) -> Trained:
    epochs = recipe.epochs if settings.epochs is None else settings.epochs
    console.print(f"\n[bold]{recipe.name}[/]: {recipe.about}, {epochs} epochs in batches of {BATCH_SIZE}")
    trained = train(
        recipe, key, train_part, test_part, epochs=epochs, backend=settings.backend, progress=settings.progress
    )
    ts = trained.ts
    wrong = round((1 - trained.accuracy) * len(test_part["label"]))
    compiling = "" if trained.compiled is None else f", after {trained.compile_seconds:.1f} s of compiling"
    console.print(
        f"  {tree.size(ts.params):,} parameters, {trained.steps:,} steps in {trained.train_seconds:.1f} s{compiling}\n"
        f"  test accuracy [bold]{trained.accuracy:.2%}[/]: {wrong} of {len(test_part['label'])} wrong "
        f"(target {recipe.target:.1%})"
    )
    metadata = {"model": recipe.name, "seed": str(seed), "accuracy": f"{trained.accuracy:.6f}"}
    with whole(out / f"{recipe.name.lower()}.safetensors") as temporary:
        temporary.write_bytes(b"".join(chunks({**ts.params, **ts.state}, metadata)))
    return trained


def _conclude(results: list[Trained], console: Console, out: Path, seconds: float) -> None:
    names = ["curves.png", "speed.png", *(f"{r.recipe.name.lower()}.safetensors" for r in results)]
    console.print(f"\nWritten to {out}/: {', '.join(names)}. All in {seconds:.0f} s.", soft_wrap=True)
    for r in results:
        if r.accuracy < r.recipe.target:
            console.print(
                f"[bold red]The {r.recipe.name} missed its target[/]: {r.accuracy:.2%} of {r.recipe.target:.1%}."
            )


@contextmanager
def _fresh_compiler_cache() -> Iterator[None]:
    """An empty folder for Inductor's files, so that the seconds of compiling are those of a first run."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            if before is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = before


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for torch: steps this small gain nothing from more, and on a busy machine wait for each other.

    On two cores that others used as well, the MLP's compiled step (with the shift inside it) took 120 to 270 ms on two
    threads, and 1.7 ms on one.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
