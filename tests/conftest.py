"""Hypothesis profiles, one thread a worker, and what many tests share."""

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci", max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores; more threads than cores wait for each other


@pytest.fixture(autouse=True)
def _global_generator_untouched() -> Iterator[None]:
    """No test of this library may move torch's global generator, unless the test itself seeds it."""
    before = torch.get_rng_state()
    yield
    moved = not torch.equal(before, torch.get_rng_state())
    torch.set_rng_state(before)
    if moved and not os.environ.get("FUNCNET_TEST_SEEDS"):
        pytest.fail("the global random generator moved: wrap torch.nn constructions in `random.seeded(key)`")
