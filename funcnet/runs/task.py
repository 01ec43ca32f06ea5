"""What a model of certain data is to learn: the loss, and what is measured."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from funcnet import losses, random, tree
from funcnet.data import augment
from funcnet.model import Params, State
from funcnet.runs.augmenting import Augment
from funcnet.runs.errors import RunError
from funcnet.runs.models import Built
from funcnet.runs.rows import Facts
from funcnet.train import TrainState, make_eval
from funcnet.train.precision import POLICIES, Precision

__all__ = ["Task"]


class Task:
    """A model on data of a kind: its inputs normalized by the training set, its outputs compared with labels.

    Args:
        built: the model.
        facts: of the data.
        device: where it runs.
        augmented: what happens to pictures before they are learned from.
        policy: what the model is trained in. It is here and not in the step, which would round the rows themselves: of
            a year, bfloat16 keeps the eight that it is in, and float16 has no number above 65,504.
    """

    def __init__(
        self,
        built: Built,
        facts: Facts,
        device: torch.device,
        augmented: Augment | None = None,
        policy: Precision = POLICIES["float32"],
    ) -> None:
        """Put the statistics where the rows are."""
        self.model, self.facts = built.model, facts
        self._text, self._channels, self._augmented, self._policy = built.text, built.channels, augmented, policy
        self._mean = torch.tensor(facts.mean, device=device)
        self._std = torch.tensor(facts.std, device=device)

    def normalized(self, x: Tensor) -> Tensor:
        """Rows as the model takes them, but for the dtype."""
        if self.facts.kind == "language":
            return x
        x = augment.normalize(x, self._mean, self._std) if x.ndim == 4 else (x - self._mean) / self._std
        return x if self._channels is None else x.expand(-1, self._channels, -1, -1)

    def prepared(self, x: Tensor, params: Params) -> Tensor:
        """Rows as the model takes them: normalized, in the dtype of its parameters."""
        x = self.normalized(x)
        like = next((leaf for leaf in tree.leaves(params) if leaf.is_floating_point()), x)
        return x.to(like.dtype) if x.is_floating_point() else x

    def output(self, params: Params, state: State, x: Tensor) -> Tensor:
        """What the model says of rows, float32 at least: logits, or numbers in the labels' own unit."""
        return self._told(self._shaped(self.model(params, state, self.prepared(x, params)), len(x)))

    def loss(self, params: Params, state: State, batch: Mapping[str, Tensor], key: Tensor) -> Any:
        """As `make_step` takes it, under the policy, which casts rows when they are normalized, and targets never."""
        x, label = batch["x"], batch["label"]
        if self._augmented is not None:
            augment_key, key = random.split(key)
            x, label = self._augmented(augment_key, x, label)

        def learned(params: Params, state: State, x: Tensor, key: Tensor) -> Any:
            output, state = self.model.apply(params, state, x, key=key, train=True)
            output = self._shaped(output, len(x))
            metrics = {}
            if label.ndim == output.ndim - 1 and self.facts.kind != "regression":
                metrics["accuracy"] = (output.detach().argmax(-1) == label).float().mean()
            return self._losses(output, label).mean(), (state, metrics)

        return self._policy.apply(learned)(params, state, self.normalized(x), key)

    def measure(self, params: Params, state: State, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `make_eval` takes it: one value a row."""
        output = self._shaped(self.model(params, state, self.prepared(batch["x"], params)), len(batch["x"]))
        values = self._losses(output, batch["label"])
        if self.facts.kind == "regression":
            error = self._told(output) - batch["label"]
            return {"loss": values, "mae": error.abs(), "mse": error.square()}
        right = (output.argmax(-1) == batch["label"]).float()
        return {"loss": _of_rows(values), "accuracy": _of_rows(right)}

    def evaluation(self, rows: Mapping[str, Tensor], size: int) -> Callable[[TrainState], dict[str, float]]:
        """A function of the state that measures these rows, the names with `test_` before."""
        evaluate = make_eval(self.measure, size)
        spread = rows["label"].double().var(correction=0).item() if self.facts.kind == "regression" else 0.0

        def measured(ts: TrainState) -> dict[str, float]:
            with torch.no_grad():
                found = {name: float(value) for name, value in evaluate(ts, dict(rows)).items()}
            if "mse" in found:
                error = found.pop("mse")
                found["rmse"] = error**0.5
                found["r2"] = 1 - error / spread if spread > 0 else float("nan")
            return {f"test_{name}": value for name, value in found.items()}

        return measured

    def _losses(self, output: Tensor, label: Tensor) -> Tensor:
        if self.facts.kind == "regression":
            mean, std = self.facts.target
            return losses.squared_error(output, ((label - mean) / std).to(output.dtype))
        if label.is_floating_point():
            return losses.softmax_cross_entropy(output, label.to(output.dtype))
        chosen: Tensor = F.log_softmax(output, -1).gather(-1, label[..., None])[..., 0]
        return -chosen

    def _told(self, output: Tensor) -> Tensor:
        """Of a number, the one that it stands for."""
        if self.facts.kind != "regression":
            return output
        mean, std = self.facts.target
        return output * std + mean

    def _shaped(self, output: Any, count: int) -> Tensor:
        """The model's output as the losses take it.

        Raises:
            RunError: it has another shape.
        """
        facts = self.facts
        want = (count, *(facts.shape if facts.kind == "language" else ()), facts.outputs)
        if not isinstance(output, Tensor):
            raise RunError(
                f"{self._text!r} returns a {type(output).__name__}, and a tensor {want} is wanted: for a torchvision "
                "model with further outputs write them off, as in torchvision:inception_v3(aux_logits=False)."
            )
        if facts.kind == "regression" and output.shape == (count,):
            output = output[:, None]
        if output.shape != want:
            raise RunError(
                f"{self._text!r} returns {tuple(output.shape)} for {facts.told}: its last layer must give "
                f"{facts.outputs}, in all {want}."
            )
        found: Tensor = output.float() if output.dtype in (torch.float16, torch.bfloat16) else output
        return found[:, 0] if facts.kind == "regression" else found


def _of_rows(values: Tensor) -> Tensor:
    """The mean over all axes but the first."""
    return values.flatten(1).mean(1) if values.ndim > 1 else values
