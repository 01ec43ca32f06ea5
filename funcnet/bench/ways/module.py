"""As PyTorch's own users write it: nn.Module, backward(), torch.optim."""

from functools import partial
from typing import Any

import torch

from funcnet.bench.subject import Running, Way, bytes_of
from funcnet.bench.ways.job import Job

__all__ = ["inference", "training"]


def training(job: Job) -> dict[str, Way]:
    """Eager with each of torch's optimizers, and compiled."""
    both = partial(_trained, job, compile_module=True, compiled=True)
    ways = {
        "module": Way(partial(_trained, job)),
        "module, foreach": Way(partial(_trained, job, foreach=True)),
        "module, fused": Way(partial(_trained, job, fused=True)),
        "module compiled, fused": Way(partial(_trained, job, compile_module=True, fused=True), compiled=True),
        "module compiled": Way(both, compiled=True),
    }
    if job.device.type == "cuda":
        ways["module compiled, graphs"] = Way(partial(both, mode="reduce-overhead"), compiled=True)
    return ways


def inference(job: Job) -> dict[str, Way]:
    """Eager and compiled, without a graph of autograd."""
    modes = {"module": None, "module compiled": "default"}
    if job.device.type == "cuda":
        modes["module compiled, graphs"] = "reduce-overhead"
    return {name: Way(partial(_run, job, mode), mode is not None) for name, mode in modes.items()}


def _trained(
    job: Job, *, compile_module: bool = False, compiled: bool = False, mode: str | None = None, **options: Any
) -> Running:
    module = job.model.bind(*job.start()).train()
    # A learning rate in a tensor, since the compiled optimizer would compile again for another number.
    rate = torch.tensor(job.workload.rate, device=job.device) if compiled else job.workload.rate
    optimizer = torch.optim.Adam(module.parameters(), lr=rate, **options)
    forward = torch.compile(module, mode=mode) if compile_module else module
    update = torch.compile(optimizer.step) if compiled else optimizer.step

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = job.loss(forward)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own method
        update()
        return loss

    def held() -> int:
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        return bytes_of(module.state_dict(keep_vars=True), list(optimizer.state.values()), grads)

    return Running(step, held)


def _run(job: Job, mode: str | None) -> Running:
    module = job.model.bind(*job.start()).eval()
    forward = module if mode is None else torch.compile(module, mode=mode)

    def step() -> Any:
        with torch.inference_mode(), job.casts():
            return forward(*job.batch[0])

    return Running(step, lambda: bytes_of(module.state_dict()))
