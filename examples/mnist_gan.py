"""A GAN on MNIST: two networks, two optimizers, one pure step; noise, or one digit over and over, misses the score."""

import argparse

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch.nn import BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, LeakyReLU, Linear, ReLU, Sequential, Tanh, Unflatten

from funcnet import Model, data, fit, jit, make_step, optim, random
from funcnet.train import save_figure

FLOOR, EPOCHS, BATCH, NOISE = 6.0, 8, 64, 64


def painter():
    seed = Linear(NOISE, 64 * 49), Unflatten(1, (64, 7, 7)), BatchNorm2d(64), ReLU(), ConvTranspose2d(64, 32, 4, 2, 1)
    return Sequential(*seed, BatchNorm2d(32), ReLU(), ConvTranspose2d(32, 1, 4, 2, 1), Tanh())


def judge(outputs=1):
    see = Conv2d(1, 32, 4, 2, 1), LeakyReLU(0.2), Conv2d(32, 64, 4, 2, 1), LeakyReLU(0.2)
    return Sequential(*see, Flatten(), Linear(64 * 49, outputs))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="the folder that holds MNIST/raw")
    parser.add_argument("--download", action="store_true", help="fetch what is not there")
    parser.add_argument("--out", default="out/mnist_gan.png", help="samples, a row an epoch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    args = parser.parse_args(argv)
    order_key, show_key, *keys = random.split(random.key(args.seed), 8)
    try:
        digits = data.stream(order_key, data.load("mnist", root=args.data, download=args.download).train, BATCH)
    except data.DataError as error:
        parser.exit(2, f"{error}\n")
    maker, critic, classifier = Model(painter), Model(judge), Model(judge, 10)
    noise = lambda key, n=BATCH: random.normal(key, (n, NOISE))  # noqa: E731

    def fool(params, state, rival, key):  # of the maker: digits that the critic takes for fakes
        fakes, state = maker.apply(params, state, noise(key), train=True)
        return F.softplus(-critic(rival.params, rival.state, fakes)).mean(), (state, {})

    def tell(params, state, batch, key):  # of the critic: real digits that it takes for fakes, and the other way round
        fakes, _ = maker.apply(batch["rival"].params, batch["rival"].state, noise(key), train=True)
        wrong = F.softplus(-critic(params, state, batch["x"])) + F.softplus(critic(params, state, fakes))
        return wrong.mean(), (state, {})

    def name(params, state, batch, key):  # of a classifier, by which the score is taken
        return F.cross_entropy(classifier(params, state, batch["x"] / 127.5 - 1), batch["label"]), (state, {})

    slow, fast = optim.adam(5e-4, b1=0.5), optim.adam(1e-3, b1=0.5)
    fooling, telling, naming = make_step(fool, slow), make_step(tell, slow), make_step(name, fast)

    def play(players, batch):  # in each one's turn the other, as it is now, is a part of the batch
        critic_now, told = telling(players[1], {"x": batch["x"] / 127.5 - 1, "rival": players[0]})
        maker_now, fooled = fooling(players[0], critic_now)
        return (maker_now, critic_now), {"critic": told["loss"], "maker": fooled["loss"]}

    players = fooling.init(*maker.init(keys[2]), keys[3]), telling.init(*critic.init(keys[4]), keys[5])
    paint = lambda ts: maker(ts.params, ts.state, noise(show_key, 2000))  # noqa: E731
    rows, keep = [paint(players[0])[:20]], lambda now: rows.append(paint(now.ts[0])[:20])
    compiled = (lambda step, **_: step) if args.eager else jit
    named, _ = fit(compiled(naming, donate=0), naming.init(*classifier.init(keys[0]), keys[1]), digits, epochs=2)
    players, _ = fit(compiled(play, donate=0), players, digits, epochs=args.epochs, callbacks=[keep])
    axes = (figure := Figure((10, len(rows) / 2), layout="constrained")).subplots()
    axes.imshow(torch.cat([row.squeeze(1).movedim(0, 1).flatten(1) for row in rows]).numpy(), "gray"), axes.axis("off")
    save_figure(figure, args.out)
    sure = classifier(named.params, named.state, paint(players[0])).softmax(-1)
    score = (torch.special.entr(sure.mean(0)).sum() - torch.special.entr(sure).sum(-1).mean()).exp().item()
    print(f"{(sure.amax(-1) > 0.9).double().mean():.0%} of 2000 clear; inception score {score:.2f}, at least {FLOOR}")
    return int(score < FLOOR and args.epochs >= EPOCHS)


if __name__ == "__main__":
    raise SystemExit(main())
