"""The options of a run on a command line."""

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Any

from funcnet.runs import config as configs

__all__ = ["add_run", "given", "names", "number", "whole"]


def whole(least: int = 1) -> Callable[[str], int]:
    """A type for argparse: whole numbers from `least` on."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
        return value

    return convert


def number(low: float = 0.0, high: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """A type for argparse: numbers from `low` on, or `above` it, and below `high`."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (value > low if above else value >= low) or not value < high:
            most = "" if high == math.inf else f" and below {high:g}"
            raise argparse.ArgumentTypeError(
                f"{text!r} is no number {'above' if above else 'from'} {low:g}{'' if above else ' on'}{most}"
            )
        return value

    return convert


def _seed(text: str) -> int:
    value = whole(-(2**63))(text)
    if value >= 2**64:
        raise argparse.ArgumentTypeError(f"{text} has more than 64 bits")
    return value


# Of each option: its group, what it takes, its type if it is no text, and what it means.
_OPTIONS: dict[str, tuple[str, str, Callable[[str], Any] | None, str]] = {
    "data": (
        "data",
        "SPEC",
        None,
        "digits, mnist, fashion-mnist, cifar10, folder:PATH, csv:PATH#target, text:PATH, synthetic:KIND (required)",
    ),
    "root": ("data", "DIR", None, "where mnist and the like lie (default: $FUNCNET_DATA, else ~/.cache/funcnet)"),
    "download": ("data", "", None, "fetch such data where it is not there (default: no)"),
    "size": ("data", "N|HxW", None, "resize the pictures of a folder (default: as they are)"),
    "skip_bad": ("data", "", None, "leave out pictures and lines that cannot be read (default: no)"),
    "length": ("data", "N", whole(), "tokens a window of text (default: 64)"),
    "augment": (
        "data",
        "NAME",
        None,
        "change pictures by chance: flip, crop:padding=4, rotate:15, mixup ...; may be repeated (default: none)",
    ),
    "model": (
        "model",
        "SPEC",
        None,
        "linear, mlp:512-256, cnn:32-64, lstm:256, gpt:128, torchvision:NAME, package.module:factory (required)",
    ),
    "init_from": (
        "model",
        "FILE",
        None,
        "begin with the weights of a run, a checkpoint, a safetensors or a torch file (default: fresh ones)",
    ),
    "freeze": (
        "model",
        "GLOB",
        None,
        'keep these parameters as they are, such as "layer1.*"; may be repeated (default: none)',
    ),
    "optim": ("learning", "NAME", None, "adamw, sgd:momentum=0.9, lion, torch:Adam ... (default: adamw)"),
    "lr": (
        "learning",
        "X",
        number(above=True),
        "learning rate, the highest of the schedule (default: the optimizer's; 1e-3 for adam and adamw, 0.1 for sgd)",
    ),
    "weight_decay": (
        "learning",
        "X",
        number(),
        "share of the parameters that each step takes off (default: the optimizer's)",
    ),
    "schedule": (
        "learning",
        "NAME",
        None,
        "constant, cosine, warmup-cosine, linear, step, onecycle ... over the whole run (default: constant)",
    ),
    "epochs": ("learning", "N", whole(), "passes over the training set (default: 5)"),
    "steps": ("learning", "N", whole(), "end after so many steps instead"),
    "batch_size": ("learning", "N", whole(), "rows a step (default: 64)"),
    "accumulate": ("learning", "N", whole(), "work on a batch in so many parts (default: 1)"),
    "clip": ("learning", "X", number(above=True), "shorten gradients to this length (default: no)"),
    "ema": (
        "learning",
        "X",
        number(high=1.0),
        "keep a running mean of the parameters with this decay, and evaluate that (default: no)",
    ),
    "skip_nonfinite": ("learning", "", None, "leave out steps that are not finite, instead of ending (default: no)"),
    "early_stopping": ("learning", "N", whole(), "end after N epochs without a better test metric (default: no)"),
    "precision": (
        "machine",
        "NAME",
        None,
        "fp32, tf32, fp64, bf16, fp16, autocast-bf16, autocast-fp16 (default: fp32)",
    ),
    "compile": ("machine", "", None, "compile the step, which needs a C++ compiler (default: no)"),
    "device": ("machine", "NAME", None, "cpu, cuda, cuda:1, or auto: a GPU where there is one (default: auto)"),
    "seed": ("machine", "N", _seed, "where all randomness starts (default: 0)"),
    "metrics": (
        "folder",
        "NAME",
        None,
        "grad_norm, param_norm, update_ratio, grad_norms ...; may be repeated (default: loss and accuracy alone)",
    ),
    "save_every": ("folder", "N", whole(), "steps between checkpoints within an epoch (default: at its end alone)"),
    "keep_last": ("folder", "N", whole(), "checkpoints to keep besides the best (default: 3)"),
    "log_every": ("folder", "N", whole(), "steps between rows of the log within an epoch (default: 100 rows a run)"),
}
_TITLES = {"data": "data", "model": "model", "learning": "learning", "machine": "machine", "folder": "folder and log"}


def add_run(parser: argparse.ArgumentParser) -> Any:
    """Add what a run is made of; returns the group of the folder, for more."""
    groups = {name: parser.add_argument_group(title) for name, title in _TITLES.items()}
    for name, (group, metavar, kind, text) in _OPTIONS.items():
        flag = f"--{name.replace('_', '-')}"
        # Left out where it is not written, so that a file's value shows.
        how: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
        if configs.option(name).base is bool:
            groups[group].add_argument(flag, action=argparse.BooleanOptionalAction, **how)
        else:
            action: dict[str, Any] = {"action": "append"} if configs.option(name).several else {}
            groups[group].add_argument(flag, metavar=metavar, type=kind or str, **action, **how)
    groups["folder"].add_argument(
        "--config", metavar="FILE.toml", help="settings by these names with _ for -; options go before (default: none)"
    )
    return groups["folder"]


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that were written on the command line."""
    values = {name: value for name, value in vars(arguments).items() if name in _OPTIONS}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def names() -> Sequence[str]:
    """The settings that have an option."""
    return tuple(_OPTIONS)
