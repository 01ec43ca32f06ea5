"""An LSTM that reads Shakespeare by characters, its memory carried from batch to batch: 1.65 nats, and a sample."""

import argparse
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from funcnet import Model, data, fit, jit, make_eval, make_step, optim, random, scan
from funcnet.train import draw_curves, save_figure

FLOOR, EPOCHS, BATCH, LENGTH, WIDTH = 1.65, 8, 64, 64, 256


class LSTM(nn.Module):
    def __init__(self, characters):
        super().__init__()
        self.characters, self.head = nn.Embedding(characters, 64), nn.Linear(WIDTH, characters)
        self.memory = nn.LSTM(64, WIDTH, batch_first=True)

    def forward(self, tokens, carry=None):
        seen, carry = self.memory(self.characters(tokens), carry)
        return self.head(seen), carry


def write(net, key, prompt, length):
    """Go on after a prompt `(1, n)`, by one character after the other, each from what the last one left behind."""

    def one(left, key):
        drawn = random.categorical(key, left[0][:, -1])
        return net(drawn[None], left[1]), drawn[0]

    logits, memory = net(prompt)
    return torch.cat((prompt[0], scan(one, (logits[:, -1:], memory), random.split(key, length))[1]))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds tinyshakespeare/input.txt")
    parser.add_argument("--out", type=Path, default=Path("out/shakespeare_lstm.png"), help="the curves")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    args = parser.parse_args(argv)
    try:
        text = data.load(f"text:{args.data}/tinyshakespeare/input.txt")
    except data.DataError as error:
        parser.exit(2, f"{error} --data names the folder that holds tinyshakespeare.\n")
    # BATCH readers begin at as many places; each batch is the next stretch of all of them.
    places = data.chunks(text.train["token"], each := (len(text.train["token"]) - 1) // BATCH)
    slices = [(slice(BATCH), slice(at, at + LENGTH)) for at in range(0, each - LENGTH, LENGTH)]
    batches = [{name: rows[part] for name, rows in places.items()} for part in slices]
    test, model = data.chunks(text.test["token"], 500), Model(LSTM, len(text.classes))
    init_key, run_key, write_key = random.split(random.key(args.seed), 3)

    def loss(params, carry, batch, key):  # the net has no state of its own: its place in a step is the memory's
        (logits, carry), _ = model.apply(params, {}, batch["x"], carry, train=True)
        return F.cross_entropy(logits.mT, batch["label"]), (carry, {})

    def measure(params, carry, rows):
        logits, _ = model(params, {}, rows["x"])  # from an empty memory
        return {"test_loss": F.cross_entropy(logits.mT, rows["label"], reduction="none").mean(1)}

    rate = optim.warmup_cosine_decay_schedule(0.0, 5e-3, 50, 50 + args.epochs * len(batches))
    step, evaluate = make_step(loss, optim.adam(rate), clip=1.0), make_eval(measure, 64)
    ts = step.init(model.init(init_key)[0], (torch.zeros(1, BATCH, WIDTH), torch.zeros(1, BATCH, WIDTH)), run_key)
    step, evaluate = (step, evaluate) if args.eager else (jit(step, donate=0), jit(evaluate))
    ts, history = fit(step, ts, batches, epochs=args.epochs, evaluate=lambda ts: evaluate(ts, test), schedule=rate)

    save_figure(draw_curves(history), args.out)
    print(data.decode(write(partial(model, ts.params, {}), write_key, test["x"][:1, :64], 400), text.classes))
    print(f"{history[-1]['test_loss']:.3f} nats a character, at most {FLOOR} after {EPOCHS} epochs")
    return int(history[-1]["test_loss"] > FLOOR and args.epochs >= EPOCHS)


if __name__ == "__main__":
    raise SystemExit(main())
