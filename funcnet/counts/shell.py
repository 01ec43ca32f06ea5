"""`funcnet summary`."""

import argparse
import sys
from typing import Any

from rich.console import Console

from funcnet import specs
from funcnet.counts.summary import summary
from funcnet.model import Model

__all__ = ["add_parser"]

_UNABLE = 2


def add_parser(commands: Any) -> None:
    """Add the command to the program's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "summary",
        help="print what a model holds and what a call of it costs",
        description="Prints a model's submodules with their output shapes, parameters, formulas and FLOPs (2 for a "
        "multiplication with its addition; elementwise work counts none). The call runs on the CPU without memory.",
    )
    parser.add_argument("model", help="torchvision:NAME, package.module:factory or 'torch.nn:Linear(256, 10)'")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="SIZES[:DTYPE[:BELOW]]",
        help="an input, such as 1,3,224,224 or 2,16:int64:1000; once for each. Default: count parameters only",
    )
    parser.add_argument("--depth", type=_depth, metavar="N", help="sum what lies more than N submodules deep")
    parser.add_argument("--train", action="store_true", help="train mode, with the FLOPs and memory of the backward")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    """Print the summary; the exit status is 0, or 2 where there is none."""
    try:
        inputs = [specs.parse_input(text) for text in arguments.input]
        module = specs.load(arguments.model)
        table = summary(Model(module), *inputs, train=arguments.train, depth=arguments.depth)
    except specs.SpecError as error:
        return _stop(str(error))
    except Exception as error:  # whatever the model raises on this input
        shapes = " ".join(f"--input {text}" for text in arguments.input) or "no --input"
        return _stop(f"{arguments.model} fails with {shapes}: {type(error).__name__}: {' '.join(str(error).split())}")
    if sys.stdout.isatty():
        Console().print(table)
    else:
        print(table)
    return 0


def _depth(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no depth: write 0, 1, 2 ...")
    return int(text)


def _stop(message: str) -> int:
    print(f"funcnet: {message}", file=sys.stderr)
    return _UNABLE
