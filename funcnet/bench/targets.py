"""What the project holds itself to, and how far a report is from it."""

import math
from collections.abc import Callable
from typing import NamedTuple

from rich.table import Table

from funcnet.bench.limits import Limits
from funcnet.bench.result import Report, Result
from funcnet.bench.timing import Ratio

__all__ = ["GPU_TARGETS", "TARGETS", "Reached", "Target", "markdown", "reached", "table"]

_COMPILED = ("funcnet compiled, donating",)
_MODULE = ("module", "module, foreach", "module, fused", "module compiled, fused", "module compiled")
_EAGER = _MODULE[:3]
# On a GPU both sides have CUDA graphs, and we the faster of two.
_GRAPHS = ("funcnet compiled, graphs", *_COMPILED)
_MODULE_GRAPHS = (*_MODULE, "module compiled, graphs", "module compiled, max-autotune")
_FORWARD_GRAPHS = ("funcnet compiled, graphs", "funcnet compiled")

_COLUMNS = ("ratio", "mean", "target", "worst", "at most", "of")


def _is_forward(name: str) -> bool:
    return name.endswith("-inference")


class Target(NamedTuple):
    """A bound of the ratio of two quantities, as a geometric mean over subjects and for each of them."""

    title: str
    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    mean: float
    worst: float | None = None
    quantity: str = "time"
    """`time`, `cold`, `cached` (seconds of the first step) or `peak` (bytes): the least of several ways counts, and the
    bounds are upper ones. `share`: the FLOPs a second of the fastest of our ways over those of a matrix product, for
    which the bounds are lower ones."""
    subjects: Callable[[str], bool] = lambda name: not _is_forward(name)

    @property
    def least(self) -> bool:
        """Whether more is better."""
        return self.quantity == "share"


class Reached(NamedTuple):
    """A target and the ratios of a report."""

    target: Target
    ratios: dict[str, float]
    timed: dict[str, Ratio]
    """Those that are of times, with their intervals."""

    @property
    def mean(self) -> float:
        """The geometric mean."""
        return math.exp(math.fsum(map(math.log, self.ratios.values())) / len(self.ratios))

    @property
    def worst(self) -> tuple[str, float]:
        """The subject with the largest ratio, of shares with the smallest."""
        return (min if self.target.least else max)(self.ratios.items(), key=lambda item: item[1])

    @property
    def met(self) -> bool:
        """Whether mean and worst are within bounds."""
        bounds = [(self.mean, self.target.mean), (self.worst[1], self.target.worst)]
        return all(
            bound is None or (value >= bound if self.target.least else value <= bound) for value, bound in bounds
        )


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
        subjects=_is_forward,
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
"""Those of a report from a CPU."""

GPU_TARGETS = (
    Target("compiled step / torch's fastest", _GRAPHS, _MODULE_GRAPHS, 0.95),
    Target("compiled step / jax", _GRAPHS, ("jax",), 0.85),
    Target("compiled forward / torch's fastest", _FORWARD_GRAPHS, _MODULE_GRAPHS, 0.95, subjects=_is_forward),
    Target("compiled forward / jax", _FORWARD_GRAPHS, ("jax",), 0.85, subjects=_is_forward),
    Target(
        "compiled step of a small net / nn.Module, its best optimizer",
        _GRAPHS,
        _EAGER,
        1 / 3,
        1 / 3,
        subjects=lambda name: name in ("mlp", "cnn", "lstm"),
    ),
    Target(
        "FLOPs of GPT-2's step / of a matrix product", _GRAPHS, (), 0.5, quantity="share", subjects=lambda n: n == "gpt"
    ),
)
"""Those of a report from a GPU."""


def reached(report: Report) -> list[Reached]:
    """The ratios of a report for every target of its kind of device that it says something about."""
    targets = TARGETS if report.environment.get("device", "cpu").startswith("cpu") else GPU_TARGETS
    found = []
    for target in targets:
        results = [result for result in report.results if target.subjects(result.name)]
        timed = _timed(target, results) if target.quantity == "time" else {}
        ratios = {name: ratio.value for name, ratio in timed.items()} or _ratios(target, results, report.limits)
        found += [Reached(target, ratios, timed)] if ratios else []
    return found


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
    interval = f", {one.timed[name].interval}" if name in one.timed else ""
    least = "at least " if one.target.least else ""
    mean, bound = ("" if b is None else f"{least}{b:.2f}" for b in (one.target.mean, one.target.worst))
    return one.target.title, f"{one.mean:.2f}", mean, f"{worst:.2f} ({name}{interval})", bound, str(len(one.ratios))


def _timed(target: Target, results: list[Result]) -> dict[str, Ratio]:
    fastest = {result.name: (result, ours[0]) for result in results if (ours := result.ran(*target.ours))}
    found = {name: result.over(way, *target.theirs) for name, (result, way) in fastest.items()}
    return {name: ratio for name, ratio in found.items() if ratio is not None}


def _ratios(target: Target, results: list[Result], limits: Limits) -> dict[str, float]:
    ratios = {}
    for result in results:
        if target.quantity == "share":
            ours = result.ran(*target.ours)
            timing = result.cells[ours[0]].timing if ours else None
            if timing is not None and result.flops:
                ratios[result.name] = result.flops / timing.median / limits.flops
        elif target.quantity != "time" and (
            (ours_least := _least(result, target.ours, target.quantity))
            and (theirs_least := _least(result, target.theirs, target.quantity))
        ):
            ratios[result.name] = ours_least / theirs_least
    return ratios


def _least(result: Result, ways: tuple[str, ...], quantity: str) -> float | None:
    found = [getattr(result.cells[way], quantity) for way in ways if way in result.cells]
    return min((value for value in found if value is not None), default=None)
