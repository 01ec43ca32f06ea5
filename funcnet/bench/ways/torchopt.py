"""TorchOpt's functional optimizer around torch.func.functional_call."""

from typing import Any

import torch
from torch.func import functional_call

from funcnet.bench.subject import Running, Way, bytes_of
from funcnet.bench.ways.in_jax import missing
from funcnet.bench.ways.job import Job

__all__ = ["training"]


def training(job: Job) -> dict[str, Way]:
    """Eager."""
    return {"TorchOpt": Way(lambda: _trained(job), absent=missing("torchopt"))}


def _trained(job: Job) -> Running:
    import torchopt

    params, buffers = job.start()
    module = job.model.bind(params, buffers).train()
    optimizer: Any = torchopt.adam(job.workload.rate)
    params = {name: p.requires_grad_() for name, p in params.items()}
    state = optimizer.init(params)

    def step() -> Any:
        nonlocal params, state
        loss = job.loss(lambda *inputs: functional_call(module, {**params, **buffers}, inputs), *job.batch)
        grads = dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))
        updates, state = optimizer.update(grads, state, inplace=True)
        params = torchopt.apply_updates(params, updates, inplace=True)
        return loss

    return Running(step, lambda: bytes_of(params, buffers, list(torch.utils._pytree.tree_leaves(state))))
