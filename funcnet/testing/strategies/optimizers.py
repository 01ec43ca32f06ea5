"""Optimizers and schedules with drawn hyperparameters. An entry of a registry is drawn by every test."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from funcnet import optim

__all__ = ["OPTIMIZERS", "SCHEDULES", "Recipe", "optimizers", "schedules"]


@dataclass(frozen=True)
class Recipe:
    """A factory of `funcnet.optim` with its arguments; calling it makes the optimizer or the schedule.

    >>> Recipe(optim.sgd, {"learning_rate": 0.1, "momentum": 0.9})
    sgd(learning_rate=0.1, momentum=0.9)
    """

    factory: Callable[..., Any]
    kwargs: dict[str, Any]

    def __call__(self) -> Any:
        """Make it."""
        return self.factory(**{name: arg() if isinstance(arg, Recipe) else arg for name, arg in self.kwargs.items()})

    def __repr__(self) -> str:
        """The call that makes it."""
        return f"{self.factory.__name__}({', '.join(f'{name}={arg!r}' for name, arg in self.kwargs.items())})"


_RATES = st.sampled_from([0.1, 0.01, 1.0])
_STEPS = st.integers(1, 10)

SCHEDULES: dict[Callable[..., Any], dict[str, st.SearchStrategy[Any]]] = {
    optim.constant_schedule: {"value": _RATES},
    optim.linear_schedule: {
        "init_value": _RATES,
        "end_value": _RATES,
        "transition_steps": _STEPS,
        "transition_begin": st.integers(0, 5),
    },
    optim.cosine_decay_schedule: {"init_value": _RATES, "decay_steps": _STEPS, "alpha": st.sampled_from([0.0, 0.1])},
    optim.warmup_cosine_decay_schedule: {
        "init_value": st.sampled_from([0.0, 0.01]),
        "peak_value": _RATES,
        "warmup_steps": st.integers(0, 5),
        "decay_steps": st.integers(6, 12),
        "end_value": st.sampled_from([0.0, 0.001]),
    },
    optim.polynomial_schedule: {
        "init_value": _RATES,
        "end_value": st.sampled_from([0.0, 0.001]),
        "power": st.sampled_from([1.0, 2.0]),
        "transition_steps": _STEPS,
    },
    optim.piecewise_constant_schedule: {
        "init_value": _RATES,
        "boundaries_and_scales": st.dictionaries(_STEPS, st.sampled_from([0.1, 0.5]), max_size=2),
    },
    optim.piecewise_interpolate_schedule: {
        "interpolate_type": st.sampled_from(["linear", "cosine"]),
        "init_value": _RATES,
        "boundaries_and_scales": st.dictionaries(_STEPS, st.sampled_from([0.1, 0.5]), min_size=1, max_size=2),
    },
    optim.cosine_onecycle_schedule: {"transition_steps": st.integers(5, 10), "peak_value": _RATES},
    optim.linear_onecycle_schedule: {"transition_steps": st.integers(5, 10), "peak_value": _RATES},
    optim.warmup_constant_schedule: {"init_value": _RATES, "peak_value": _RATES, "warmup_steps": _STEPS},
    optim.warmup_exponential_decay_schedule: {
        "init_value": st.sampled_from([0.0, 0.01]),
        "peak_value": _RATES,
        "warmup_steps": _STEPS,
        "transition_steps": _STEPS,
        "decay_rate": st.sampled_from([0.5, 0.9]),
    },
    optim.warmup_stable_decay_schedule: {
        "init_value": st.sampled_from([0.0, 0.01]),
        "peak_value": _RATES,
        "warmup_steps": _STEPS,
        "stable_steps": _STEPS,
        "decay_steps": _STEPS,
    },
}
"""The schedules by factory, with a strategy for each argument."""

_DECAYS = st.sampled_from([0.9, 0.5, 0.0])
_LEARNING_RATES = st.deferred(lambda: _RATES | schedules())
_ADAM: dict[str, st.SearchStrategy[Any]] = {
    "learning_rate": _LEARNING_RATES,
    "b1": _DECAYS,
    "b2": st.sampled_from([0.999, 0.9]),
    "eps": st.sampled_from([1e-8, 1e-3]),
    "nesterov": st.booleans(),
}

OPTIMIZERS: dict[Callable[..., Any], dict[str, st.SearchStrategy[Any]]] = {
    optim.sgd: {"learning_rate": _LEARNING_RATES, "momentum": st.none() | _DECAYS, "nesterov": st.booleans()},
    optim.adam: _ADAM,
    optim.adamw: {**_ADAM, "weight_decay": st.sampled_from([0.0, 0.1])},
    optim.rmsprop: {"learning_rate": _LEARNING_RATES, "decay": _DECAYS, "momentum": st.none() | _DECAYS},
    optim.lion: {"learning_rate": _LEARNING_RATES, "b1": _DECAYS, "b2": _DECAYS},
    **{
        factory: {"learning_rate": _LEARNING_RATES}
        for factory in (
            *(optim.adabelief, optim.adadelta, optim.adafactor, optim.adagrad, optim.adamax, optim.adamaxw, optim.adan),
            *(optim.amsgrad, optim.lamb, optim.lars, optim.nadam, optim.nadamw, optim.noisy_sgd, optim.novograd),
            *(optim.optimistic_adam_v2, optim.optimistic_gradient_descent, optim.radam, optim.sign_sgd, optim.signum),
            *(optim.sm3, optim.yogi),
        )
    },
    **{factory: {"learning_rate": _RATES} for factory in (optim.fromage, optim.optimistic_adam, optim.rprop)},
}
"""The optimizers by factory, with a strategy for each argument."""


def schedules() -> st.SearchStrategy[Recipe]:
    """Schedules of `SCHEDULES`; call what is drawn to make one.

    >>> from hypothesis import find
    >>> find(schedules(), lambda recipe: True)
    constant_schedule(value=0.1)
    """
    return _recipes(SCHEDULES)


def optimizers() -> st.SearchStrategy[Recipe]:
    """Optimizers of `OPTIMIZERS`, some with a schedule for their learning rate; call what is drawn to make one.

    >>> from hypothesis import find
    >>> find(optimizers(), lambda recipe: True)
    fromage(learning_rate=0.1)
    """
    return _recipes(OPTIMIZERS)


def _recipes(registry: dict[Callable[..., Any], dict[str, st.SearchStrategy[Any]]]) -> st.SearchStrategy[Recipe]:
    return st.one_of(
        *(st.builds(Recipe, st.just(factory), st.fixed_dictionaries(kwargs)) for factory, kwargs in registry.items())
    )
