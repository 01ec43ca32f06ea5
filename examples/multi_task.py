"""Turned digits, and one net for two tasks: which digit it is, and by how many right angles it is turned."""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn

from funcnet import Model, data, fit, jit, make_eval, make_step, optim, random
from funcnet.train import save_figure, weighted

FLOORS, EPOCHS = {"label": 0.91, "turn": 0.84}, 10


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(27 * 27, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU())
        self.label, self.turn = nn.Linear(64, 10), nn.Linear(64, 4)

    def forward(self, x):
        return {"label": self.label(seen := self.trunk(x / 255)), "turn": self.turn(seen)}


def turned(key, rows):  # every picture by 0 to 3 right angles, and by how many
    turn, middle = random.randint(key, rows["label"].shape, 0, 4), rows["x"][..., 1:, 1:]  # MNIST's lies at (14, 14)
    x = torch.stack([middle.rot90(k, (2, 3)) for k in range(4)])[turn, torch.arange(len(turn))]
    return {"x": x, "label": rows["label"], "turn": turn.long()}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds MNIST/raw")
    parser.add_argument("--out", type=Path, default=Path("out/multi_task.png"), help="the picture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    args = parser.parse_args(argv)
    try:
        digits = data.load("mnist", root=args.data)
    except data.DataError as error:
        parser.exit(2, f"{error}\n")
    init_key, order, run_key, train_key, test_key = random.split(random.key(args.seed), 5)
    model, train, test = Model(Net), turned(train_key, digits.train), turned(test_key, digits.test)
    rate = optim.cosine_decay_schedule(2e-3, args.epochs * (len(train["label"]) // 128))
    rules = {"trunk": optim.adamw(rate, weight_decay=0.05), "head": optim.adam(3e-3)}
    optimizer = optim.partition(rules, optim.labels_by_name({"trunk.*": "trunk", "label.*": "head", "turn.*": "head"}))

    def terms(params, state, batch, key):
        logits, state = model.apply(params, state, batch["x"], train=True)
        return {f"{task}_loss": F.cross_entropy(logits[task], batch[task]) for task in FLOORS}, (state, {})

    def measure(params, state, batch):
        return {task: logits.argmax(-1) == batch[task] for task, logits in model(params, state, batch["x"]).items()}

    def learn(label, turn):
        step = make_step(weighted(terms, {"label_loss": label, "turn_loss": turn}), optimizer)
        ts, step = step.init(*model.init(init_key), run_key), step if args.eager else jit(step, donate=0)
        return fit(step, ts, data.stream(order, train, 128), epochs=args.epochs, evaluate=lambda ts: evaluate(ts, test))

    evaluate = make_eval(measure, 1000) if args.eager else jit(make_eval(measure, 1000))
    (ts, both), *alone = learn(1, 1), learn(1, 0), learn(0, 1)
    panels = (figure := Figure((14, 4), layout="constrained")).subplots(1, 3)
    for axes, task, (_, single) in zip(panels, FLOORS, alone, strict=False):
        for name, history in (("both tasks", both), ("this task alone", single)):
            axes.plot(range(1, args.epochs + 1), [epoch[task] for epoch in history], ".-", label=name)
        axes.set(title=task, xlabel="epoch", ylabel="share of the test digits that is right"), axes.legend()
        print(f"{task}: {both[-1][task]:.2%} with both, at least {FLOORS[task]:.0%}; {single[-1][task]:.2%} alone")
    right = measure(ts.params, ts.state, test)["turn"].float()
    panels[2].bar(range(10), [right[test["label"] == digit].mean().item() for digit in range(10)])
    panels[2].set(xlabel="digit (0, 1 and 8 look alike upside down)", ylabel="share whose turn is right", ylim=(0.5, 1))
    save_figure(figure, args.out)
    return int(args.epochs >= EPOCHS and any(both[-1][task] < floor for task, floor in FLOORS.items()))


if __name__ == "__main__":
    raise SystemExit(main())
