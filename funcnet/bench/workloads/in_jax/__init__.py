"""The workloads in plain jax: functions of torch's parameters by torch's names, laid out as jax likes them.

jax is imported by this folder's other rooms, never by this one; `load` is the way in.
"""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from funcnet.bench.workloads.workload import Workload

if TYPE_CHECKING:
    from funcnet.bench.workloads.in_jax.layers import Net

__all__ = ["load"]


def load(workload: Workload) -> "tuple[Net, Callable[..., Any]]":
    """A workload's network in jax, and its loss: a function of `(output, target)`.

    Raises:
        ModuleNotFoundError: jax is not installed.
        ValueError: the workload has no form in jax.
    """
    if workload.jax is None:
        raise ValueError(f"the workload {workload.name} has no form in jax: its field `jax` is None.")
    module, _, function = workload.jax.partition(":")
    try:
        layers = importlib.import_module("funcnet.bench.workloads.in_jax.layers")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}. Write pip install 'funcnet[oracle]' for what jax measures.") from error
    net = getattr(importlib.import_module(module), function)(workload.settings)
    return net, getattr(layers, workload.jax_loss)
