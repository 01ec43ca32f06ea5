"""funcnet's own ways."""

from functools import partial
from typing import Any

from torch import Tensor

from funcnet import optim, random
from funcnet.bench.subject import Running, Way, bytes_of, unseen
from funcnet.bench.ways.job import Job
from funcnet.jit import jit
from funcnet.train import TrainState, make_step

__all__ = ["inference", "training"]


def training(job: Job) -> dict[str, Way]:
    """Eager and compiled, each also with its memory donated; on a GPU as CUDA graphs too."""
    ways = {
        "funcnet": Way(partial(_trained, job)),
        "funcnet, donating": Way(partial(_trained, job, donate=True)),
        "funcnet compiled": Way(partial(_trained, job, compiled=True), compiled=True),
        "funcnet compiled, donating": Way(partial(_trained, job, compiled=True, donate=True), compiled=True),
    }
    if job.device.type == "cuda":
        graphs = partial(_trained, job, compiled=True, donate=True, mode="reduce-overhead")
        ways["funcnet compiled, graphs"] = Way(graphs, compiled=True)
    return ways


def inference(job: Job) -> dict[str, Way]:
    """Eager and compiled; on a GPU as CUDA graphs too."""
    modes = {"funcnet": None, "funcnet compiled": "default"}
    if job.device.type == "cuda":
        modes["funcnet compiled, graphs"] = "reduce-overhead"
    return {name: Way(partial(_run, job, mode), mode is not None) for name, mode in modes.items()}


def _trained(job: Job, *, compiled: bool = False, donate: bool = False, mode: str | None = None) -> Running:
    def loss(params: Any, state: Any, batch: Any, key: Tensor) -> Any:
        inputs, target = batch
        with job.casts():
            output, state = job.model.apply(params, state, *inputs, train=True)
            return job.workload.loss(output, target), (state, {})

    optimizer = optim.adam(job.workload.rate)
    step: Any = make_step(loss, optimizer, donate=donate and not compiled)
    if compiled:
        step = jit(step, donate=0 if donate else (), mode=mode)
    ts = TrainState.create(*job.start(), optimizer, random.key(2).to(job.device))

    def advance() -> Any:
        nonlocal ts
        ts, metrics = step(ts, job.batch)
        return metrics["loss"]

    return Running(advance, lambda: bytes_of(ts), taken=unseen(mode))


def _run(job: Job, mode: str | None) -> Running:
    params, state = job.start()

    def evaluate(params: Any, state: Any, inputs: Any) -> Any:
        with job.casts():
            return job.model(params, state, *inputs)

    run: Any = partial(evaluate, params, state)
    if mode == "reduce-overhead":  # a replay would copy arguments, which it does not what is closed over
        run = jit(run, mode=mode)
    elif mode is not None:
        run = partial(jit(evaluate), params, state)
    return Running(lambda: run(job.batch[0]), lambda: bytes_of(params, state), taken=unseen(mode))
