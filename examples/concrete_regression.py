"""The strength of concrete from what is in it and its age: R² of at least 0.88 on rows held out, and what matters."""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import nn

from funcnet import Model, data, fit, jit, make_eval, make_step, optim, random, vmap
from funcnet.train import save_figure

FLOOR, EPOCHS, BATCH = 0.88, 150, 32


def r_squared(predicted, true):
    """The share of the variance that is explained."""
    return 1 - ((predicted - true) ** 2).mean() / ((true - true.mean()) ** 2).mean()


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds tabular/concrete.csv")
    parser.add_argument("--out", type=Path, default=Path("out/concrete_regression.png"), help="the picture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    args = parser.parse_args(argv)
    split_key, init_key, order_key, run_key, shuffle_key = random.split(random.key(args.seed), 5)
    try:
        table = data.load(f"csv:{args.data}/tabular/concrete.csv#-1", key=split_key)
    except data.DataError as error:
        parser.exit(2, f"{error} --data names the folder that holds tabular.\n")
    train, test, names, (mean, std) = table.train, table.test, table.info["features"], table.statistics
    center, scale = train["label"].mean(), train["label"].std()  # of the training rows alone, as mean and std are
    model = Model(lambda: nn.Sequential(
        nn.Linear(len(names), 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1), nn.Flatten(0),
    ))  # fmt: skip

    def strength(params, state, x):
        return center + scale * model(params, state, (x - mean) / std)

    def measure(params, state, batch):
        return {"test_loss": ((strength(params, state, batch["x"]) - batch["label"]) / scale) ** 2}

    def loss(params, state, batch, key):
        return measure(params, state, batch)["test_loss"].mean(), (state, {})

    rate = optim.cosine_decay_schedule(3e-3, args.epochs * (len(train["label"]) // BATCH))
    step, evaluate = make_step(loss, optim.adamw(rate, weight_decay=0.1)), make_eval(measure, 256)
    ts = step.init(*model.init(init_key), run_key)
    step, evaluate = (step, evaluate) if args.eager else (jit(step, donate=0), jit(evaluate))
    batches = data.stream(order_key, train, BATCH)
    ts, history = fit(step, ts, batches, epochs=args.epochs, evaluate=lambda ts: evaluate(ts, test), schedule=rate)

    predicted = strength(ts.params, ts.state, test["x"])
    reached = r_squared(predicted, test["label"])

    def without(key, feature):  # with this feature taken from other rows
        x = torch.where(torch.arange(len(names)) == feature, random.permutation(key, test["x"]), test["x"])
        return reached - r_squared(strength(ts.params, ts.state, x), test["label"])

    lost = vmap(vmap(without, (0, None)), (None, 0))(random.split(shuffle_key, 20), torch.arange(len(names))).mean(1)

    curves, truth, bars = (figure := Figure((14, 4), layout="constrained")).subplots(1, 3)
    curves.semilogy([(epoch["loss"], epoch["test_loss"]) for epoch in history], label=["training", "test"])
    curves.set(xlabel="epoch", ylabel="mean squared error (of the variance)"), curves.legend()
    truth.plot([0, 85], [0, 85], "0.7"), truth.scatter(test["label"], predicted, s=10)
    truth.set(xlabel="true strength (MPa)", ylabel="predicted", title=f"R² {reached:.3f}")
    order = lost.argsort()
    bars.barh([names[i] for i in order], lost[order].tolist()), bars.set(xlabel="R² lost when shuffled between rows")
    save_figure(figure, args.out)
    print(f"R² {reached:.3f}, at least {FLOOR} after {EPOCHS} epochs; what matters most is {names[lost.argmax()]}")
    return int(reached.item() < FLOOR and args.epochs >= EPOCHS)


if __name__ == "__main__":
    raise SystemExit(main())
