"""`funcnet train` and `funcnet resume`: a plan run in its folder."""

import json
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from time import perf_counter
from typing import Any

import torch

from funcnet.checkpoint import Checkpoints
from funcnet.runs.config import Config
from funcnet.runs.errors import RunError
from funcnet.runs.folder import Folder, telling
from funcnet.runs.plan import Plan
from funcnet.shell import finite
from funcnet.train import ConsoleLog, CSVLog, EarlyStopping, JSONLinesLog, Log, draw_curves, fit
from funcnet.train.position import Position
from funcnet.tree import TreeMismatchError

__all__ = ["described", "train"]

Say = Callable[[str], object]


def described(plan: Plan) -> list[str]:
    """What is about to run, in a few lines."""
    config, loaded = plan.config, plan.rows
    rate = "its own learning rate" if config.lr is None else f"lr {config.lr:g}, {config.schedule}"
    test = len(loaded.test["label"])
    return [
        f"{loaded.facts.source}: {loaded.per_epoch:,} rows to train on, {test:,} to test; {loaded.facts.told}",
        f"{config.model}: {plan.parameters:,} parameters",
        f"{config.optim}, {rate}, {plan.steps:,} steps of {config.batch_size} rows; {config.precision}, {config.device}"
        + (", compiled" if config.compile else ""),
        *plan.notes,
    ]


def train(
    plan: Plan, folder: Folder, say: Say, *, fresh: bool, bar: bool, lines: bool, backend: str = "inductor"
) -> dict[str, Any]:
    """Run a plan in a folder, from its newest checkpoint on where there is one, and write what came of it.

    Args:
        plan: the run. Its start is consumed.
        folder: where to; it is made, or gone on with.
        fresh: whether the run shall begin here, and not go on.
        say: takes what people should read, a line at a time.
        bar: whether to show a bar on the terminal.
        lines: whether to write a line for each epoch to standard error.
        backend: of `jit`.

    Returns: what is written into `result.json`.

    Raises:
        BlockingIOError: another process trains in this folder.
        OSError: the folder cannot be written.
        RunError: a fresh run finds another in its folder; or one that goes on finds other data, checkpoints of another
            run, or an end that lies behind it. Nothing is written then.
        NonFiniteError, KeyboardInterrupt: as `fit`.
    """
    began, config = perf_counter(), plan.config
    metric, mode = plan.rows.facts.best
    saves = Checkpoints(folder.checkpoints, keep_last=config.keep_last, keep_best=1, best=metric, mode=mode)
    with saves:
        # While the folder is ours: what was looked at before may have changed meanwhile.
        if fresh:
            folder.check_free()
        else:
            folder.check_data(plan.rows.facts)
        ts, before = plan.start, 0.0
        position: Any = (0, 0)
        with telling(say):
            try:
                found = saves.restore(like=ts)
            except TreeMismatchError as error:
                reason = " ".join(str(error).split())[:300]
                raise RunError(
                    f"the checkpoints in {folder.path} are of another run than its config.toml: {reason}"
                ) from error
        if found is not None:
            ts, position = found[0], found[1].position
            before = float((found[1].extra or {}).get("seconds", 0.0))
            _check_end(config, folder, int(ts.step), Position.of(position))
        folder.write(config, plan.rows.facts)
        for line in described(plan):
            say(line)
        if found is not None:
            say(f"goes on after step {found[1].step:,}")

        def save(state: Any, step: int, **told: Any) -> None:
            saves.save(state, step, extra={"seconds": before + perf_counter() - began}, **told)

        ts, history = fit(
            plan.run(backend),
            ts,
            plan.batches(),
            epochs=config.ends.get("epochs"),
            steps=config.ends.get("steps"),
            start=position,
            evaluate=plan.task.evaluation(plan.rows.test, config.batch_size),
            save=save,
            save_every=config.save_every,
            early_stopping=None
            if config.early_stopping is None
            else EarlyStopping(config.early_stopping, mode=mode, metric=metric),
            schedule=plan.schedule,
            log=[CSVLog(folder.log_csv), JSONLinesLog(folder.log_json), *_console(lines)],
            log_every=config.log_every,
            check_finite=not config.skip_nonfinite,
            progress=bar,
        )
        saves.wait()
        with telling(lambda _: None):  # what is broken was told of at the start
            best = saves.best()
        result = {
            "folder": str(folder.path),
            "data": config.data,
            "model": config.model,
            "parameters": plan.parameters,
            "epochs": len(history),
            "steps": int(ts.step),
            "metrics": history[-1] if history else {},
            "best": _best(best, metric),
            "stopped_early": config.early_stopping is not None and int(ts.step) < plan.steps,
            "seconds": round(before + perf_counter() - began, 3),
            "device": config.device,
            "versions": {
                "funcnet": version("funcnet"),
                "torch": str(torch.__version__),
                "python": platform.python_version(),
            },
        }
        folder.write_text(folder.result, json.dumps(finite(result), indent=1) + "\n")
        _draw(folder, say)
    told: dict[str, Any] = finite(result)
    return told


def _check_end(config: Config, folder: Folder, step: int, at: Position) -> None:
    """Raise where a run would end before what it has done."""
    within = " and a part" if at.batch else ""
    for name, end, done, least in (
        ("epochs", config.ends.get("epochs"), f"{at.epoch:,} epochs{within}", at.epoch + (at.batch > 0)),
        ("steps", config.ends.get("steps"), f"{step:,} steps", step),
    ):
        if end is not None and end < least:
            raise RunError(
                f"{folder.path} has done {done} already, and --{name} {end:,} would end before: write --{name} "
                f"{least} or more."
            )


def _console(lines: bool) -> list[Log]:
    return [ConsoleLog()] if lines else []


def _best(path: Any, metric: str) -> dict[str, Any] | None:
    from funcnet.checkpoint import read_manifest

    if path is None:
        return None
    manifest = read_manifest(path)
    metrics: Mapping[str, float] = manifest.metrics
    return {"step": manifest.step, metric: metrics[metric]}


def _draw(folder: Folder, say: Say) -> None:
    if find_spec("matplotlib") is None:
        say("no curves.png, since matplotlib is not installed: pip install matplotlib")
        return
    try:
        figure = draw_curves(folder.rows_of_log())
    except ValueError:
        return  # nothing was measured
    figure.savefig(folder.curves, dpi=120)
