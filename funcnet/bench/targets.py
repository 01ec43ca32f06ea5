"""What the project holds itself to, and how far a report is from it."""

import math
from collections.abc import Callable
from typing import NamedTuple

from rich.table import Table

from funcnet.bench.result import Report, Result

__all__ = ["TARGETS", "Reached", "Target", "markdown", "reached", "table"]

_COMPILED = ("funcnet compiled, donating",)
_MODULE = ("module", "module, foreach", "module, fused", "module compiled, fused", "module compiled")
_EAGER = _MODULE[:3]


_COLUMNS = ("ratio", "mean", "target", "worst", "at most", "of")


class Target(NamedTuple):
    """An upper bound of the ratio of two quantities, as a geometric mean over subjects and for each of them."""

    title: str
    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    mean: float
    worst: float | None = None
    quantity: str = "time"
    """`time`, `cold`, `cached` (seconds of the first step) or `peak` (bytes); the least of several ways counts."""
    subjects: Callable[[str], bool] = lambda name: not name.endswith("-inference")


class Reached(NamedTuple):
    """A target and the ratios of a report."""

    target: Target
    ratios: dict[str, float]

    @property
    def mean(self) -> float:
        """The geometric mean."""
        return math.exp(math.fsum(map(math.log, self.ratios.values())) / len(self.ratios))

    @property
    def worst(self) -> tuple[str, float]:
        """The subject with the largest ratio."""
        return max(self.ratios.items(), key=lambda item: item[1])

    @property
    def met(self) -> bool:
        """Whether mean and worst are within bounds."""
        worst = self.target.worst
        return self.mean <= self.target.mean and (worst is None or self.worst[1] <= worst)


TARGETS = (
    Target("compiled step / torch's fastest", _COMPILED, _MODULE, 0.92, 1.02),
    Target("compiled step / jax", _COMPILED, ("jax",), 0.5, 1.0),
    Target("eager step / nn.Module, its best optimizer", ("funcnet",), _EAGER, 1.03, 1.15),
    Target("eager step, donating / nn.Module, its best optimizer", ("funcnet, donating",), _EAGER, 1.03, 1.15),
    Target("first step, nothing cached / torch's compiled step", _COMPILED, ("module compiled",), 0.8, None, "cold"),
    Target("first step, cached / torch's compiled step", _COMPILED, ("module compiled",), 0.5, None, "cached"),
    Target("peak memory of the compiled step / torch's least", _COMPILED, _MODULE, 1.0, None, "peak"),
    Target(
        "compiled forward / torch's fastest",
        ("funcnet compiled",),
        ("module", "module compiled"),
        0.92,
        1.02,
        subjects=lambda name: name.endswith("-inference"),
    ),
    Target("model(params, state, x) / module(x), 100 tiny layers", ("model",), ("module",), 1.3),
    Target("its gradient / backward()", ("gradient",), ("backward",), 1.2),
    Target(
        "compile 48 equal blocks / 12, stacked", ("48 blocks, stacked",), ("12 blocks, stacked",), 1.3, None, "cold"
    ),
    Target(
        "64 networks in one compiled step / a loop of eager steps",
        ("vmapped, compiled",),
        ("loop of eager steps",),
        0.05,
        subjects=lambda name: name == "ensemble-64",
    ),
    Target("gradients of each example / Opacus", ("per_example_grad, compiled",), ("Opacus",), 0.7),
)


def reached(report: Report) -> list[Reached]:
    """The ratios of a report for every target that it says something about."""
    found = [Reached(target, _ratios(target, report)) for target in TARGETS]
    return [one for one in found if one.ratios]


def table(found: list[Reached]) -> Table:
    """Targets and figures side by side; those that fall short are red and come first."""
    drawn = Table(title="targets", title_justify="left", box=None, header_style="bold")
    for column in _COLUMNS:
        drawn.add_column(column, justify="left" if column == "ratio" else "right")
    for one in sorted(found, key=lambda one: one.met):
        drawn.add_row(*_row(one), style=None if one.met else "red")
    return drawn


def markdown(found: list[Reached]) -> str:
    """The same in Markdown; what falls short is bold."""
    lines = [f"| {' | '.join(_COLUMNS)} |", f"| --- |{' ---: |' * (len(_COLUMNS) - 1)}"]
    for one in sorted(found, key=lambda one: one.met):
        title, mean, *rest = _row(one)
        lines.append(f"| {' | '.join((title, mean if one.met else f'**{mean}**', *rest))} |")
    return "\n".join(lines) + "\n"


def _row(one: Reached) -> tuple[str, ...]:
    name, worst = one.worst
    bound = "" if one.target.worst is None else f"{one.target.worst:.2f}"
    return (
        one.target.title,
        f"{one.mean:.2f}",
        f"{one.target.mean:.2f}",
        f"{worst:.2f} ({name})",
        bound,
        str(len(one.ratios)),
    )


def _ratios(target: Target, report: Report) -> dict[str, float]:
    ratios = {}
    for result in filter(lambda result: target.subjects(result.name), report.results):
        if target.quantity == "time":
            ours = result.ran(*target.ours)
            ratio = result.over(ours[0], *target.theirs) if ours else None
            if ratio is not None:
                ratios[result.name] = ratio.value
        elif (ours_least := _least(result, target.ours, target.quantity)) and (
            theirs_least := _least(result, target.theirs, target.quantity)
        ):
            ratios[result.name] = ours_least / theirs_least
    return ratios


def _least(result: Result, ways: tuple[str, ...], quantity: str) -> float | None:
    found = [getattr(result.cells[way], quantity) for way in ways if way in result.cells]
    return min((value for value in found if value is not None), default=None)
