"""`funcnet bench`."""

import argparse
import contextlib
import sys
import warnings
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from funcnet import random, specs
from funcnet.bench import tables, targets
from funcnet.bench.changes import changes
from funcnet.bench.environment import environment
from funcnet.bench.limits import limits
from funcnet.bench.race import race
from funcnet.bench.result import Report, ReportError, Result
from funcnet.bench.subject import Setting, Subject
from funcnet.jit import jit
from funcnet.shell import ABSENT, FAILED, add_command, add_json, positive, show, stop

__all__ = ["add_parser"]

_USUAL = ("mlp", "cnn", "gpt-small")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def add_parser(commands: Any) -> None:
    """Add the command to the program's."""
    parser = add_command(
        commands,
        "bench",
        help="time a training step compiled and eager, against torch.nn and jax",
        description="Runs workloads in several ways, in turns, in one run. Exit status 1 if a way fails, disagrees "
        "with the others or misses a target that --targets asks for; 2 if there is nothing to run; 3 if a way cannot "
        "be run on this machine.",
        examples=[
            "bench mlp cnn --out report.json --plot report.png",
            "bench mlp --ways 'funcnet*' --compare report.json",
            "bench package.module:make_step --rounds 30",
        ],
    )
    parser.add_argument("what", nargs="*", help=f"names (see --list), or package.module:make_step; {', '.join(_USUAL)}")
    parser.add_argument("--list", action="store_true", help="name everything there is, and stop")
    parser.add_argument("--ways", action="append", metavar="GLOB", help="only these ways; may be repeated")
    parser.add_argument("--rounds", type=positive, default=15, metavar="N", help="rounds that the ways take turns in")
    parser.add_argument("--seconds", type=float, default=0.15, metavar="S", help="how long a way runs in a round")
    parser.add_argument("--warm", action="store_true", help="do not measure compiling with empty caches")
    parser.add_argument("--smoke", action="store_true", help="time nothing: only see that the ways run and agree")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--autocast", choices=_DTYPES, help="the dtype of matrix products")
    parser.add_argument("--targets", action="store_true", help="print what the project holds itself to beside it")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write the report, as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="where to write its tables")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="where to draw it")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="an older report to set this one against")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    """Race, print, write; the exit status says what went wrong."""
    from funcnet.bench.subjects import SUBJECTS, subject  # every workload, wanted only here

    if arguments.list:
        show(list(SUBJECTS)) if arguments.json else print("\n".join(SUBJECTS))
        return 0
    autocast = _DTYPES.get(arguments.autocast)
    try:
        device = _device(arguments.device)
        setting = Setting(device, autocast, arguments.smoke)
        older = Report.load(arguments.compare) if arguments.compare else None
        chosen = [_chosen(subject(name, setting), arguments.ways) for name in arguments.what or _USUAL]
    except (specs.SpecError, ReportError) as error:
        return stop(str(error))
    console = Console(width=None if sys.stdout.isatty() else 160, quiet=arguments.json)
    report = Report(environment(device), limits(device, autocast or torch.float32), [])
    try:
        for result in _raced(chosen, arguments):
            report.results.append(result)
            if arguments.out:
                report.save(arguments.out)  # each time: a run may take an hour, and be cut short
            if not arguments.smoke:
                console.print(tables.table(result, report.limits), "")
        _write(report, arguments)
    except OSError as error:
        return stop(f"cannot write to {error.filename!r}: {error.strerror or error}.")
    if older is not None:
        console.print(changes(report, older), "")
    status = _verdict(report, arguments, console)
    if arguments.json:
        show(report.plain())
    return status


def _raced(subjects: Iterable[Subject], arguments: argparse.Namespace) -> Iterable[Result]:
    with Console(stderr=True).status("imports") as status, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".torch.jit.script", FutureWarning)  # torch's own, under forward mode
        if not (arguments.warm or arguments.smoke):
            _compile_once()
        for one in subjects:
            rounds = 0 if arguments.smoke else arguments.rounds
            cold = not (arguments.warm or arguments.smoke)
            yield race(one, rounds=rounds, seconds=arguments.seconds, cold=cold, told=status.update)


def _compile_once() -> None:
    """Compile something small: the first to compile in a process pays for imports and the compiler's own headers."""
    x = random.normal(random.key(0), (8, 8)).requires_grad_()
    with contextlib.suppress(Exception):  # without a compiler every compiled way will say so
        torch.compile(lambda x: (x @ x).tanh().sum())(x).backward()
        jit(lambda x: x.tanh().sum())(x.detach())


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
    except RuntimeError:
        raise specs.SpecError(f"{text!r} is no device. Write cpu or cuda.") from None
    if device.type not in ("cpu", "cuda"):
        raise specs.SpecError(f"the bench runs on cpu and cuda, not on {text!r}.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise specs.SpecError("there is no CUDA device on this machine. Write --device cpu.")
    return device


def _chosen(subject: Subject, globs: list[str] | None) -> Subject:
    if globs is None:
        return subject
    ways = {name: way for name, way in subject.ways.items() if any(fnmatchcase(name, glob) for glob in globs)}
    if not ways:
        raise specs.SpecError(f"no way of {subject.name} matches {' or '.join(globs)}: {', '.join(subject.ways)}.")
    reference = tuple(name for name in subject.reference if name in ways)
    return Subject(**{**vars(subject), "ways": ways, "reference": reference})


def _write(report: Report, arguments: argparse.Namespace) -> None:
    if arguments.markdown:
        arguments.markdown.parent.mkdir(parents=True, exist_ok=True)
        arguments.markdown.write_text(tables.markdown(report))
    if arguments.plot:
        from funcnet.bench.picture import draw

        draw(report, arguments.plot)


def _verdict(report: Report, arguments: argparse.Namespace, console: Console) -> int:
    short = []
    if arguments.targets:
        found = targets.reached(report)
        console.print(targets.table(found), "")
        short = [one.target.title for one in found if not one.met]
    for line in (*report.failures, *report.absences):
        print(f"funcnet: {line}", file=sys.stderr)
    if arguments.smoke and not report.failures:
        ran = sum(not cell.absent for result in report.results for cell in result.cells.values())
        console.print(f"{ran} ways of {len(report.results)} workloads ran, and agree.")
    if report.failures or short:
        return FAILED
    return ABSENT if report.absences else 0
