"""A run, ready to start: all that a config names, made and held against each other before one byte is written."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import _compat, checkpoint, random, tree
from funcnet.jit import jit
from funcnet.model import Params, State
from funcnet.optim import Schedule
from funcnet.runs import augmenting, models, optimizers, rows, schedules
from funcnet.runs.config import Config
from funcnet.runs.errors import RunError, known, out_of_memory, refusing
from funcnet.runs.folder import checkpoint_in, is_run, telling
from funcnet.runs.task import Task
from funcnet.train import LossScale, TrainState, make_step, statistics
from funcnet.train.feed import Batches
from funcnet.train.precision import Precision
from funcnet.train.step import Step, StepFunction

__all__ = ["PRECISIONS", "Plan", "device_named", "make", "resolved_paths", "step_options"]

PRECISIONS = {
    "fp32": "float32",
    "tf32": "tf32",
    "fp64": "float64",
    "bf16": "bfloat16",
    "fp16": "float16",
    "autocast-bf16": "autocast-bfloat16",
    "autocast-fp16": "autocast-float16",
}


class Plan(NamedTuple):
    """A run that can start."""

    config: Config
    """With every size, path and number that was left open."""
    rows: rows.Rows
    task: Task
    step: Step
    optimizer: optimizers.Chosen
    start: TrainState
    """Consumed by the first step."""
    schedule: Callable[[Any], Any] | None
    steps: int
    """In all."""
    key: Tensor
    """Of the order of rows."""
    parameters: int
    notes: tuple[str, ...]
    """What whoever asked for it should know."""

    def batches(self) -> Batches:
        """What `fit` takes its batches from."""
        return self.rows.batches(self.key, self.config.batch_size)

    def run(self, backend: str = "inductor") -> StepFunction:
        """The step as it is called: compiled, where that is asked for."""
        policy = Precision.named(PRECISIONS[self.config.precision])
        return policy.around(jit(self.step, donate=0, backend=backend) if self.config.compile else self.step)


def make(config: Config, *, begins: bool = True) -> Plan:
    """Make of a config what it names.

    Args:
        config: the settings; `~` and folders from here on in its paths are resolved.
        begins: whether it begins with the weights of `init_from`; one that goes on has weights of its own, and those
            may be gone.

    Raises:
        RunError, SpecError, CheckpointError: something is not there, is wrong, or does not fit another; in one line.
    """
    config = dataclasses.replace(config, **resolved_paths(vars(config)))
    device = device_named(config.device)
    if config.compile and device.type == "cpu":
        _check_compiler()
    policy = Precision.named(PRECISIONS[known(config.precision, list(PRECISIONS), "precision")])
    with refusing("--metrics"):
        statistics.check(config.metrics)
    # All from one split, whose i-th is `fold_in(key, i)`: one that is drawn in any other way may be among them.
    init_key, order_key, run_key, noise_key = random.split(random.key(config.seed), 4)
    chosen = optimizers.choose(config.optim, config.weight_decay, noise_key)
    loaded = rows.load(config, device)
    facts = loaded.facts
    augmented = augmenting.build(config.augment, facts)
    built = models.build(config.model, facts)
    epoch_length = _epoch_length(config, loaded)
    steps = config.steps if config.steps is not None else (config.epochs or 5) * epoch_length
    optimizer, schedule, rate = _optimizer(config, chosen, steps)
    with refusing(f"{built.text!r} cannot be built"):
        params, state = built.model.init(init_key, device=device)
    notes = [f"{loaded.skipped} unreadable pictures or lines are left out"] if loaded.skipped else []
    if config.init_from is not None and begins:
        params, state, note = _initial(Path(config.init_from), params, state)
        notes.append(note)
    parameters = sum(leaf.numel() for leaf in params.values())
    if config.freeze:
        with refusing("--freeze"):
            frozen, params = tree.split(params, tuple(config.freeze))
        if not params:
            raise RunError(f"--freeze {' '.join(config.freeze)} leaves nothing to train: freeze less.")
        state = state | frozen
        notes.append(f"{sum(leaf.numel() for leaf in frozen.values()):,} parameters are frozen ({len(frozen)} tensors)")
    params = policy.cast_params(params)
    task = Task(built, facts, device, augmented, policy)
    _try(task, params, state, loaded, run_key)
    step = make_step(
        task.loss,
        optimizer,
        donate=not config.compile,
        metrics=config.metrics,
        **step_options(config),
    )
    left_open: dict[str, Any] = {"model": built.text, "lr": rate, "device": str(device), **config.ends}
    if config.log_every is None:  # curves of a short run shall have a shape, and logs of a long one stay readable
        left_open["log_every"] = max(1, steps // 100)
    full = dataclasses.replace(config, **left_open)
    start = step.init(params, state, run_key)
    return Plan(full, loaded, task, step, chosen, start, schedule, steps, order_key, parameters, tuple(notes))


def step_options(config: Config) -> dict[str, Any]:
    """What of a config `make_step` is given, but for what it tells and how it is called; precision is the task's."""
    return {
        "accumulate": config.accumulate,
        "clip": config.clip,
        "ema": config.ema,
        "skip_nonfinite": config.skip_nonfinite,
        "loss_scale": LossScale.create() if config.precision.endswith("fp16") else None,
    }


def device_named(name: str) -> torch.device:
    """A device that is there; `auto` is a GPU where there is one.

    Raises:
        RunError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        there = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise RunError(f"there is no device {name!r} on this machine; there are {', '.join(there)}.") from error
    return device


def resolved_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that hold a path, with that made absolute, so that the run goes on from any folder."""
    found = {name: settings[name] for name in ("data", "root", "init_from") if settings.get(name) is not None}
    return {
        name: rows.absolute(value) if name == "data" else os.path.abspath(os.path.expanduser(value))
        for name, value in found.items()
    }


def _check_compiler() -> None:
    problem = _compat.cpp_compiler_problem()
    if problem:
        raise RunError(
            f"--compile found no C++ compiler ({problem}): install g++ (apt-get install g++, dnf install gcc-c++, "
            "xcode-select --install), name one in the variable CXX, or leave --compile out."
        )


def _epoch_length(config: Config, loaded: rows.Rows) -> int:
    """How many batches an epoch has."""
    size, count = config.batch_size, loaded.per_epoch
    if size > count:
        raise RunError(f"--batch-size {size} is more than the {count:,} rows to train on: write {count} or less.")
    if size % config.accumulate:
        near = max(config.accumulate, size - size % config.accumulate)
        raise RunError(
            f"--batch-size {size} has no {config.accumulate} equal parts for --accumulate {config.accumulate}: write "
            f"--batch-size {near}."
        )
    return count // size


def _optimizer(config: Config, chosen: optimizers.Chosen, steps: int) -> tuple[Any, Schedule | None, float | None]:
    rate = chosen.rate if config.lr is None else config.lr
    if rate is None:
        if config.schedule.partition(":")[0] != "constant":
            raise RunError(
                f"{config.optim!r} finds its own learning rate: write one with --lr, or leave --schedule out."
            )
        return chosen.build(None), None, None
    schedule = schedules.build(config.schedule, rate, steps)
    if not chosen.follows:
        if config.schedule.partition(":")[0] != "constant":
            raise RunError(f"{config.optim!r} takes one learning rate, and no schedule: leave --schedule out.")
        return chosen.build(rate), schedule, rate
    return chosen.build(rate if config.schedule == "constant" else schedule), schedule, rate


def _initial(path: Path, params: Params, state: State) -> tuple[Params, State, str]:
    """The values of a file where names and shapes agree, and what is to be told of it."""
    if is_run(path):
        with telling():
            saved = checkpoint.load(checkpoint_in(path, "best"))
        if not isinstance(saved, TrainState):
            raise RunError(f"--init-from {path} is no checkpoint of a run.")
        tensors = {**saved.averaged, **saved.state}
    else:
        tensors = checkpoint.load_state_dict(path)
    params, state, report = checkpoint.adopt(tensors, params, state, strict=False)
    taken = [name for name in report.matched if name in params]
    if not taken:
        fresh, theirs = next(iter(params), "none"), next(iter(tensors), "none")
        raise RunError(
            f"--init-from {path} has nothing that fits: its names are such as {theirs!r}, and the model's such "
            f"as {fresh!r}."
        )
    rest = [name for name in params if name not in taken]
    told = f"; new: {', '.join(rest[:4])}{' ...' if len(rest) > 4 else ''}" if rest else ""
    return params, state, f"from {path}: {len(taken)} of {len(params)} tensors of parameters{told}"


def _try(task: Task, params: Params, state: State, loaded: rows.Rows, key: Tensor) -> None:
    """Two rows forth, in training and in evaluation."""
    batch = {name: leaf[:2] for name, leaf in loaded.test.items()}
    if loaded.facts.kind != "language":
        batch = {name: leaf[:2] for name, leaf in loaded.train.items()}
    try:
        with torch.no_grad():
            task.loss(params, state, batch, key)
            task.measure(params, state, batch)
    except RunError:
        raise
    except Exception as error:  # whatever a model raises on rows that do not fit it
        if out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:300]
        raise RunError(
            f"the model fails on the data ({loaded.facts.told}): {type(error).__name__}: {reason}"
        ) from error
