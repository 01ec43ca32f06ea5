"""Sixteen learning rates in one program: too small has not learned yet, too large never will; and what a sweep says."""

import argparse
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import nn

from funcnet import Model, data, jit, make_epoch, make_step, optim, random, vmap
from funcnet.diagnostics import find_rate
from funcnet.train import save_figure

FLOOR, STEPS, BATCH = 0.95, 1500, 64
RATES, sgd = torch.logspace(-4, 1, 16), partial(optim.sgd, momentum=0.9)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds MNIST/raw")
    parser.add_argument("--out", type=Path, default=Path("out/learning_rates.png"), help="the picture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    args = parser.parse_args(argv)
    try:
        digits = data.load("mnist", root=args.data)
    except data.DataError as error:
        parser.exit(2, f"{error}\n")
    init_key, rows_key, sweep_key, run_key = random.split(random.key(args.seed), 4)
    model = Model(lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10)))
    params, state = model.init(init_key)
    rows = random.randint(rows_key, (args.steps, BATCH), 0, len(digits.train["label"])).long()

    def loss(params, state, batch, key):
        logits, state = model.apply(params, state, batch["x"] / 255, train=True)
        return F.cross_entropy(logits, batch["label"]), (state, {})

    def run(rate):
        """The loss of every step at this rate, and the share of the test digits that are right in the end."""
        step = make_step(loss, sgd(rate))
        ts, metrics = make_epoch(step)(step.init(params, state, run_key), digits.train, rows)
        right = model(ts.params, ts.state, digits.test["x"] / 255).argmax(-1) == digits.test["label"]
        return metrics["loss"], right.float().mean()

    # From the same start over the same batches: the rate alone has an axis of its own.
    losses, accuracy = (vmap(run) if args.eager else jit(vmap(run)))(RATES)

    # And a run of a hundred steps whose rate grows from one to the next.
    batches = data.stream(sweep_key, digits.train, BATCH)
    sweep = find_rate(loss, sgd, params, state, run_key, batches, low=1e-4, compile=None if args.eager else jit)

    curves, ends = (figure := Figure((12, 4.5), layout="constrained")).subplots(1, 2)
    smooth = losses.unfold(1, min(20, args.steps), 1).mean(-1)
    for i, rate in enumerate(RATES.tolist()):
        curves.semilogy(smooth[i], color=colormaps["viridis"](i / len(RATES)), label=f"{rate:.2g}")
    curves.set(title="the loss, a mean over 20 steps", xlabel="step", ylabel="cross-entropy (nats)", ylim=(0.03, 60))
    curves.legend(title="rate", ncols=4, fontsize=7, loc="upper center")
    best = int(accuracy.argmax())
    ends.semilogx(RATES, accuracy, "o-"), ends.axhline(0.1, color="0.7", ls=":")
    ends.plot(RATES[best], accuracy[best], "o", color="C3", label=f"{RATES[best]:.2g}: {accuracy[best]:.1%}")
    if sweep.suggestion is not None:
        ends.axvline(sweep.suggestion, color="C2", ls="--", label=f"{sweep.suggestion:.2g}, as a sweep suggests")
    ends.set(title=f"after {args.steps} steps", xlabel="rate", ylabel="share of test digits right"), ends.legend()
    save_figure(figure, args.out)
    for rate, right in zip(RATES.tolist(), accuracy.tolist(), strict=True):
        print(f"rate {rate:8.5f}  {right:7.2%}")
    print(f"sweep: {sweep}")
    print(f"best is rate {RATES[best]:.2g} with {accuracy[best]:.2%}, at least {FLOOR:.0%} after {STEPS} steps")
    missed = accuracy[best] < FLOOR or max(accuracy[0], accuracy[-1]) > accuracy[best] - 0.05
    return int(missed and args.steps >= STEPS)


if __name__ == "__main__":
    raise SystemExit(main())
