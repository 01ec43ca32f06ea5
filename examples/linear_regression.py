"""Fit y = 3x + 2 through noisy points: a model, a loss, an optimizer, one pure step."""

import argparse
import os
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import nn

from funcnet import Model, TrainState, jit, make_step, optim, random

SLOPE, INTERCEPT, NOISE = 3.0, 2.0, 0.5


def main(argv: list[str] | None = None) -> int:
    """Fit the line, compare it with the truth, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/linear_regression.png"), help="the picture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--points", type=int, default=500)
    parser.add_argument("--compile", action="store_true", help="jit the step")
    arguments = parser.parse_args(argv)

    # One key for each thing that is random: where JAX users split, PyTorch users would have called manual_seed.
    x_key, noise_key, init_key, run_key = random.split(random.key(arguments.seed), 4)
    x = random.uniform(x_key, (arguments.points, 1), minval=-2.0, maxval=2.0)
    y = SLOPE * x + INTERCEPT + NOISE * random.normal(noise_key, x.shape)

    model = Model(nn.Linear, 1, 1)
    optimizer = optim.adam(optim.cosine_decay_schedule(0.1, 400))

    def loss(params, state, batch, key):
        prediction, state = model.apply(params, state, batch["x"], train=True)
        return ((prediction - batch["y"]) ** 2).mean(), (state, {})

    step = make_step(loss, optimizer)
    step = jit(step, donate=0) if arguments.compile else step
    ts = TrainState.create(*model.init(init_key), optimizer, run_key)
    for _ in range(400):
        ts, metrics = step(ts, {"x": x, "y": y})

    slope, intercept = ts.params["weight"].item(), ts.params["bias"].item()
    slope_error = NOISE / ((x - x.mean()) ** 2).sum().sqrt().item()
    intercept_error = NOISE * (1 / arguments.points + (x.mean() ** 2 / ((x - x.mean()) ** 2).sum()).item()) ** 0.5
    print(f"slope     {slope:.4f}, truth {SLOPE}, standard error {slope_error:.4f}")
    print(f"intercept {intercept:.4f}, truth {INTERCEPT}, standard error {intercept_error:.4f}")
    print(f"mean squared error {metrics['loss'].item():.4f}, variance of the noise {NOISE**2:.4f}")

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.scatter(x, y, s=8, alpha=0.4, label="data")
    ends = torch.tensor([[-2.0], [2.0]])
    axes.plot(ends, model(ts.params, ts.state, ends), color="C3", label=f"fit: y = {slope:.2f} x + {intercept:.2f}")
    axes.set(xlabel="x", ylabel="y", title="Linear regression by gradient descent")
    axes.legend(frameon=False)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = arguments.out.with_name(f".{arguments.out.name}.partial")
    figure.savefig(temporary, format="png", dpi=150)
    os.replace(temporary, arguments.out)
    print(f"drawn in {arguments.out}")
    # Three standard errors: a right fit misses them once in some two hundred seeds.
    return int(abs(slope - SLOPE) > 3 * slope_error or abs(intercept - INTERCEPT) > 3 * intercept_error)


if __name__ == "__main__":
    raise SystemExit(main())
