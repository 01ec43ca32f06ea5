"""`funcnet bench`."""

import argparse
import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from funcnet import random, specs
from funcnet.bench import tables, targets
from funcnet.bench.changes import changes
from funcnet.bench.environment import environment
from funcnet.bench.limits import limits
from funcnet.bench.race import race, reason
from funcnet.bench.result import Report, ReportError, Result
from funcnet.bench.subject import Setting, Subject
from funcnet.control import scan
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
        "with the others or misses a target that --targets asks for, or if a workload cannot be built; 2 if there is "
        "nothing to run; 3 if a way cannot be run on this machine.",
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
    from funcnet.bench.subjects import SUBJECTS, maker, subject  # every workload, wanted only here

    if arguments.list:
        show(list(SUBJECTS)) if arguments.json else print("\n".join(SUBJECTS))
        return 0
    if arguments.plot and find_spec("matplotlib") is None:
        return stop("--plot needs matplotlib: pip install 'funcnet[demo]'.")
    names = arguments.what or list(_USUAL)
    try:
        device = _device(arguments.device)
        setting = Setting(device, _DTYPES.get(arguments.autocast), arguments.smoke)
        older = Report.load(arguments.compare) if arguments.compare else None
        for name in names:
            maker(name)
    except (specs.SpecError, ReportError) as error:
        return stop(str(error))
    console = Console(width=None if sys.stdout.isatty() else 160, quiet=arguments.json)
    run = _asked(names, arguments)
    report = Report({}, limits(device, setting.autocast or torch.float32), [])
    # Each is built when its turn has come: the batches of all would lie in memory for the whole run.
    makers = {name: lambda name=name: _chosen(subject(name, setting), arguments.ways) for name in names}
    try:
        for result in _raced(makers, arguments, device):
            report.results.append(result)
            report.environment = {**environment(device), "run": run}  # jax tells of itself once it has been used
            if arguments.out:
                report.save(arguments.out)  # each time: a run may take an hour, and be cut short
            if not (arguments.smoke or result.failure):
                console.print(tables.table(result, report.limits), "")
        _write(report, arguments)
    except specs.SpecError as error:
        return stop(str(error))
    except OSError as error:
        return stop(f"cannot write to {error.filename!r}: {error.strerror or error}.")
    if older is not None:
        console.print(changes(report, older), "")
    status = _verdict(report, arguments, console)
    if arguments.json:
        show(report.plain())
    return status


def _asked(names: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """What was asked for on the command line, and when."""
    kept = ("ways", "rounds", "seconds", "warm", "smoke", "device", "autocast")
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {"date": date, "what": names, **{name: getattr(arguments, name) for name in kept}}


def _raced(
    makers: Mapping[str, Callable[[], Subject]], arguments: argparse.Namespace, device: torch.device
) -> Iterator[Result]:
    with Console(stderr=True).status("imports") as status, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".torch.jit.script", FutureWarning)  # torch's own, under forward mode
        cold, rounds = not (arguments.warm or arguments.smoke), 0 if arguments.smoke else arguments.rounds
        begun = warmed = False
        for name, make in makers.items():
            status.update(f"{name}: is built")
            try:
                one = make()
            except Exception as error:
                if isinstance(error, specs.SpecError) and not begun:  # nothing has run that would be lost
                    raise
                begun = True
                yield Result(name, 1, "step", {}, [], {}, failure=reason(error))
                continue
            if cold and not warmed:
                _compile_once(device)
            begun = warmed = True
            yield race(one, rounds=rounds, seconds=arguments.seconds, cold=cold, told=status.update)
            del one  # with its model and batch, before the next is built


def _compile_once(device: torch.device) -> None:
    """Compile something small: the first to compile in a process pays for imports and the compiler's own headers."""
    x = random.normal(random.key(0), (8, 8)).to(device).requires_grad_()
    with contextlib.suppress(Exception):  # without a compiler every compiled way will say so
        torch.compile(lambda x: (x @ x).tanh().sum())(x).backward()
        jit(lambda x: scan(lambda total, row: (total + row.tanh(), None), x[0], x)[0].sum())(x.detach())


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
    except RuntimeError:
        raise specs.SpecError(f"{text!r} is no device. Write cpu or cuda.") from None
    if device.type not in ("cpu", "cuda"):
        raise specs.SpecError(f"the bench runs on cpu and cuda, not on {text!r}.")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise specs.SpecError("there is no CUDA device on this machine. Write --device cpu.")
        if (device.index or 0) >= (count := torch.cuda.device_count()):
            raise specs.SpecError(f"there is no {text!r}: this machine has {count} CUDA devices, from cuda:0 on.")
        torch.cuda.set_device(device)  # what asks for "cuda", or for the current device, means this one
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
