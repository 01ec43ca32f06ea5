"""A net that learns 1,000 digits by heart, a third of them mislabelled: where to stop, and what is restored."""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import nn

from funcnet import Model, checkpoint, data, fit, jit, make_eval, make_step, optim, random
from funcnet.train import EarlyStopping, draw_curves, save_figure

ROWS, EPOCHS, PATIENCE, BATCH, NOISE = 1000, 60, 5, 50, 1 / 3


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds MNIST/raw")
    parser.add_argument("--out", type=Path, default=Path("out/early_stopping.png"), help="the curves")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the run that is not stopped")
    parser.add_argument("--limit", type=int, default=ROWS, help="how many digits to learn, and how many to stop by")
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    args = parser.parse_args(argv)
    try:
        digits = data.load("mnist", root=args.data)
    except data.DataError as error:
        parser.exit(2, f"{error}\n")
    rows_key, which_key, label_key, init_key, order_key, run_key = random.split(random.key(args.seed), 6)
    rows = random.permutation(rows_key, len(digits.train["label"]))[: 2 * args.limit].chunk(2)
    train, val = ({name: values[part] for name, values in digits.train.items()} for part in rows)
    wrong = random.bernoulli(which_key, NOISE, (args.limit,))
    train["label"] = torch.where(wrong, random.randint(label_key, (args.limit,), 0, 10), train["label"])
    model = Model(lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10)))

    def measure(params, state, batch):
        logits = model(params, state, batch["x"] / 255)
        nats = F.cross_entropy(logits, batch["label"], reduction="none")
        return {"val_loss": nats, "val_accuracy": logits.argmax(-1) == batch["label"]}

    def loss(params, state, batch, key):
        found = measure(params, state, batch)
        return found["val_loss"].mean(), (state, {"accuracy": found["val_accuracy"].float().mean()})

    step, evaluate = make_step(loss, optim.adam(1e-3)), make_eval(measure, 500)
    fast, evaluate = (step, evaluate) if args.eager else (jit(step, donate=0), jit(evaluate))

    def run(stopping=None):
        """The last state, that of the epoch with the least validation loss, and the history."""
        ts = step.init(*model.init(init_key), run_key)
        with TemporaryDirectory() as folder, checkpoint.Checkpoints(folder, keep_best=1, best="val_loss") as kept:
            ts, history = fit(
                fast, ts, data.stream(order_key, train, BATCH), epochs=args.epochs,
                evaluate=lambda ts: evaluate(ts, val), early_stopping=stopping, save=kept.save,
            )  # fmt: skip
            return ts, checkpoint.load(kept.best(), like=ts), history

    last, _, history = run()
    _, best, short = run(EarlyStopping(PATIENCE, metric="val_loss"))
    at = min(range(len(short)), key=lambda epoch: short[epoch]["val_loss"])
    nats, right = zip(*(evaluate(ts, digits.test).values() for ts in (best, last)), strict=True)
    print(f"stopped after {len(short)} of {args.epochs} epochs; epoch {at + 1} was the best, and is restored")
    print(f"the best: {right[0]:.2%} of the test digits right, {nats[0]:.3f} nats (at most 0.8 of the last's)")
    print(f"the last: {right[1]:.2%} of the test digits right, {nats[1]:.3f} nats")
    for axes in (figure := draw_curves(history)).axes:
        axes.axvline(at + 1, color="C2", ls="--", label="best"), axes.axvline(len(short), color="C3", label="stopped")
        axes.legend()
    save_figure(figure, args.out)
    missed = short != history[: len(short)] or len(short) == args.epochs or not nats[0] < 0.8 * nats[1]
    return int(missed and args.limit >= ROWS and args.epochs >= EPOCHS)


if __name__ == "__main__":
    raise SystemExit(main())
