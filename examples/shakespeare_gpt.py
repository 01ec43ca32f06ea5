"""A small GPT on Shakespeare by characters: at most 1.75 nats a character of held-out text, and what it writes."""

import argparse
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from funcnet import Model, data, fit, jit, make_eval, make_step, optim, random, scan
from funcnet.train import draw_curves, save_figure

FLOOR, EPOCHS, BATCH, CONTEXT, WIDTH, HEADS, LAYERS = 1.75, 5, 32, 64, 128, 4, 4


class GPT(nn.Module):
    def __init__(self, characters):
        super().__init__()
        block = partial(nn.TransformerEncoderLayer, batch_first=True, norm_first=True)
        self.characters, self.places = nn.Embedding(characters, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(block(WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu") for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, characters)

    def forward(self, tokens):
        x, past = self.characters(tokens) + self.places.weight, nn.Transformer.generate_square_subsequent_mask(CONTEXT)
        for block in self.blocks:
            x = block(x, past, is_causal=True)
        return self.head(self.norm(x))


def write(logits, key, window, length):
    """Go on after a window, by one character after the other: each is drawn from what the net makes of the last."""

    def one(window, key):
        drawn = random.categorical(key, logits(window[None])[0, -1])
        return torch.cat((window[1:], drawn[None])), drawn

    return torch.cat((window, scan(one, window, random.split(key, length))[1]))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds tinyshakespeare/input.txt")
    parser.add_argument("--out", type=Path, default=Path("out/shakespeare_gpt.png"), help="the curves")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    args = parser.parse_args(argv)
    try:
        text = data.load(f"text:{args.data}/tinyshakespeare/input.txt")
    except data.DataError as error:
        parser.exit(2, f"{error} --data names the folder that holds tinyshakespeare.\n")
    train, test = (data.chunks(part["token"], CONTEXT) for part in (text.train, text.test))
    model, steps = Model(GPT, len(text.classes)), args.epochs * (len(train["x"]) // BATCH)
    init_key, order_key, run_key, write_key = random.split(random.key(args.seed), 4)

    def measure(params, state, rows):
        nats = F.cross_entropy(model(params, state, rows["x"]).mT, rows["label"], reduction="none")
        return {"test_loss": nats.mean(1)}

    def loss(params, state, batch, key):  # no layer of this net is another in training
        return measure(params, state, batch)["test_loss"].mean(), (state, {})

    rate = optim.warmup_cosine_decay_schedule(0.0, 3e-3, 100, 100 + steps)
    step, evaluate = make_step(loss, optim.adamw(rate, b2=0.99, weight_decay=0.1), clip=1.0), make_eval(measure, BATCH)
    ts = step.init(*model.init(init_key), run_key)
    step, evaluate = (step, evaluate) if args.eager else (jit(step, donate=0), jit(evaluate))
    batches = data.stream(order_key, train, BATCH)
    ts, history = fit(step, ts, batches, epochs=args.epochs, evaluate=lambda ts: evaluate(ts, test), schedule=rate)

    print(data.decode(write(partial(model, ts.params, ts.state), write_key, test["x"][0], 400), text.classes))
    save_figure(draw_curves(history), args.out)
    print(f"{history[-1]['test_loss']:.3f} nats a character, at most {FLOOR} after {EPOCHS} epochs")
    return int(history[-1]["test_loss"] > FLOOR and args.epochs >= EPOCHS)


if __name__ == "__main__":
    raise SystemExit(main())
