"""Every transformation and schedule under the names of its arguments: an entry inherits all contracts.

`funcnet.optim` and optax share names and arguments, so one entry builds both.
"""

from typing import Any, NamedTuple


class Case(NamedTuple):
    """One call of a factory that both libraries have."""

    name: str
    kwargs: dict[str, Any] = {}  # noqa: RUF012 - never changed
    schedule: tuple[str, dict[str, Any]] | None = None  # given as learning_rate where set

    def __str__(self):
        text = ", ".join(f"{k}={v}" for k, v in self.kwargs.items())
        return f"{self.name}({text}{', ' + self.schedule[0] if self.schedule else ''})"

    def build(self, library, **overrides):
        kwargs = self.kwargs | overrides
        if self.schedule and "learning_rate" not in overrides:
            kwargs["learning_rate"] = getattr(library, self.schedule[0])(**self.schedule[1])
        return getattr(library, self.name)(**kwargs)


COSINE = ("cosine_decay_schedule", {"init_value": 0.1, "decay_steps": 7, "alpha": 0.1})

OPTIMIZERS = [
    Case("sgd", {"learning_rate": 0.1}),
    Case("sgd", {"learning_rate": 0.05, "momentum": 0.9}),
    Case("sgd", {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True}),
    Case("sgd", {"momentum": 0.5}, COSINE),
    Case("adam", {"learning_rate": 0.1}),
    Case("adam", {"learning_rate": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-3, "eps_root": 1e-4}),
    Case("adam", {"learning_rate": 0.1, "b1": 0.0}),
    Case("adam", {"learning_rate": 0.1, "nesterov": True}),
    Case("adam", {}, COSINE),
    Case("adamw", {"learning_rate": 0.1}),
    Case("adamw", {"learning_rate": 0.1, "weight_decay": 0.1, "nesterov": True}),
    Case("adamw", {"learning_rate": 0.1, "weight_decay": 0.1, "mask": {"a": True, "b": {"c": False, "d": True}}}),
    Case("adamw", {"weight_decay": 0.05}, COSINE),
]

LINKS = [
    Case("identity"),
    Case("scale", {"step_size": -0.3}),
    Case("scale_by_learning_rate", {"learning_rate": 0.3, "flip_sign": False}),
    Case("scale_by_learning_rate", {}, COSINE),
    Case("scale_by_adam", {"eps_root": 1e-8}),
    Case("scale_by_adam", {"b2": 0.9}),
    Case("trace", {"decay": 0.9}),
    Case("trace", {"decay": 0.9, "nesterov": True}),
    Case("add_decayed_weights", {"weight_decay": 0.1}),
    Case("add_decayed_weights", {"weight_decay": 0.1, "mask": {"a": False, "b": True}}),
    Case("clip_by_global_norm", {"max_norm": 1.0}),
    Case("clip_by_global_norm", {"max_norm": 1e6}),
]

SCHEDULES = [
    Case("constant_schedule", {"value": 0.3}),
    Case("linear_schedule", {"init_value": 0.1, "end_value": 1.0, "transition_steps": 5}),
    Case("linear_schedule", {"init_value": 0.1, "end_value": 1.0, "transition_steps": 5, "transition_begin": 3}),
    Case("linear_schedule", {"init_value": 0.1, "end_value": 1.0, "transition_steps": 0}),
    Case("cosine_decay_schedule", {"init_value": 0.5, "decay_steps": 9}),
    Case("cosine_decay_schedule", {"init_value": 0.5, "decay_steps": 9, "alpha": 0.2, "exponent": 2.0}),
    Case(
        "warmup_cosine_decay_schedule",
        {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 4, "decay_steps": 12, "end_value": 0.1},
    ),
    Case(
        "warmup_cosine_decay_schedule",
        {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 0, "decay_steps": 5, "exponent": 3.0},
    ),
]
