"""Measurements of the updates at a place in a chain."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from ...tree import PyTree, map
from ..arguments import function, mapping, stateful
from ..base import GradientTransformation, stateless, with_extra_args_support

__all__ = ["MonitorState", "SnapshotState", "monitor", "snapshot"]


class SnapshotState(NamedTuple):
    """The last measurement, by its name."""

    measurement: dict[str, Any]


class MonitorState(NamedTuple):
    """The last measurements by their names, and the states of those that remember."""

    measurements: dict[str, Any]
    measure_states: tuple[Any, ...]


def snapshot(measure_name: str, measure: Callable[[PyTree], PyTree]) -> GradientTransformation:
    """Keep `measure(updates)` in the state, and leave the updates; before the first, zeros in its place.

    >>> from funcnet.tree import global_norm
    >>> rule = snapshot("norm", global_norm)
    >>> params = {"w": torch.tensor([3.0, 4.0])}
    >>> rule.update(params, rule.init(params))[1].measurement
    {'norm': tensor(5.)}
    """
    function(measure, "measure", "tree.global_norm")

    def init(params: PyTree) -> SnapshotState:
        return SnapshotState(measurement={measure_name: map(torch.zeros_like, measure(params))})

    def update(
        updates: PyTree, state: SnapshotState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, SnapshotState]:
        return updates, SnapshotState(measurement={measure_name: measure(updates)})

    return GradientTransformation(init, update)


def monitor(
    measures: Mapping[str, GradientTransformation | Callable[[PyTree], PyTree]],
) -> GradientTransformation:
    """Keep several measurements of the updates in the state, and leave the updates.

    A measure is a function of the updates, or a transformation of them such as `measure_with_ema` makes. Before the
    first update there are zeros in their places, so that the state keeps its structure.

    >>> from funcnet.optim import measure_with_ema
    >>> from funcnet.tree import global_norm
    >>> rule = monitor({"norm": global_norm, "often": measure_with_ema(lambda u: global_norm(u) > 1.0, 0.9)})
    >>> params = {"w": torch.tensor([3.0, 4.0])}
    >>> rule.update(params, rule.init(params))[1].measurements
    {'norm': tensor(5.), 'often': tensor(1.)}
    """
    mapping(measures, "measures", '{"norm": tree.global_norm}')
    rules = {name: _measuring(measure) for name, measure in measures.items()}

    def measured(updates: PyTree, states: tuple[Any, ...], params: PyTree, extra: dict[str, Any]) -> MonitorState:
        results = [
            rule.update(updates, state, params, **extra) for rule, state in zip(rules.values(), states, strict=True)
        ]
        found = {name: value for name, (value, _) in zip(rules, results, strict=True)}
        return MonitorState(measurements=found, measure_states=tuple(state for _, state in results))

    def init(params: PyTree) -> MonitorState:
        states = tuple(rule.init(params) for rule in rules.values())
        like = measured(params, states, params, {}).measurements
        return MonitorState(measurements=map(torch.zeros_like, like), measure_states=states)

    def update(
        updates: PyTree, state: MonitorState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, MonitorState]:
        return updates, measured(updates, state.measure_states, params, extra)

    return stateful(MonitorState, init, update)


def _measuring(measure: GradientTransformation | Callable[[PyTree], PyTree]) -> GradientTransformation:
    if callable(measure):
        return stateless(lambda updates, params: measure(updates))
    return with_extra_args_support(measure)
