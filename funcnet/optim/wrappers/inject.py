"""Hyperparameters in the state of an optimizer, to read, set and map over."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ...tree import PyTree
from ..arguments import function, stateful
from ..base import GradientTransformation, with_extra_args_support
from ..values import Schedule, device_of, increment, precise, scalar, value_at, zero_count

__all__ = [
    "InjectHyperparamsState",
    "InjectStatefulHyperparamsState",
    "StatefulSchedule",
    "WrappedSchedule",
    "WrappedScheduleState",
    "inject_hyperparams",
    "inject_stateful_hyperparams",
]


class InjectStatefulHyperparamsState(NamedTuple):
    """The hyperparameters that the last update used, and the state of the transformation that used them."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""
    hyperparams: dict[str, Tensor]
    """0-dim each"""
    hyperparams_states: dict[str, Any]
    """of those that are scheduled"""
    inner_state: Any


InjectHyperparamsState = InjectStatefulHyperparamsState


@runtime_checkable
class StatefulSchedule(Protocol):
    """A hyperparameter that follows a state of its own, which may depend on the keywords of `update`."""

    def init(self) -> Any:
        """The first state: a tree of tensors."""

    def update(self, state: Any, **extra_args: Any) -> Any:
        """The next state."""

    def __call__(self, state: Any, **extra_args: Any) -> Tensor | float:
        """The value at a state."""


class WrappedScheduleState(NamedTuple):
    """How many updates the schedule has served."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""


class WrappedSchedule:
    """A function of the count as a stateful schedule."""

    def __init__(self, schedule_fn: Schedule) -> None:
        """Take the function."""
        self.schedule_fn = schedule_fn

    def init(self) -> WrappedScheduleState:
        """A count of 0."""
        return WrappedScheduleState(count=torch.zeros((), dtype=torch.int32))

    def update(self, state: WrappedScheduleState, **extra_args: Any) -> WrappedScheduleState:
        """The next count."""
        return WrappedScheduleState(count=increment(state.count))

    def __call__(self, state: WrappedScheduleState, **extra_args: Any) -> Tensor | float:
        """The function's value."""
        return value_at(self.schedule_fn, state.count, "hyperparameter")


def inject_hyperparams(
    inner_factory: Callable[..., GradientTransformation],
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: torch.dtype | None = None,
) -> Callable[..., GradientTransformation]:
    """Give a factory's hyperparameters a place in the state, as 0-dim tensors.

    `state.hyperparams["learning_rate"]` is the value that the last update used. Numbers may be set to others there
    (`state._replace(hyperparams=...)`), mapped over or differentiated, and nothing recompiles; scheduled ones follow
    their schedule.

    Args:
        inner_factory: such as `adam`.
        static_args: names of arguments that stay as they are: callables that are no schedules, integers that are
            lengths. Booleans, None, strings and trees do in any case.
        hyperparam_dtype: of the tensors; float64 where a parameter has it, else float32.

    Returns:
        A factory of the same arguments, each of which may also be a schedule or a `StatefulSchedule`.

    Raises:
        ValueError: a static argument that the factory does not have.

    >>> from funcnet.optim import sgd
    >>> rule = inject_hyperparams(sgd)(learning_rate=0.5)
    >>> params = {"w": torch.ones(1)}
    >>> state = rule.init(params)
    >>> state = state._replace(hyperparams={"learning_rate": torch.tensor(0.25)})
    >>> rule.update(params, state, params)[0]
    {'w': tensor([-0.2500])}
    """
    function(inner_factory, "inner_factory", "optim.adam, the factory itself")
    if hyperparam_dtype is not None and not hyperparam_dtype.is_floating_point:
        raise TypeError(f"hyperparam_dtype is {hyperparam_dtype}, and must be a floating dtype, such as torch.float32.")
    static = {static_args} if isinstance(static_args, str) else set(static_args)
    signature = inspect.signature(inner_factory)
    unknown = sorted(static - set(signature.parameters))
    if unknown:
        raise ValueError(
            f"static_args names {unknown[0]!r}, and {getattr(inner_factory, '__name__', 'the factory')} takes "
            f"{', '.join(signature.parameters)}."
        )

    @functools.wraps(inner_factory)
    def factory(*args: Any, **kwargs: Any) -> GradientTransformation:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        scheduled: dict[str, StatefulSchedule] = {}
        numbers: dict[str, Any] = {}
        fixed: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            if name in static or isinstance(value, bool | type):
                fixed[name] = value
            elif isinstance(value, StatefulSchedule):
                scheduled[name] = value
            elif callable(value):
                scheduled[name] = WrappedSchedule(value)
            elif isinstance(value, int | float | Tensor):
                numbers[name] = scalar(value, name)
            else:
                fixed[name] = value

        def tensors(values: dict[str, Any], like: PyTree) -> dict[str, Tensor]:
            dtype, device = hyperparam_dtype or precise(like), device_of(like)
            made = {name: torch.as_tensor(value, device=device) for name, value in values.items()}
            return {name: t.to(dtype) if t.is_floating_point() else t for name, t in made.items()}

        def now(states: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
            return {name: schedule(states[name], **extra) for name, schedule in scheduled.items()}

        def init(params: PyTree) -> InjectStatefulHyperparamsState:
            states = {name: schedule.init() for name, schedule in scheduled.items()}
            given = {**numbers, **now(states, {})}
            with_extra_args_support(inner_factory(**fixed, **given))  # looks at numbers, which tensors would hide
            values = tensors(given, params)
            values = {name: value.clone() for name, value in values.items()}  # they may be the caller's own
            inner_state = inner_factory(**fixed, **values).init(params)
            return InjectStatefulHyperparamsState(zero_count(params), values, states, inner_state)

        def update(
            updates: PyTree, state: InjectStatefulHyperparamsState, params: PyTree = None, **extra: Any
        ) -> tuple[PyTree, InjectStatefulHyperparamsState]:
            unknown = [name for name in state.hyperparams if name not in numbers and name not in scheduled]
            if unknown:
                raise ValueError(f"state.hyperparams has {unknown[0]!r}, and holds {[*numbers, *scheduled]} only.")
            for name, value in state.hyperparams.items():
                scalar(value, f"state.hyperparams[{name!r}]")
            values = tensors({**state.hyperparams, **now(state.hyperparams_states, extra)}, updates)
            states = {name: s.update(state.hyperparams_states[name], **extra) for name, s in scheduled.items()}
            link = with_extra_args_support(inner_factory(**fixed, **values))
            updates, inner_state = link.update(updates, state.inner_state, params, **extra)
            return updates, InjectStatefulHyperparamsState(increment(state.count), values, states, inner_state)

        return stateful(InjectStatefulHyperparamsState, init, update)

    return factory


inject_stateful_hyperparams = inject_hyperparams
