"""Transformations around transformations."""

import torch
from cases import Case

ADAM = Case("adam", {"learning_rate": 0.1})
TRACE = Case("trace", {"decay": 0.9})


class Every:
    """True at every k-th step, for a schedule of steps that both libraries understand."""

    def __init__(self, k):
        self.k = k

    def __call__(self, step):
        return step % self.k == 0

    def __str__(self):
        return f"every({self.k})"


class Growing:
    """2, then 3 steps to an update."""

    def __call__(self, step):
        return 2 + (step >= 2) * 1

    def __str__(self):
        return "growing"


class Gathering(Case):
    """MultiSteps in the gradients' dtype, which None is here, and in optax jax's default: float64 in these tests.

    (By default both gather in float32, even gradients of float64.)
    """

    def build(self, library, **overrides):
        if library.__name__ == "optax" and torch.get_default_dtype() == torch.float32:
            overrides["accumulator_dtype"] = "float32"
        return super().build(library, **overrides)


NONE = "there is none to vary"
OPTIMIZERS = [
    Case("apply_if_finite", {"inner": ADAM, "max_consecutive_errors": 3}, without={"learning rate": NONE}),
    Case(
        "conditionally_mask",
        {"inner": ADAM, "should_transform_fn": Every(2)},
        without={"learning rate": NONE},
    ),
    Case("flatten", {"inner": Case("adamw", {"learning_rate": 0.1})}, without={"learning rate": NONE}),
    Gathering(
        "MultiSteps", {"opt": ADAM, "every_k_schedule": 2, "accumulator_dtype": None}, without={"learning rate": NONE}
    ),
    Gathering(
        "MultiSteps",
        {
            "opt": Case("sgd", {"learning_rate": 0.1, "momentum": 0.9}),
            "every_k_schedule": Growing(),
            "accumulator_dtype": None,
        },
        without={"learning rate": NONE},
    ),
    Gathering(
        "MultiSteps",
        {"opt": ADAM, "every_k_schedule": 3, "use_grad_mean": False, "accumulator_dtype": None},
        without={"learning rate": NONE},
    ),
    Case(
        "partition",
        {"transforms": {"x": ADAM, "y": Case("sgd", {"learning_rate": 0.1})}, "param_labels": {"a": "x", "b": "y"}},
        without={"learning rate": NONE, "convergence": "the labels fit one tree"},
    ),
]

LINKS = [
    Case("conditionally_transform", {"inner": TRACE, "should_transform_fn": Every(3)}),
    Case("apply_every", {"k": 3}),
    Case("freeze", {"mask": {"a": True, "b": {"c": False, "d": True}}}),
    Case("set_to_zero"),
]
