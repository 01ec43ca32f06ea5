"""`check_model`: every check that applies, and a report."""

import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from torch import Tensor, nn

from funcnet import Model, random
from funcnet.testing.dtypes import check_dtype
from funcnet.testing.failures import CheckError, NotApplicableError, explain, replay
from funcnet.testing.gradients import check_gradients
from funcnet.testing.models import check_parameter_count, check_seeded
from funcnet.testing.purity import check_pure
from funcnet.testing.subjects import model_calls, model_case
from funcnet.testing.transformed import check_jit, check_remat, check_threads, check_vmap

__all__ = ["CHECKS", "Report", "Result", "check_model", "chosen_checks", "run_checks"]


def _count(subject: Model | nn.Module, *example: Any, key: Tensor | None = None) -> str:
    return check_parameter_count(subject)


CHECKS: dict[str, Callable[..., str]] = {
    "pure": check_pure,  # first: before anything else has filled a cache
    "seeded": check_seeded,
    "dtype": check_dtype,
    "parameter_count": _count,
    "gradients": check_gradients,
    "vmap": check_vmap,
    "jit": check_jit,
    "remat": check_remat,
    "threads": check_threads,
}
"""Every check of a model by name, called as `check(model, *example, key=key)`."""


class Result(NamedTuple):
    """What one check said."""

    check: str
    status: str
    """`"passed"`, `"failed"` or `"skipped"`."""
    seconds: float
    detail: str
    """What was compared, the counterexample, or the reason."""


class Report(NamedTuple):
    """What every check said of a model."""

    subject: str
    key: Tensor
    results: tuple[Result, ...]

    @property
    def failed(self) -> tuple[Result, ...]:
        """The results of the checks that failed."""
        return tuple(result for result in self.results if result.status == "failed")

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    def __str__(self) -> str:
        """A table in plain text."""
        lines = [f"{self.subject}, {replay(self.key)}"]
        width = max((len(result.check) for result in self.results), default=0)
        for result in self.results:
            lines.append(f"  {result.check:{width}}  {result.status:7}  {result.seconds:6.2f} s  {result.detail}")
        return "\n".join(lines)


def check_model(
    model: Model | nn.Module | Callable[..., nn.Module],
    *example: Any,
    key: Tensor | None = None,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> Report:
    """Run every check on a model: purity, randomness, dtypes, counts, gradients, vmap, jit, remat, threads.

    Args:
        model: a `Model`, a built module, or a constructor without arguments (a module's class, a function).
        *example: what the model is called with.
        key: what parameters, draws and directions come from. Default `random.key(0)`.
        only: the checks to run, by name. Default: all of `testing.CHECKS`.
        skip: checks not to run.

    Returns:
        The report, which prints as a table.

    Raises:
        CheckError: after all checks, with every counterexample; its `report` is the report.
        ValueError: a name is no check's.
        Exception: what the model raises on its example in an ordinary call.

    >>> import torch
    >>> report = check_model(nn.Linear(3, 2), torch.ones(4, 3), only=["pure", "seeded"])
    >>> [(result.check, result.status, result.detail) for result in report.results]
    [('pure', 'passed', '8 calls'), ('seeded', 'passed', 'draws nothing')]
    """
    report = run_checks(model, *example, key=key, only=only, skip=skip)
    if not report.ok:
        raise CheckError("\n".join(result.detail for result in report.failed), check="model", report=report)
    return report


def run_checks(
    model: Model | nn.Module | Callable[..., nn.Module],
    *example: Any,
    key: Tensor | None = None,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
    watch: Callable[[Result], None] = lambda result: None,
) -> Report:
    """`check_model`, which hands out its report whatever it says, and each result to `watch` as it comes."""
    key = random.key(0) if key is None else key
    subject = model if isinstance(model, Model | nn.Module) else Model(model)
    chosen = chosen_checks(only, skip)
    results = []
    for name in chosen:
        start = time.perf_counter()
        status, detail = _run(name, subject, example, key)
        results.append(Result(name, status, time.perf_counter() - start, detail))
        watch(results[-1])
    return Report(_title(subject), key, tuple(results))


def chosen_checks(only: Collection[str] | None, skip: Collection[str]) -> list[str]:
    """The names of the checks to run, in their order.

    >>> chosen_checks(None, ["pure", "jit"])
    ['seeded', 'dtype', 'parameter_count', 'gradients', 'vmap', 'remat', 'threads']
    """
    wanted, unwanted = [(names,) if isinstance(names, str) else names for names in (only, skip)]
    for words, names in (("only", wanted), ("skip", unwanted)):
        unknown = [name for name in names or () if name not in CHECKS]
        if unknown:
            raise ValueError(f"{words}={unknown[0]!r} is no check; there are {', '.join(CHECKS)}.")
    return [name for name in CHECKS if (wanted is None or name in wanted) and name not in (unwanted or ())]


def _run(name: str, subject: Model | nn.Module, example: tuple[Any, ...], key: Tensor) -> tuple[str, str]:
    try:
        return "passed", CHECKS[name](subject, *example, key=key)
    except CheckError as error:
        return "failed", str(error)
    except NotApplicableError as error:
        return "skipped", str(error)
    except Exception as error:
        _check_example(subject, example, key)
        return "failed", f"check_{name}: {explain(error)}"


def _check_example(subject: Model | nn.Module, example: tuple[Any, ...], key: Tensor) -> None:
    """Raise what an ordinary call raises: then there is nothing to check. Not called before something failed, since a
    first call may fill caches that `check_pure` is after."""
    try:
        for call in model_calls(model_case(subject, example, key)):
            call.f(*call.args)
    except Exception as error:
        error.add_note("raised by the model itself, when it was called with the example that it was to be checked on")
        raise


def _title(subject: Model | nn.Module) -> str:
    return repr(subject) if isinstance(subject, Model) else type(subject).__name__
