"""What `funcnet bench` trains: networks with their data, in torch, and the same in jax (`in_jax`)."""

from collections.abc import Callable

from funcnet.bench.workloads.tabular import dlrm, mlp
from funcnet.bench.workloads.workload import Workload as Workload

__all__ = ["WORKLOADS", "Workload"]

WORKLOADS: dict[str, Callable[[str], Workload]] = {
    "mlp": mlp,
    "dlrm": dlrm,
}
"""By name: from a machine, "cpu" or "gpu", to the workload at a size that suits it."""
