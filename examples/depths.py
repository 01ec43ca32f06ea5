"""A net of 3, 5 and 10 layers on Fashion-MNIST: accuracies, curves, and how much gradient reaches each layer."""

import argparse
from itertools import pairwise
from pathlib import Path

import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn

from funcnet import Model, data, fit, jit, make_eval, make_step, optim, random
from funcnet.data.augment import normalize
from funcnet.train import save_figure

FLOOR, EPOCHS, BATCH, WIDTH = 0.85, 5, 128, 128


def mlp(depth):
    """So many linear layers, with a ReLU between each two."""
    sizes = [784, *[WIDTH] * (depth - 1), 10]
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    return nn.Sequential(nn.Flatten(), *[part for layer in layers[:-1] for part in (layer, nn.ReLU())], layers[-1])


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds FashionMNIST/raw")
    parser.add_argument("--out", type=Path, default=Path("out/depths.png"), help="the picture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--depths", type=int, nargs="+", default=(3, 5, 10))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    args = parser.parse_args(argv)
    try:
        clothes = data.load("fashion-mnist", root=args.data)
    except data.DataError as error:
        parser.exit(2, f"{error}\n")
    train, test = clothes.train, clothes.test
    rate = optim.cosine_decay_schedule(1e-3, args.epochs * (len(train["label"]) // BATCH))
    init_key, order_key, run_key = random.split(random.key(args.seed), 3)

    def trained(depth):
        """The history of a net of this depth, with the length of each layer's gradient."""
        model = Model(mlp, depth)

        def loss(params, state, batch, key):
            logits, state = model.apply(params, state, normalize(batch["x"], *clothes.statistics), train=True)
            return F.cross_entropy(logits, batch["label"]), (state, {})

        def measure(params, state, batch):
            logits = model(params, state, normalize(batch["x"], *clothes.statistics))
            return {"test_accuracy": logits.argmax(-1) == batch["label"]}

        step, evaluate = make_step(loss, optim.adam(rate), metrics=["grad_norms"]), make_eval(measure, 1000)
        ts = step.init(*model.init(init_key), run_key)
        step, evaluate = (step, evaluate) if args.eager else (jit(step, donate=0), jit(evaluate))
        batches = data.stream(order_key, train, BATCH)
        return fit(step, ts, batches, epochs=args.epochs, evaluate=lambda ts: evaluate(ts, test))[1]

    panels, reached = (figure := Figure((15, 4), layout="constrained")).subplots(1, 3), []
    for depth in args.depths:
        history = trained(depth)
        for axes, name in zip(panels, ("loss", "test_accuracy"), strict=False):
            axes.plot(range(1, args.epochs + 1), [epoch[name] for epoch in history], ".-", label=f"{depth} layers")
            axes.set(xlabel="epoch", ylabel=name.replace("_", " "), xticks=range(1, args.epochs + 1))
        norms = [norm for name, norm in history[0].items() if name.startswith("grad_norm/") and name.endswith("weight")]
        panels[2].semilogy(range(1, depth + 1), norms, ".-", label=f"{depth} layers")
        reached.append(history[-1]["test_accuracy"])
        print(f"{depth:2d} layers: {reached[-1]:.2%} right, gradients {norms[0]:.3f} (first) to {norms[-1]:.3f} (last)")
    panels[2].set(xlabel="layer", ylabel="length of its weight's gradient, first epoch"), panels[2].legend()
    save_figure(figure, args.out)
    print(f"the worst of the depths has {min(reached):.2%} right, at least {FLOOR:.0%} after {EPOCHS} epochs")
    return int(min(reached) < FLOOR and args.epochs >= EPOCHS)


if __name__ == "__main__":
    raise SystemExit(main())
