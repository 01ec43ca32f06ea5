"""The ways to train a workload, and to run one."""

from collections.abc import Mapping

import torch

from funcnet import counts
from funcnet.bench.subject import Setting, Subject, Way
from funcnet.bench.ways import in_jax, module, pure, torchopt
from funcnet.bench.ways.job import Job
from funcnet.bench.workloads import Workload

__all__ = ["inference", "training"]

_COPIES = 8  # parameters, gradients and two moments, old and new
# How far ways may differ, which each round in an order of their own: to 24 binary digits, to 11 or to 8.
_APART = {None: 2e-3, torch.float16: 1e-2, torch.bfloat16: 3e-2}


def training(workload: Workload, setting: Setting) -> Subject:
    """A training step of a workload, in every way."""
    job = Job(workload, setting.device, setting.autocast)
    ways = module.training(job) | torchopt.training(job) | pure.training(job) | in_jax.training(job)
    return _subject(job, workload.name, ways, train=True)


def inference(workload: Workload, setting: Setting) -> Subject:
    """A forward pass of a workload in evaluation, in every way."""
    job = Job(workload, setting.device, setting.autocast)
    ways = module.inference(job) | pure.inference(job) | in_jax.inference(job)
    return _subject(job, f"{workload.name}-inference", ways, train=False)


def _subject(job: Job, name: str, ways: Mapping[str, Way], *, train: bool) -> Subject:
    workload = job.workload
    cost = counts.summary(job.model, *job.batch[0], train=train)
    settings = dict(workload.settings)
    if job.autocast is not None:
        settings["autocast"] = str(job.autocast).removeprefix("torch.")
    return Subject(
        name,
        ways,
        tuple(way for way in ways if way.startswith("module")),
        workload.size,
        workload.unit,
        settings,
        cost.forward + cost.backward,
        _APART[job.autocast],
        device=job.device,
        memory=_COPIES * cost.parameter_bytes + cost.kept,
    )
