"""`funcnet train`, `resume`, `evaluate`, `predict` and `find-lr`."""

import argparse
from pathlib import Path
from typing import Any

from funcnet.runs import commands as commanded
from funcnet.runs.options import Parser, add_common, add_run, number, whole

__all__ = ["Parser", "add_parsers"]

_TRAIN = """\
examples:
  funcnet train --data digits --model mlp:64 --epochs 20 --out runs/digits
  funcnet train --data mnist --model mlp:784-512-256-10 --optim adamw --schedule warmup-cosine --epochs 5 \\
      --compile --precision bf16 --out runs/mnist
  funcnet train --data folder:photos --size 64 --model torchvision:resnet18 --augment flip --augment crop:padding=4
  funcnet train --data folder:photos --size 64 --model cnn --init-from runs/other --freeze "0.*"
  funcnet train --data "csv:houses.csv#price" --model mlp:64-64 --early-stopping 10 --epochs 200
  funcnet train --data text:input.txt --model gpt:128,layers=4,heads=4 --length 128 --steps 2000
  funcnet train --config runs/mnist/config.toml --lr 3e-4 --out runs/slower

exit status: 0 done; 1 the loss was not finite; 2 it could not run, and stderr says why; 130 interrupted, and saved.
docs/command-line.md has all names and their options."""
_RESUME = """\
examples:
  funcnet resume runs/mnist               to where it was to end, to the bits of a run that never stopped
  funcnet resume runs/mnist --epochs 10   further; the schedule is then that of 10 epochs"""
_EVALUATE = """\
examples:
  funcnet evaluate runs/mnist
  funcnet evaluate runs/mnist --checkpoint best --json
  funcnet evaluate runs/photos --data folder:other-photos --part all"""
_PREDICT = """\
examples:
  funcnet predict runs/photos cat.jpg dogs/ --top 3
  funcnet predict runs/houses new.csv --json
  funcnet predict runs/text "ROMEO:" --tokens 300 --temperature 0.8"""
_FIND = """\
examples:
  funcnet find-lr --data mnist --model mlp:512-256 --plot rates.png
  funcnet find-lr --config runs/mnist/config.toml --low 1e-5 --high 1"""


def add_parsers(commands: Any) -> None:
    """Add the commands to the program's."""
    train = commands.add_parser(
        "train",
        help="train a model on data by name, in a folder that explains itself",
        description="Trains a model, and writes the settings, log, curves, checkpoints and result into a folder.",
        epilog=_TRAIN,
    )
    group = add_run(train)
    group.add_argument(
        "--out", type=Path, metavar="DIR", help="the run's folder (default: the first free of runs/1 ...)"
    )
    group.add_argument(
        "--resume", action="store_true", help="go on if the folder has a run (default: that is an error)"
    )
    _add_talk(group)
    train.set_defaults(run=commanded.train)

    resume = commands.add_parser(
        "resume",
        help="go on with a run from its newest checkpoint",
        description="Goes on with a run from its newest checkpoint.",
        epilog=_RESUME,
    )
    resume.add_argument("folder", type=Path, metavar="DIR", help="the run's folder")
    resume.add_argument("--epochs", type=whole(), metavar="N", help="end after so many in all (default: as it was)")
    resume.add_argument("--steps", type=whole(), metavar="N", help="end after so many in all (default: as it was)")
    resume.add_argument("--device", metavar="NAME", help="where to go on (default: where it was)")
    _add_talk(resume)
    resume.set_defaults(run=commanded.resume)

    evaluate = commands.add_parser(
        "evaluate",
        help="measure a trained model, class by class",
        description="Measures a trained model: metrics, accuracy of each class, and a table of confusions.",
        epilog=_EVALUATE,
    )
    evaluate.add_argument("folder", type=Path, metavar="DIR", help="the run's folder")
    evaluate.add_argument("--data", metavar="SPEC", help="other data of the same kind (default: the run's own)")
    evaluate.add_argument(
        "--part", choices=("test", "train", "all"), default="test", help="of the data (default: test)"
    )
    _add_trained(evaluate)
    evaluate.set_defaults(run=commanded.evaluate)

    predict = commands.add_parser(
        "predict",
        help="what a trained model says of pictures, rows or the beginning of a text",
        description="Prints what a trained model says of pictures, of the rows of CSV files, or how it goes on after "
        "the beginning of a text, by what it was trained on.",
        epilog=_PREDICT,
    )
    predict.add_argument("folder", type=Path, metavar="DIR", help="the run's folder")
    predict.add_argument("inputs", nargs="+", metavar="INPUT", help="pictures, folders of them, CSV files, or a text")
    predict.add_argument(
        "--top", type=whole(), default=3, metavar="K", help="the likeliest classes to tell (default: 3)"
    )
    predict.add_argument("--tokens", type=whole(), default=200, metavar="N", help="of text to write (default: 200)")
    predict.add_argument(
        "--temperature", type=number(), default=1.0, metavar="T", help="of text; 0 takes the likeliest (default: 1)"
    )
    predict.add_argument("--seed", type=whole(0), default=0, metavar="N", help="of text (default: 0)")
    _add_trained(predict)
    predict.set_defaults(run=commanded.predict)

    find = commands.add_parser(
        "find-lr",
        help="sweep over learning rates, and suggest one",
        description="Trains once with a learning rate that grows from step to step, and suggests the one at which the "
        "loss falls most. Takes the options of train; nothing is kept but the picture. Exit status 1 if there is no "
        "rate to suggest.",
        epilog=_FIND,
    )
    group = add_run(find)
    sweep = find.add_argument_group("sweep")
    above = number(above=True)
    sweep.add_argument("--low", type=above, default=1e-6, metavar="X", help="the first rate (default: 1e-6)")
    sweep.add_argument("--high", type=above, default=10.0, metavar="X", help="the last rate (default: 10)")
    sweep.add_argument("--rates", type=whole(10), default=100, metavar="N", help="how many (default: 100)")
    sweep.add_argument("--plot", type=Path, metavar="FILE", help="draw losses over rates (default: no)")
    _add_talk(sweep)
    find.set_defaults(run=commanded.find)


def _add_talk(parser: Any) -> None:
    add_common(parser)
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors and the result")


def _add_trained(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", default="latest", metavar="WHICH", help="latest, best, or a step (default: latest)"
    )
    parser.add_argument("--device", metavar="NAME", help="where to compute (default: where it was trained)")
    add_common(parser)
