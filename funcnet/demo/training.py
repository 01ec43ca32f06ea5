"""Training one model: a pure loss, a pure optimizer, one compiled step."""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from funcnet import data, optim, random
from funcnet.demo.data import Digits
from funcnet.demo.models import BATCH_SIZE, CLIP, LABEL_SMOOTHING, WEIGHT_DECAY, Recipe
from funcnet.jit import jit
from funcnet.model import Model, Params, State
from funcnet.train import TrainState, fit, make_step
from funcnet.train.step import Loss, StepFunction
from funcnet.tree import map

__all__ = ["Trained", "cross_entropy", "evaluation", "make_loss", "make_optimizer", "shifted", "train"]


class Trained(NamedTuple):
    """A model after training, with its history and all that timing its step needs."""

    recipe: Recipe
    model: Model
    ts: TrainState
    history: list[dict[str, float]]
    """For each epoch the means of the training metrics, and those of the test part."""
    eager: StepFunction
    compiled: StepFunction | None
    compile_seconds: float
    train_seconds: float
    """Without compiling."""
    schedule: optim.Schedule

    @property
    def accuracy(self) -> float:
        """The share of the test part that the last model gets right."""
        return self.history[-1]["test_accuracy"]

    @property
    def steps(self) -> int:
        """How many steps were done."""
        return int(self.ts.step)


def shifted(images: Tensor, draws: Tensor) -> Tensor:
    """Move some images by a pixel, up or down, left or right; empty pixels come in.

    Args:
        images: `(n, 1, height, width)`.
        draws: integers `(n, 2)`, down and right, in [-4, 4]: -1 and 1 move, all others do not, so that three images of
            five stay where they are.

    >>> image = torch.eye(2)[None, None]
    >>> shifted(image, torch.tensor([[4, 0]]))[0, 0].tolist(), shifted(image, torch.tensor([[0, 1]]))[0, 0].tolist()
    ([[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]])
    """
    count, _, height, width = images.shape
    start = 1 - torch.where(draws.abs() <= 1, draws, 0)
    rows = start[:, 0, None] + torch.arange(height)
    columns = start[:, 1, None] + torch.arange(width)
    padded = F.pad(images, (1, 1, 1, 1))[:, 0]
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss that is trained, and the accuracy."""
    accuracy = (logits.detach().argmax(-1) == labels).float().mean()
    return F.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING), accuracy


def make_loss(model: Model) -> Loss:
    """The loss in training, with the accuracy as its metric."""

    def loss(params: Params, state: State, batch: Digits, key: Tensor) -> Any:
        logits, state = model.apply(params, state, batch["image"], key=key, train=True)
        value, accuracy = cross_entropy(logits, batch["label"])
        return value, (state, {"accuracy": accuracy})

    return loss


def make_optimizer(recipe: Recipe, steps: int) -> tuple[optim.GradientTransformation, optim.Schedule]:
    """AdamW on clipped gradients; the learning rate rises for a tenth of the steps and falls as a cosine."""
    schedule = optim.warmup_cosine_decay_schedule(0.0, recipe.learning_rate, max(steps // 10, 1), max(steps, 2))
    adamw = optim.adamw(schedule, weight_decay=WEIGHT_DECAY)
    return optim.chain(optim.clip_by_global_norm(CLIP), adamw), schedule


def evaluation(model: Model, ts: TrainState, digits: Digits) -> dict[str, float]:
    """Loss and accuracy on digits as they are."""
    logits = model(ts.params, ts.state, digits["image"])
    loss, accuracy = cross_entropy(logits, digits["label"])
    return {"test_loss": loss.item(), "test_accuracy": accuracy.item()}


def train(
    recipe: Recipe,
    key: Tensor,
    digits: Digits,
    test: Digits,
    *,
    epochs: int | None = None,
    backend: str | None = "inductor",
    progress: bool = True,
) -> Trained:
    """Train a model on digits.

    Args:
        recipe: what, and how.
        key: all randomness of the run comes from it: weights, order, shifts, dropout.
        digits: the training part.
        test: the part that is only looked at.
        epochs: default: the recipe's.
        backend: what compiles the step; None trains eagerly.
        progress: whether to show a bar.
    """
    epochs = recipe.epochs if epochs is None else epochs
    init_key, epochs_key, run_key = random.split(key, 3)
    model = Model(recipe.build)
    optimizer, schedule = make_optimizer(recipe, epochs * (len(digits["label"]) // BATCH_SIZE))
    eager = make_step(make_loss(model), optimizer)
    ts = TrainState.create(*model.init(init_key), optimizer, run_key)

    compiled, compile_seconds = None, 0.0
    if backend is not None:
        compiled = jit(eager, donate=0, backend=backend)
        start = time.perf_counter()
        compiled(map(torch.clone, ts), next(data.batches(None, digits, BATCH_SIZE)))  # on a copy: it is donated
        compile_seconds = time.perf_counter() - start

    def batches(epoch: int) -> Iterator[Digits]:
        order_key, shift_key = random.split(random.fold_in(epochs_key, epoch))
        draws = random.randint(shift_key, (len(digits["label"]), 2), -4, 5)
        return data.batches(order_key, {**digits, "image": shifted(digits["image"], draws)}, BATCH_SIZE)

    start = time.perf_counter()
    ts, history = fit(
        compiled or eager,
        ts,
        batches,
        epochs=epochs,
        evaluate=lambda ts: evaluation(model, ts, test),
        progress=progress,
    )
    seconds = time.perf_counter() - start
    return Trained(recipe, model, ts, history, eager, compiled, compile_seconds, seconds, schedule)
