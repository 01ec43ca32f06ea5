"""Ten optimizers at four learning rates each, down a valley and through the digits: forty runs of each, one program."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import nn

from funcnet import Model, jit, optim, random, scan, value_and_grad, vmap

# Each with its middle rate; the others are a tenth, a third and three times that.
RACERS: dict[str, tuple[Callable[..., optim.GradientTransformation], float]] = {
    "sgd": (optim.sgd, 0.05), "momentum": (partial(optim.sgd, momentum=0.9), 0.02), "adagrad": (optim.adagrad, 0.3),
    "rmsprop": (optim.rmsprop, 0.03), "adam": (optim.adam, 0.1), "nadam": (optim.nadam, 0.1), "yogi": (optim.yogi, 0.1),
    "lion": (optim.lion, 0.03), "adabelief": (optim.adabelief, 0.1), "lamb": (optim.lamb, 0.1),
}  # fmt: skip
FACTORS = torch.tensor([0.1, 1 / 3, 1.0, 3.0])


def valley(place: torch.Tensor) -> torch.Tensor:
    """x^2 + 10 y^2 at one point, or at many."""
    return place**2 @ torch.tensor([1.0, 10.0])


def race(loss: Callable[[Any], torch.Tensor], start: Any, steps: int) -> dict[str, tuple[torch.Tensor, Any]]:
    """The losses of every racer (rate, step), and its parameters on the way."""

    def run(make: Callable[..., optim.GradientTransformation], rate: torch.Tensor) -> Any:
        def step(carry: Any, _: None) -> Any:
            value, slope = value_and_grad(loss)(carry[0])
            return optim.advance(make(rate), slope, carry[1], carry[0]), (value, carry[0])

        return scan(step, (start, make(rate).init(start)), None, length=steps)[1]

    return {name: vmap(partial(run, make))(rate * FACTORS) for name, (make, rate) in RACERS.items()}


def draw(downhill: dict[str, Any], digits: dict[str, Any], path: Path) -> None:
    """The ways over the valley's contours, and beside them the losses on the digits, each at its best rate."""
    ground, curves = (figure := Figure((13, 6), layout="constrained")).subplots(1, 2)
    grid = torch.meshgrid(torch.linspace(-4.5, 2, 200), torch.linspace(-2, 2, 200), indexing="xy")
    ground.contour(*grid, valley(torch.stack(grid, -1)), levels=(0.3, 1, 3, 8, 16, 30, 50), colors="0.8")
    for n, (name, (_, rate)) in enumerate(RACERS.items()):
        for axes, (losses, way) in ((ground, downhill[name]), (curves, digits[name])):
            best = int(losses[:, -1].nan_to_num(torch.inf).argmin())
            line = way[best].T if axes is ground else (losses[best],)
            axes.plot(*line, f"C{n}", ls="-" if n < 5 else "--", label=f"{name}, {rate * FACTORS[best]:.3g}")
    ground.set(title="down x² + 10 y²", xlabel="x", ylabel="y")
    curves.set(title="the digits", xlabel="step", ylabel="cross-entropy (nats)", yscale="log")
    ground.legend(title="rate", fontsize=8, loc="lower left"), curves.legend(title="rate", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> int:
    """Race, print where everyone came in, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--out", type=Path, default=Path("race.png"))
    args, (images, labels) = parser.parse_args(argv), map(torch.as_tensor, load_digits(return_X_y=True))
    model = Model(lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)))
    params, state = model.init(random.key(0))
    loss = lambda p: F.cross_entropy(model.apply(p, state, images.float() / 16)[0], labels)  # noqa: E731
    program = jit(lambda start, p: (race(valley, start, args.steps), race(loss, p, args.steps)))
    downhill, digits = program(torch.tensor([-4.0, 1.5]), params)
    for name in RACERS:
        print(f"{name:10s} cross-entropy {digits[name][0][:, -1].nan_to_num(torch.inf).min():.4f}")
    draw(downhill, digits, args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
