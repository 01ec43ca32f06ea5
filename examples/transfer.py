"""What a CNN learnt on Fashion-MNIST, or weights of torchvision's in a file, put to use where labels are few."""

import argparse

import torch
import torch.nn.functional as F
import torchvision
from matplotlib.figure import Figure
from torch.nn import Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential

from funcnet import Model, checkpoint, data, fit, jit, make_eval, make_step, optim, random, tree
from funcnet.data.augment import normalize
from funcnet.train import save_figure

FLOOR, EPOCHS = 0.94, 15


def cnn():
    return Sequential(Conv2d(1, 16, 5), ReLU(), MaxPool2d(2), Conv2d(16, 32, 5), ReLU(), Flatten(), Linear(2048, 10))


def learn(model, rows, epochs, key, eager, batch, start=None, frozen=False):
    """Train all, or the last layer alone, from the body of `start`: the tensors, and the accuracy of each epoch."""
    params, state = model.init(key)
    head = list(params)[-1].rpartition(".")[0] + ".*"  # for other classes always a new one
    if start is not None:
        params, state, _ = checkpoint.adopt(tree.split(start, head)[1], params, state, names="*")

    def loss(params, state, batch, key):  # a frozen body computes as in evaluation, so that its statistics stay too
        logits, state = model.apply(params, state, batch["x"], key=key, train=not frozen)
        return F.cross_entropy(logits, batch["label"]), (state, {})

    right = lambda params, state, rows: model(params, state, rows["x"]).argmax(-1) == rows["label"]  # noqa: E731
    train, test = ({**part, "x": normalize(part["x"], *rows.statistics)} for part in (rows.train, rows.test))
    step, evaluate = make_step(loss, optim.adam(1e-3)), make_eval(lambda *at: {"accuracy": right(*at)}, 250)
    trained, still = tree.split(params, head if frozen else "*")
    ts = step.init(trained, state | still, key)  # what lies in the state is not trained
    step, evaluate = (step, evaluate) if eager else (jit(step, donate=0), jit(evaluate))
    batches = data.stream(key, train, batch)
    ts, history = fit(step, ts, batches, epochs=epochs, evaluate=lambda ts: evaluate(ts, test))
    return ts.params | ts.state, [epoch["accuracy"] for epoch in history]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="the folder of MNIST/raw and FashionMNIST/raw, or folder:PATH")
    parser.add_argument("--download", action="store_true", help="fetch what is not there")
    parser.add_argument("--out", default="out/transfer.png", help="the three curves")
    parser.add_argument("--weights", help="such a file, for the pictures in folder:PATH")
    parser.add_argument("--model", default="resnet50", help="of torchvision's, whose weights they are")
    for name, default in (("seed", 0), ("epochs", EPOCHS), ("labels", 100), ("size", 224), ("batch", 50)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    args = parser.parse_args(argv)
    body_key, few_key, key = random.split(random.key(args.seed), 3)
    try:
        if args.weights:
            rows, body = data.load(args.data, size=args.size), checkpoint.load_state_dict(args.weights)
            model = Model(getattr(torchvision.models, args.model), num_classes=len(rows.classes))
        else:
            clothes, rows = (data.load(s, root=args.data, download=args.download) for s in ("fashion-mnist", "mnist"))
            body, _ = learn(model := Model(cnn), clothes, min(args.epochs, 2), body_key, args.eager, args.batch)
    except (data.DataError, checkpoint.CheckpointError) as error:
        parser.exit(2, f"{error}\n")
    order = random.permutation(few_key, len(rows.train["label"]))
    few = torch.cat([order[rows.train["label"][order] == i][: args.labels] for i in range(len(rows.classes))])
    rows = rows._replace(train={name: values[few] for name, values in rows.train.items()})
    axes = (figure := Figure((6, 4), layout="constrained")).subplots()
    for way, how in (("frozen", {"start": body, "frozen": True}), ("scratch", {}), ("unfrozen", {"start": body})):
        _, curve = learn(model, rows, args.epochs, key, args.eager, args.batch, **how)
        axes.plot(range(1, len(curve) + 1), curve, ".-", label=f"{way}: {curve[-1]:.2%}")
        print(f"{way:10s} {curve[-1]:.2%}")
    axes.set(xlabel="epoch", ylabel="test accuracy"), axes.legend()
    save_figure(figure, args.out)
    return int(curve[-1] < FLOOR and not args.weights and args.epochs >= EPOCHS)


if __name__ == "__main__":
    raise SystemExit(main())
