"""What `funcnet bench` trains: networks with their data, in torch, and the same in jax (`in_jax`)."""

from collections.abc import Callable

from funcnet.bench.workloads.language import gpt, gpt_small
from funcnet.bench.workloads.recurrent import lstm
from funcnet.bench.workloads.tabular import dlrm, mlp
from funcnet.bench.workloads.vision import cnn, resnet18, resnet50, vit_tiny
from funcnet.bench.workloads.workload import Workload as Workload

__all__ = ["WORKLOADS", "Workload"]

WORKLOADS: dict[str, Callable[[str], Workload]] = {
    "mlp": mlp,
    "cnn": cnn,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "vit-tiny": vit_tiny,
    "gpt-small": gpt_small,
    "gpt": gpt,
    "lstm": lstm,
    "dlrm": dlrm,
}
"""By name: from a machine, "cpu" or "gpu", to the workload at a size that suits it; "smoke" is the smallest that still
has every kind of layer, for a check that ways agree."""
