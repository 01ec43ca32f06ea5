"""As PyTorch's own users write it: nn.Module, backward(), torch.optim."""

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from funcnet.bench.subject import Running, Way, bytes_of, unseen
from funcnet.bench.ways.job import Job

__all__ = ["inference", "training"]

_GRAPHS = {"module compiled, graphs": "reduce-overhead", "module compiled, max-autotune": "max-autotune"}


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
        ways |= {name: Way(partial(both, mode=mode), compiled=True) for name, mode in _GRAPHS.items()}
    return ways


def inference(job: Job) -> dict[str, Way]:
    """Eager and compiled, without a graph of autograd."""
    modes = {"module": None, "module compiled": "default"} | (_GRAPHS if job.device.type == "cuda" else {})
    return {name: Way(partial(_run, job, mode), mode is not None) for name, mode in modes.items()}


def _trained(
    job: Job, *, compile_module: bool = False, compiled: bool = False, mode: str | None = None, **options: Any
) -> Running:
    module = job.model.bind(*job.start()).train()
    # A learning rate in a tensor, since the compiled optimizer would compile again for another number. On a GPU that,
    # the kernels of many parameters at once and CUDA graphs all need an optimizer that is capturable.
    rate = torch.tensor(job.workload.rate, device=job.device) if compiled else job.workload.rate
    capturable = compiled and job.device.type == "cuda"
    optimizer = torch.optim.Adam(module.parameters(), lr=rate, capturable=capturable, **options)
    batch = job.batch

    def loss_of(inputs: tuple[Tensor, ...], target: Tensor) -> Tensor:
        return job.loss(module, inputs, target)

    forward: Any = torch.compile(_apart(loss_of), mode=mode) if compile_module else loss_of
    update = torch.compile(optimizer.step, mode=mode) if compiled else optimizer.step

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = forward(*batch)
        loss.backward()
        update()
        return loss

    def held() -> int:
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        return bytes_of(module.state_dict(keep_vars=True), list(optimizer.state.values()), grads)

    return Running(step, held, taken=unseen(mode))


def _run(job: Job, mode: str | None) -> Running:
    module = job.model.bind(*job.start()).eval()
    inputs, _ = job.batch

    def evaluate(*inputs: Tensor) -> Any:
        with job.casts():
            return module(*inputs)

    forward = evaluate if mode is None else torch.compile(_apart(evaluate), mode=mode)

    def step() -> Any:
        with torch.inference_mode():
            return forward(*inputs)

    return Running(step, lambda: bytes_of(module.state_dict()), taken=unseen(mode))


def _apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with code of its own: torch.compile keeps graphs by code, and a way would find its neighbour's."""
    code, outside = function.__code__, function.__globals__
    return FunctionType(code.replace(), outside, closure=function.__closure__)
