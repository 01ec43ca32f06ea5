"""The pytest plugin of funcnet: a marker that runs every check of `funcnet.testing` on every model of a list.

    @pytest.mark.funcnet_models({"mlp": (MLP, x), "cnn": (lambda: CNN(10), images)}, skip=["jit"])
    def test_models(funcnet_check):
        funcnet_check()

That is one test for each model, check and seed, such as `test_models[mlp-vmap-seed0]`. `--funcnet-seed` and
`--funcnet-seeds` choose the seeds, and a test that fails prints the command that runs it again.

A module beside the package, since pytest loads it in every project: torch is imported where a test uses the marker.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

__all__: list[str] = []

_MARKER = "funcnet_models"
_FIXTURE = "funcnet_check"
_HOW = f'@pytest.mark.{_MARKER}({{"mlp": (MLP, x)}})'


class _Case(NamedTuple):
    """A check of a model, with everything drawn from a seed."""

    model: Any
    example: tuple[Any, ...]
    check: str
    seed: int


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("funcnet", "checks of models by funcnet.testing")
    group.addoption(
        "--funcnet-seed", type=int, default=0, metavar="N", help="where the randomness of checked models starts"
    )
    group.addoption(
        "--funcnet-seeds", type=int, default=1, metavar="K", help="check every model with K seeds, from N on"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f"{_MARKER}(models, only=None, skip=()): run the checks of funcnet.testing on each model; `models` maps a name "
        "to (model or constructor, *example), where a function in the example is called with a key",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each model, check and seed."""
    if _FIXTURE not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker(_MARKER)
    if marker is None:
        raise pytest.UsageError(f"{metafunc.function.__name__} uses {_FIXTURE} without models: add {_HOW}.")
    models, only, skip = _arguments(*marker.args, **marker.kwargs)
    from funcnet.testing.suite import chosen_checks

    first, count = metafunc.config.getoption("--funcnet-seed"), metafunc.config.getoption("--funcnet-seeds")
    cases = {
        f"{name}-{check}-seed{seed}": _Case(model, tuple(example), check, seed)
        for name, (model, *example) in models.items()
        for check in chosen_checks(only, skip)
        for seed in range(first, first + count)
    }
    metafunc.parametrize(_FIXTURE, list(cases.values()), ids=list(cases), indirect=True)


def _arguments(models: Any = None, only: Any = None, skip: Any = ()) -> tuple[dict[str, Any], Any, Any]:
    if not isinstance(models, dict) or not all(isinstance(value, tuple) and value for value in models.values()):
        raise pytest.UsageError(f"{_MARKER} takes a dict from a name to (model, *example): write {_HOW}.")
    return models, only, skip


@pytest.fixture(name=_FIXTURE)
def funcnet_check(request: pytest.FixtureRequest) -> Callable[[], None]:
    """A function that runs the check that this test is for."""
    from funcnet import random
    from funcnet.testing.suite import run_checks

    case: _Case = request.param

    def check() -> None:
        key = random.key(case.seed)
        example = [
            value(random.fold_in(key, 2 + i)) if callable(value) else value for i, value in enumerate(case.example)
        ]
        report = run_checks(case.model, *example, key=key, only=[case.check])
        (result,) = report.results
        if result.status == "skipped":
            pytest.skip(result.detail)
        if result.status == "failed":
            again = f"pytest '{request.node.nodeid}' --funcnet-seed {case.seed}"
            pytest.fail(f"{result.detail}\nRun it again with: {again}", pytrace=False)

    return check
