"""What the tests of the loop train: a line through rows of noise, in batches of another order each epoch."""

import torch

from funcnet import optim, random

OPTIMIZER = optim.adam(0.05)
KEY = random.key(4)
ROWS = random.normal(random.key(1), (24, 3))
LENGTH = 6


def begun(step):
    return step.init({"w": torch.tensor([1.0, -2.0, 0.5])}, {}, KEY)


def batches(epoch):
    order = random.permutation(random.fold_in(KEY, epoch), len(ROWS))
    return [ROWS[rows] for rows in order.split(len(ROWS) // LENGTH)]
