"""The command line: `funcnet train` and what goes with it, `demo`, `summary`, `check` and `bench`."""

import argparse
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import cast

from funcnet.bench import shell as bench
from funcnet.counts import shell as summary
from funcnet.runs import shell as runs
from funcnet.shell import DONE, FAILED, INTERRUPTED, Parser, add_command, stop
from funcnet.testing import shell as check

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments after the program's name. Default: those of the process.

    Returns:
        The exit status: 0; 1 where a model missed its accuracy; 2 where the command could not run; 130 where it was
        interrupted.
    """
    arguments = _parser().parse_args(argv)
    try:
        return cast(int, arguments.run(arguments))
    except KeyboardInterrupt:
        return stop("interrupted.", INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="funcnet", description="Purely functional PyTorch.")
    parser.add_argument("--version", action="version", version=f"funcnet {version('funcnet')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    runs.add_parsers(commands)
    demo = add_command(
        commands,
        "demo",
        help="train two classifiers of handwritten digits and compare the speed of their steps",
        description="Trains an MLP and a CNN on scikit-learn's handwritten digits, times their training step in "
        "ordinary torch, pure, and compiled, and writes pictures and weights. Exit status 1 if a model misses its "
        "accuracy.",
        examples=["demo", "demo --eager --out pictures --seed 3"],
    )
    demo.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="where pictures and weights go")
    demo.add_argument("--seed", type=_seed, default=0, metavar="N", help="where all randomness starts")
    demo.add_argument("--eager", action="store_true", help="compile nothing (needs no C++ compiler)")
    demo.set_defaults(run=lambda arguments: _demo(arguments.out, arguments.seed, arguments.eager))
    summary.add_parser(commands)
    check.add_parser(commands)
    bench.add_parser(commands)
    return parser


def _seed(text: str) -> int:
    try:
        seed = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no integer") from None
    if not -(2**63) <= seed < 2**64:
        raise argparse.ArgumentTypeError(f"{text} has more than 64 bits")
    return seed


def _demo(out: Path, seed: int, eager: bool) -> int:
    try:
        from funcnet.demo import Settings, run
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("sklearn", "matplotlib"):
            raise
        name = {"sklearn": "scikit-learn"}.get(package, package)
        return stop(f'the demo needs {name}, which is not installed: pip install "funcnet[demo]"')
    from funcnet.jit import CompilerMissingError

    try:
        reached = run(out, seed, Settings(backend=None if eager else "inductor"))
    except CompilerMissingError as error:
        return stop(f"{error} Or run: funcnet demo --eager")
    except OSError as error:
        return stop(f"cannot write to {str(out)!r}: {error.strerror or error}. Name another folder with --out.")
    return DONE if reached else FAILED
