"""What the examples in docstrings take for granted."""

from importlib.util import find_spec
from typing import Any

import pytest
import torch

# Doctests import every room, and these import jax, which only the extra "oracle" brings.
collect_ignore_glob = [] if find_spec("jax") else ["funcnet/bench/workloads/in_jax/*"]


@pytest.fixture(autouse=True)
def _torch_in_examples(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace["torch"] = torch
