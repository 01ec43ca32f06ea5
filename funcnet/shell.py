"""The one grammar of the commands: statuses, messages, help with examples, and types of arguments."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

__all__ = [
    "ABSENT",
    "DONE",
    "FAILED",
    "INTERRUPTED",
    "UNABLE",
    "Parser",
    "add_command",
    "add_json",
    "finite",
    "positive",
    "show",
    "stop",
]

DONE, FAILED, UNABLE, ABSENT, INTERRUPTED = 0, 1, 2, 3, 130


def stop(message: str, status: int = UNABLE) -> int:
    """Say on standard error, in one line, why a command ends, and give its status."""
    print(f"funcnet: {' '.join(message.split())}", file=sys.stderr)
    return status


def show(value: Any) -> None:
    """Print a value as JSON on standard output; numbers that are not finite are null."""
    print(json.dumps(finite(value), indent=1, allow_nan=False))


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line; those of commands are of its class as well."""

    def error(self, message: str) -> NoReturn:
        """Print the message and leave with the status of what cannot run."""
        self.exit(UNABLE, f"{self.prog}: error: {message} ({self.prog} --help lists the options)\n")


def add_command(commands: Any, name: str, *, help: str, description: str, examples: Sequence[str]) -> Any:
    """A parser of a new command, whose help ends with examples."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=description,
        epilog="\n".join(("examples:", *(f"  funcnet {example}" for example in examples))),
        formatter_class=_Help,
    )
    return parser


def add_json(parser: Any) -> None:
    """The option `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else, on standard output")


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Fills paragraphs but examples, and shows the defaults that say something."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("examples:") else super()._fill_text(text, width, indent)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default not in (None, [], False) else action.help


def finite(value: Any) -> Any:
    """A value in JSON's terms: what is not finite is None."""
    if isinstance(value, dict):
        return {str(name): finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
