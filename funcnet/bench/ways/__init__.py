"""The ways to train a workload, and to run one."""

from collections.abc import Mapping

import torch

from funcnet import _compat
from funcnet.bench.subject import Subject, Way
from funcnet.bench.ways import in_jax, module, pure, torchopt
from funcnet.bench.ways.job import Job
from funcnet.bench.workloads import Workload

__all__ = ["inference", "training"]


def training(workload: Workload, device: torch.device, autocast: torch.dtype | None = None) -> Subject:
    """A training step of a workload, in every way."""
    job = Job(workload, device, autocast)
    ways = module.training(job) | torchopt.training(job) | pure.training(job) | in_jax.training(job)
    return _subject(job, workload.name, ways)


def inference(workload: Workload, device: torch.device, autocast: torch.dtype | None = None) -> Subject:
    """A forward pass of a workload in evaluation, in every way."""
    job = Job(workload, device, autocast)
    ways = module.inference(job) | pure.inference(job) | in_jax.inference(job)
    return _subject(job, f"{workload.name}-inference", ways)


def _subject(job: Job, name: str, ways: Mapping[str, Way]) -> Subject:
    workload = job.workload

    def flops() -> int:
        running = ways["module"].make()
        with _compat.FlopCounter(lambda: ("", "")) as counter:
            running.step()
        return sum(counter.counts().values())

    reference = tuple(way for way in ways if way.startswith("module"))
    return Subject(name, ways, reference, workload.size, workload.unit, workload.settings, flops, device=job.device)
