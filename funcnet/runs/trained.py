"""A model that a run has trained, read from its folder alone."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import checkpoint
from funcnet.model import Params, State
from funcnet.runs import models
from funcnet.runs.config import Config
from funcnet.runs.errors import RunError, out_of_memory
from funcnet.runs.folder import Folder, checkpoint_in, telling
from funcnet.runs.plan import device_named
from funcnet.runs.task import Task
from funcnet.train import TrainState

__all__ = ["Trained", "trained"]


class Trained(NamedTuple):
    """A model with its parameters, and the run that it is of."""

    config: Config
    task: Task
    ts: TrainState
    step: int

    def output(self, x: Tensor, size: int = 256) -> Tensor:
        """What the model says of rows, some at a time: logits, or numbers."""
        with torch.no_grad():
            params, state = self.weights
            return torch.cat([self.task.output(params, state, part) for part in torch.split(x, size)])

    def following(self, tokens: Tensor) -> Tensor:
        """The logits of what follows tokens `(batch, length)`, of any length up to that of training."""
        with torch.no_grad():
            logits: Tensor = self.task.model(*self.weights, tokens)[:, -1]
            return logits

    @property
    def weights(self) -> tuple[Params, State]:
        """The parameters, or their average where the run kept one, and the state."""
        return self.ts.averaged, self.ts.state


def trained(path: Path, which: str, device: str | None = None) -> Trained:
    """The model of a run.

    Args:
        path: the run's folder.
        which: `latest`, `best`, or the step of a checkpoint.
        device: where to; by default where it was trained.

    Raises:
        RunError, SpecError, CheckpointError: the run or the checkpoint is not there, or is damaged.
    """
    config, facts = Folder(path).read()
    there = device_named(device or config.device)
    built = models.build(config.model, facts)
    with telling():
        found = checkpoint_in(path, which)
    ts: Any = checkpoint.load(found, device=there)
    if not isinstance(ts, TrainState):
        raise RunError(f"{found} is no checkpoint of a run.")
    run = Trained(config, Task(built, facts, there), ts, int(ts.step))
    try:
        run.output(torch.zeros(1, *facts.shape, dtype=torch.int64 if facts.kind == "language" else None, device=there))
    except RunError:
        raise
    except Exception as error:  # whatever a model raises that was not trained with these parameters
        if out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:300]
        raise RunError(
            f"{found} does not fit the model {config.model!r} of {path / 'config.toml'}: {reason}"
        ) from error
    return run
