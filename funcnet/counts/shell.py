"""`funcnet summary`."""

import argparse
import sys
from typing import Any

from rich.console import Console

from funcnet import specs
from funcnet.counts.summary import Summary, summary
from funcnet.model import Model
from funcnet.shell import add_command, add_json, show, stop

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the program's."""
    parser = add_command(
        commands,
        "summary",
        help="print what a model holds and what a call of it costs",
        description="Prints a model's submodules with their output shapes, parameters, formulas and FLOPs (2 for a "
        "multiplication with its addition; elementwise work counts none). The call runs on the CPU without memory.",
        examples=[
            "summary torchvision:resnet50 --input 1,3,224,224 --depth 2",
            "summary package.module:factory --input 8,16:int64:1000 --train --json",
        ],
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
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    """Print the summary; the exit status is 0, or 2 where there is none."""
    try:
        inputs = [specs.parse_input(text) for text in arguments.input]
        module = specs.load(arguments.model)
        table = summary(Model(module), *inputs, train=arguments.train, depth=arguments.depth)
    except specs.SpecError as error:
        return stop(str(error))
    except Exception as error:  # whatever the model raises on this input
        shapes = " ".join(f"--input {text}" for text in arguments.input) or "no --input"
        return stop(f"{arguments.model} fails with {shapes}: {type(error).__name__}: {' '.join(str(error).split())}")
    if arguments.json:
        show(_plain(table))
    elif sys.stdout.isatty():
        Console().print(table)
    else:
        print(table)
    return 0


def _depth(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no depth: write 0, 1, 2 ...")
    return int(text)


def _plain(table: Summary) -> dict[str, Any]:
    totals = ("count", "trainable", "frozen", "buffers", "parameter_bytes", "forward", "backward", "kept")
    rows = [
        {"path": row.path, "kind": row.kind, "count": row.count, "formula": row.formula}
        | (row.cost._asdict() if row.cost else {})
        for row in table.rows
    ]
    return {name: getattr(table, name) for name in totals} | {"rows": rows}
