"""`funcnet train`, `resume`, `evaluate`, `predict` and `find-lr`: their options."""

import argparse
from pathlib import Path
from typing import Any

from funcnet.runs import commands as work
from funcnet.runs.options import add_run, number, whole
from funcnet.shell import add_command, add_json

__all__ = ["add_parsers"]


def add_parsers(commands: Any) -> None:
    """Add the commands to the program's."""
    _add_train(commands)
    _add_resume(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    _add_find(commands)


def _add_train(commands: Any) -> None:
    parser = add_command(
        commands,
        "train",
        help="train a model on data by name, in a folder that explains itself",
        description="Trains a model, and writes settings, log, curves, checkpoints and result into a folder. Exit "
        "status 1 if the loss is not finite; 2 if it cannot run, and then nothing is written; 130 if it was "
        "interrupted, and then it can go on. All names and their options are in docs/command-line.md.",
        examples=[
            "train --data digits --model mlp:64 --epochs 20 --out runs/digits",
            "train --data mnist --model mlp:784-512-256-10 --schedule warmup-cosine --compile --precision bf16",
            "train --data folder:photos --size 64 --model torchvision:resnet18 --augment flip --augment crop:padding=4",
            'train --data folder:photos --size 64 --model cnn --init-from runs/other --freeze "0.*"',
            'train --data "csv:houses.csv#price" --model mlp:64-64 --epochs 200 --early-stopping 10',
            "train --data text:input.txt --model gpt:128,layers=4,heads=4 --length 128 --steps 2000",
            "train --config runs/digits/config.toml --lr 3e-4 --out runs/slower",
        ],
    )
    group = add_run(parser)
    group.add_argument(
        "--out", type=Path, metavar="DIR", help="the run's folder (default: the first free of runs/1, runs/2 ...)"
    )
    group.add_argument("--resume", action="store_true", help="go on if the folder has this run (default: an error)")
    _add_talk(group)
    parser.set_defaults(run=work.train)


def _add_resume(commands: Any) -> None:
    parser = add_command(
        commands,
        "resume",
        help="go on with a run from its newest checkpoint",
        description="Goes on with a run from its newest checkpoint, to the bits of one that never stopped. With "
        "--epochs it goes further, and the schedule is then that of a run so long.",
        examples=["resume runs/digits", "resume runs/digits --epochs 40"],
    )
    _add_folder(parser)
    parser.add_argument("--epochs", type=whole(), metavar="N", help="end after so many in all (default: as it was)")
    parser.add_argument("--steps", type=whole(), metavar="N", help="end after so many in all (default: as it was)")
    parser.add_argument("--device", metavar="NAME", help="where to go on (default: where it was)")
    _add_talk(parser)
    parser.set_defaults(run=work.resume)


def _add_evaluate(commands: Any) -> None:
    parser = add_command(
        commands,
        "evaluate",
        help="measure a trained model, class by class",
        description="Measures a trained model: metrics, the accuracy of each class, and a table of confusions.",
        examples=[
            "evaluate runs/digits",
            "evaluate runs/digits --checkpoint best --json",
            "evaluate runs/photos --data folder:other-photos --part all",
        ],
    )
    _add_folder(parser)
    parser.add_argument("--data", metavar="SPEC", help="other data of the same kind (default: the run's own)")
    parser.add_argument("--part", choices=("test", "train", "all"), default="test", help="of the data")
    parser.add_argument("--batch-size", type=whole(), default=256, metavar="N", help="rows to compute at once")
    _add_trained(parser)
    parser.set_defaults(run=work.evaluate)


def _add_predict(commands: Any) -> None:
    parser = add_command(
        commands,
        "predict",
        help="what a trained model says of pictures, rows or the beginning of a text",
        description="Prints what a trained model says of pictures, of the rows of CSV files, or how it goes on after "
        "the beginning of a text, by what it was trained on.",
        examples=[
            "predict runs/photos cat.jpg dogs/ --top 3",
            "predict runs/houses new.csv --json",
            'predict runs/text "ROMEO:" --tokens 300 --temperature 0.8',
        ],
    )
    _add_folder(parser)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="pictures, folders of them, CSV files, or a text")
    parser.add_argument("--top", type=whole(), default=3, metavar="K", help="how many of the likeliest classes to tell")
    parser.add_argument("--tokens", type=whole(), default=200, metavar="N", help="of text: how many to write")
    parser.add_argument(
        "--temperature", type=number(), default=1.0, metavar="T", help="of text: 0 takes the likeliest each time"
    )
    parser.add_argument("--seed", type=whole(0), default=0, metavar="N", help="of text")
    _add_trained(parser)
    parser.set_defaults(run=work.predict)


def _add_find(commands: Any) -> None:
    parser = add_command(
        commands,
        "find-lr",
        help="sweep over learning rates, and suggest one",
        description="Trains once with a learning rate that grows from step to step, and suggests the one at which the "
        "loss falls most. Takes the options of train; nothing is written but the picture. Exit status 1 if there is "
        "no rate to suggest.",
        examples=[
            "find-lr --data digits --model mlp:64 --plot rates.png",
            "find-lr --config runs/digits/config.toml --low 1e-5 --high 1",
        ],
    )
    add_run(parser)
    group, above = parser.add_argument_group("sweep"), number(above=True)
    group.add_argument("--low", type=above, default=1e-6, metavar="X", help="the first rate")
    group.add_argument("--high", type=above, default=10.0, metavar="X", help="the last rate")
    group.add_argument("--rates", type=whole(10), default=100, metavar="N", help="how many")
    group.add_argument("--plot", type=Path, metavar="FILE", help="draw losses over rates (default: no)")
    _add_talk(group)
    parser.set_defaults(run=work.find)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="the run's folder")


def _add_talk(parser: Any) -> None:
    add_json(parser)
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors and the result")


def _add_trained(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default="latest", metavar="WHICH", help="latest, best, or a step")
    parser.add_argument("--device", metavar="NAME", help="where to compute (default: where it was trained)")
    add_json(parser)
