"""ResNet-18 on 450 photographs of rubbish, from scratch: at least 70 % of 150 others are right after 150 epochs."""

import argparse
from functools import partial
from pathlib import Path

import torch.nn.functional as F
from torchvision.models import resnet18

from funcnet import Model, data, fit, jit, make_eval, make_step, optim, random
from funcnet.data import augment as A
from funcnet.train import ConsoleLog, draw_curves, save_figure

FLOOR, EPOCHS, BATCH = 0.70, 150, 50


def main(argv=None):
    """Train, and draw how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds trashnet")
    parser.add_argument("--out", type=Path, default=Path("out/trashnet_resnet.png"), help="the curves")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--size", type=int, default=64, help="the height that is trained on")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    args = parser.parse_args(argv)
    size = args.size, args.size * 3 // 4
    try:  # crops are made of larger pictures
        photos = data.load(f"folder:{args.data}/trashnet", size=(3 * size[0], 3 * size[1]))
        test = data.load(f"folder:{args.data}/trashnet", size=size).test
    except data.DataError as error:
        parser.exit(2, f"{error}\n")

    model = Model(resnet18, num_classes=len(photos.classes))
    steps = args.epochs * (len(photos.train["label"]) // args.batch)
    # Few pictures want their weight decay tuned (arXiv:2108.13122): it is ten times what is usual for many.
    schedule = optim.warmup_cosine_decay_schedule(0.0, 0.05, steps // 20, steps)
    optimizer = optim.chain(optim.add_decayed_weights(5e-3), optim.sgd(schedule, momentum=0.9, nesterov=True))
    vary = A.compose(
        partial(A.resized_crop, size=size, scale=(0.35, 1.0)), A.flip, partial(A.flip, vertical=True),
        partial(A.color_jitter, brightness=0.2, contrast=0.2, saturation=0.2),
    )  # fmt: skip
    init_key, order_key, run_key = random.split(random.key(args.seed), 3)

    def loss(params, state, batch, key):
        x = A.normalize(vary(key, batch["x"] / 255), *photos.statistics)
        logits, state = model.apply(params, state, x, train=True)
        return F.cross_entropy(logits, batch["label"], label_smoothing=0.1), (state, {})

    def measure(params, state, batch):
        logits = model(params, state, A.normalize(batch["x"], *photos.statistics))
        losses = F.cross_entropy(logits, batch["label"], reduction="none")
        return {"test_loss": losses, "test_accuracy": logits.argmax(-1) == batch["label"]}

    step, evaluate = make_step(loss, optimizer), make_eval(measure, 50)
    ts = step.init(*model.init(init_key), run_key)
    step, evaluate = (step, evaluate) if args.eager else (jit(step, donate=0), jit(evaluate))
    ts, history = fit(
        step, ts, data.stream(order_key, photos.train, args.batch),
        epochs=args.epochs, evaluate=lambda ts: evaluate(ts, test), schedule=schedule, log=[ConsoleLog()],
    )  # fmt: skip
    save_figure(draw_curves(history), args.out)
    accuracy = history[-1]["test_accuracy"]
    print(f"test accuracy {accuracy:.2%}, at least {FLOOR:.0%} after {EPOCHS} epochs; the curves are in {args.out}")
    return int(accuracy < FLOOR and args.epochs >= EPOCHS)


if __name__ == "__main__":
    raise SystemExit(main())
