"""What the commands of training do: they ask for a plan, run it, and say what came of it."""

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from funcnet.runs.answering import answering
from funcnet.runs.options import given
from funcnet.shell import DONE, FAILED, show

__all__ = ["evaluate", "find", "predict", "resume", "train"]

_RUNS = Path("runs")
_CHANGING = ("epochs", "steps", "device")  # what a run may go on with otherwise than it began

# Rooms are imported where they are used, so that `funcnet --help` need not.


# What to do where memory runs out: the size of its batches is a part of a run.
_ELSEWHERE = "go on on another --device, or train anew with a smaller --batch-size"
_LESS = "write a smaller --batch-size, or for pictures a smaller --size"


def find(arguments: argparse.Namespace) -> int:
    """`funcnet find-lr`; the exit status."""

    def work() -> int:
        from funcnet.runs import finding, plan, training

        finding.check(arguments.low, arguments.high, arguments.plot)
        made = plan.make(_settings(arguments))
        for line in () if arguments.quiet else training.described(made):
            print(line, file=sys.stderr, flush=True)
        found = finding.find(made, arguments.low, arguments.high, arguments.rates, arguments.plot, _BACKEND)
        rate = found["suggestion"]
        if arguments.json:
            show(found)
        else:
            print(f"no suggestion: {found['note']}" if rate is None else f"--lr {rate:.2g}  ({found['note']})")
        return FAILED if rate is None else DONE

    return answering(work, less_memory=_LESS)


def train(arguments: argparse.Namespace) -> int:
    """`funcnet train`; the exit status."""
    return answering(
        lambda: _start(arguments),
        less_memory=_LESS,
        interrupted=lambda: "interrupted before the run began; nothing was written.",
    )


def _start(arguments: argparse.Namespace) -> int:
    from funcnet.runs.errors import RunError
    from funcnet.runs.folder import Folder

    if arguments.resume and arguments.out is None:
        raise RunError("--resume needs the run's folder: write --out DIR.")
    folder = Folder(arguments.out or _free(_RUNS))
    if arguments.resume and folder.taken:
        config, _ = folder.read()
        asked = _asked(arguments)
        _same(folder, config, asked)
        return _go(folder, config, arguments, {name: asked[name] for name in _CHANGING if name in asked})
    config = _settings(arguments)
    folder.check_free()  # before the data is read, which may take its time
    return _go(folder if arguments.out else None, config, arguments, None)


def _asked(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings of the file and of the command line, which goes before."""
    from funcnet.runs import config as configs

    written = {} if arguments.config is None else configs.read(arguments.config)
    own = given(arguments)
    if own.keys() & {"epochs", "steps"}:
        written = {name: value for name, value in written.items() if name not in ("epochs", "steps")}
    return {**written, **own}


def _settings(arguments: argparse.Namespace) -> Any:
    from funcnet.runs import config as configs

    return configs.resolved(_asked(arguments), arguments.config or "")


def _free(above: Path) -> Path:
    """The first free of `runs/1`, `runs/2` ..."""
    taken = 1
    while os.path.lexists(above / str(taken)):
        taken += 1
    return above / str(taken)


def _reserved(above: Path) -> Path:
    """The first free of `runs/1`, `runs/2` ..., made, so that no one else takes it."""
    while True:
        path = _free(above)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue  # somebody was faster
        return path


def _same(folder: Any, config: Any, asked: dict[str, Any]) -> None:
    """Raise where a run that goes on is asked for with other settings than it has."""
    from funcnet.runs import models
    from funcnet.runs.errors import RunError
    from funcnet.runs.plan import resolved_paths
    from funcnet.runs.rows import Facts

    wanted: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in asked.items()}
    wanted |= resolved_paths(wanted)
    if "model" in wanted:
        wanted["model"] = models.build(wanted["model"], Facts.read(folder.facts)).text
    for name, value in wanted.items():
        has = getattr(config, name, None)
        if name not in _CHANGING and has != value:
            raise RunError(
                f"{folder.path} has a run with {name} = {has!r}, and {value!r} is asked for: leave "
                f"--{name.replace('_', '-')} out, or choose another --out."
            )


def resume(arguments: argparse.Namespace) -> int:
    """`funcnet resume`; the exit status."""
    return answering(lambda: _on(arguments), less_memory=_ELSEWHERE)


def _on(arguments: argparse.Namespace) -> int:
    from funcnet.runs.errors import RunError
    from funcnet.runs.folder import Folder

    folder = Folder(arguments.folder)
    config, _ = folder.read()
    changed = {name: getattr(arguments, name) for name in _CHANGING if getattr(arguments, name) is not None}
    if "epochs" in changed and "steps" in changed:
        raise RunError("a run ends after --epochs or after --steps: give one of the two.")
    return _go(folder, config, arguments, changed)


def _go(named: Any, config: Any, arguments: argparse.Namespace, changed: dict[str, Any] | None) -> int:
    """Make the plan, run it, and print the result.

    Args:
        named: the run's folder; None takes the first that is free once the plan is made.
        config: what it is made of.
        arguments: of the command line.
        changed: of a run that goes on, the settings that it shall have instead; None begins one.
    """
    from funcnet.runs import plan, training
    from funcnet.runs.folder import Folder

    if changed is None:
        made = plan.make(config)
    else:
        if changed.keys() & {"epochs", "steps"}:
            changed = {"epochs": None, "steps": None} | changed
        made = plan.make(dataclasses.replace(config, **changed), begins=_newest(named) is None)
    folder = named or Folder(_reserved(_RUNS))
    quiet = arguments.quiet
    bar = not quiet and sys.stderr.isatty()

    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    def work() -> int:
        result = training.train(
            made, folder, say, fresh=changed is None, bar=bar, lines=not quiet and not bar, backend=_BACKEND
        )
        if arguments.json:
            show(result)
            return DONE
        told = "  ".join(f"{name} {_short(value)}" for name, value in result["metrics"].items())
        print(f"{told}\n{result['steps']:,} steps in {result['seconds']:.0f} s; all of it is in {folder.path}")
        return DONE

    def interrupted() -> str:
        found = _newest(folder)
        told = f"interrupted; saved as {found}" if found else "interrupted before anything was saved"
        return f"{told}. Go on with: funcnet resume {folder.path}"

    return answering(work, less_memory=_LESS if changed is None else _ELSEWHERE, interrupted=interrupted)


def _newest(folder: Any) -> Path | None:
    """The newest checkpoint of a run that is whole; of those that are not, training tells."""
    from funcnet.checkpoint import latest
    from funcnet.runs.folder import telling

    with telling(lambda _: None):
        return latest(folder.checkpoints)


_BACKEND = "inductor"


def _short(value: Any) -> str:
    return "nan" if value is None else f"{value:.4g}"


def evaluate(arguments: argparse.Namespace) -> int:
    """`funcnet evaluate`; the exit status."""

    def work() -> int:
        from rich.console import Console

        from funcnet.runs import evaluating

        result = evaluating.evaluate(
            arguments.folder,
            arguments.checkpoint,
            arguments.data,
            arguments.part,
            arguments.device,
            arguments.batch_size,
        )
        if arguments.json:
            show(result)
        else:
            evaluating.show(result, Console(width=None if sys.stdout.isatty() else 160))
        return DONE

    return answering(work, less_memory="write a smaller --batch-size, or another --device", trained=True)


def predict(arguments: argparse.Namespace) -> int:
    """`funcnet predict`; the exit status."""

    def work() -> int:
        from funcnet import random
        from funcnet.runs import predicting
        from funcnet.runs.trained import trained

        found = trained(arguments.folder, arguments.checkpoint, arguments.device)
        if found.task.facts.kind == "language":
            prompt = " ".join(arguments.inputs)
            key = random.key(arguments.seed)
            text = predicting.continued(found, prompt, arguments.tokens, arguments.temperature, key)
            if arguments.json:
                show({"prompt": prompt, "text": text})
            else:
                print(text)
            return DONE
        told = predicting.predict(found, arguments.inputs, arguments.top)
        if arguments.json:
            show(told)
            return DONE
        for each in told:
            if "value" in each:
                print(f"{each['input']}: {each['value']:.6g}")
            else:
                print(f"{each['input']}: " + ", ".join(f"{name} {share:.1%}" for name, share in each["top"].items()))
        return DONE

    return answering(work, less_memory="give fewer inputs at a time, or another --device", trained=True)
