"""`funcnet check`."""

import argparse
import sys
import warnings
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from funcnet import random, specs
from funcnet.model import Model
from funcnet.shell import FAILED, add_command, add_json, show, stop
from funcnet.testing.suite import CHECKS, Report, run_checks

__all__ = ["add_parser"]

_STYLES = {"passed": "green", "failed": "bold red", "skipped": "dim"}


def add_parser(commands: Any) -> None:
    """Add the command to the program's."""
    parser = add_command(
        commands,
        "check",
        help="check that a model is pure, differentiable, and the same under vmap, jit, remat and threads",
        description=f"Runs the checks of funcnet.testing on a model: {', '.join(CHECKS)}. Parameters and inputs are "
        "drawn from the seed. Exit status 1 if a check fails, 2 if there is nothing to check.",
        examples=[
            "check torchvision:resnet18 --input 2,3,64,64",
            "check package.module:factory --input 2,16:int64:1000 --skip threads --seed 3 --json",
        ],
    )
    parser.add_argument("model", help="torchvision:NAME, package.module:factory or 'torch.nn:Linear(256, 10)'")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="SIZES[:DTYPE[:BELOW]]",
        help="an input, such as 2,3,32,32 or 2,16:int64:1000; once for each",
    )
    for word, meaning in (("only", "run this check only; may be repeated"), ("skip", "leave this check out; likewise")):
        parser.add_argument(f"--{word}", action="append", default=[], choices=CHECKS, metavar="CHECK", help=meaning)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="where all randomness starts")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    """Print the report; the exit status is 0, 1 where a check fails, or 2 where there is nothing to check."""
    try:
        inputs = [specs.parse_input(text) for text in arguments.input]
        model = Model(specs.load(arguments.model))
        key = random.key(arguments.seed)
        examples = [specs.example(spec, random.fold_in(key, 2 + i)) for i, spec in enumerate(inputs)]
    except (specs.SpecError, ValueError) as error:
        return stop(str(error))
    terminal = Console(stderr=True)
    try:
        with warnings.catch_warnings(), terminal.status("checking ...") as status:
            warnings.simplefilter("ignore")
            report = run_checks(
                model,
                *examples,
                key=key,
                only=arguments.only or None,
                skip=arguments.skip,
                watch=lambda result: status.update(f"{result.check} {result.status} ..."),
            )
    except Exception as error:  # whatever the model raises on this input
        shapes = " ".join(f"--input {text}" for text in arguments.input) or "no --input"
        return stop(f"{arguments.model} fails with {shapes}: {type(error).__name__}: {' '.join(str(error).split())}")
    _print(report, arguments)
    return 0 if report.ok else FAILED


def _print(report: Report, arguments: argparse.Namespace) -> None:
    if arguments.json:
        results = [result._asdict() for result in report.results]
        return show({"model": arguments.model, "seed": arguments.seed, "ok": report.ok, "results": results})
    if not sys.stdout.isatty():
        return print(report)
    table = Table(box=None, title=f"{arguments.model}, seed {arguments.seed}", title_justify="left")
    table.add_column("check", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("detail")
    for result in report.results:
        detail = result.detail.removeprefix(f"check_{result.check}: ")
        table.add_row(result.check, Text(result.status, _STYLES[result.status]), f"{result.seconds:.2f}", Text(detail))
    Console().print(table)
