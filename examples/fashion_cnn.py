"""A CNN on Fashion-MNIST: at least 91 % of the test pictures are right after five epochs."""

import argparse
from pathlib import Path

import torch.nn.functional as F
from torch import nn

from funcnet import Model, data, fit, jit, make_eval, make_step, optim, random
from funcnet.data import augment
from funcnet.train import ConsoleLog, draw_curves, save_figure

FLOOR, EPOCHS, BATCH = 0.91, 5, 128


def cnn():
    """Two convolutions that halve the picture, and two layers on what they found."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def main(argv=None):
    """Train, and draw how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds FashionMNIST/raw")
    parser.add_argument("--download", action="store_true", help="fetch what is not there")
    parser.add_argument("--out", type=Path, default=Path("out/fashion_cnn.png"), help="the curves")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--limit", type=int, help="use only the first so many pictures")
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    args = parser.parse_args(argv)
    try:
        clothes = data.load("fashion-mnist", root=args.data, download=args.download)
    except data.DataError as error:
        parser.exit(2, f"{error}\n")
    train, test = ({name: rows[: args.limit] for name, rows in part.items()} for part in (clothes.train, clothes.test))

    model = Model(cnn)
    schedule = optim.cosine_decay_schedule(2e-3, args.epochs * (len(train["label"]) // BATCH))
    init_key, order_key, run_key = random.split(random.key(args.seed), 3)

    def loss(params, state, batch, key):
        flip_key, dropout_key = random.split(key)
        x = augment.normalize(augment.flip(flip_key, batch["x"]), *clothes.statistics)
        logits, state = model.apply(params, state, x, key=dropout_key, train=True)
        right = logits.argmax(-1) == batch["label"]
        return F.cross_entropy(logits, batch["label"]), (state, {"accuracy": right.float().mean()})

    def measure(params, state, batch):
        logits = model(params, state, augment.normalize(batch["x"], *clothes.statistics))
        losses = F.cross_entropy(logits, batch["label"], reduction="none")
        return {"test_loss": losses, "test_accuracy": logits.argmax(-1) == batch["label"]}

    step, evaluate = make_step(loss, optim.adamw(schedule, weight_decay=0.01)), make_eval(measure, 500)
    ts = step.init(*model.init(init_key), run_key)
    if not args.eager:
        step, evaluate = jit(step, donate=0), jit(evaluate)
    ts, history = fit(
        step, ts, data.stream(order_key, train, BATCH), epochs=args.epochs,
        evaluate=lambda ts: evaluate(ts, test), schedule=schedule, log=[ConsoleLog()],
    )  # fmt: skip

    save_figure(draw_curves(history), args.out)
    accuracy = history[-1]["test_accuracy"]
    print(f"test accuracy {accuracy:.2%}, at least {FLOOR:.0%} after {EPOCHS} epochs; the curves are in {args.out}")
    return int(accuracy < FLOOR and not args.limit and args.epochs >= EPOCHS)


if __name__ == "__main__":
    raise SystemExit(main())
