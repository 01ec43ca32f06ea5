"""jax: one jitted step with its memory donated, and optax for the optimizer."""

import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from funcnet import tree
from funcnet.bench.subject import Running, Way, bytes_of
from funcnet.bench.ways.job import Job
from funcnet.bench.workloads import in_jax

__all__ = ["finished", "inference", "missing", "training"]


def training(job: Job) -> dict[str, Way]:
    """The whole step compiled, parameters and optimizer state donated."""
    return {"jax": Way(lambda: _trained(job), compiled=True, absent=_absent(job))}


def inference(job: Job) -> dict[str, Way]:
    """The forward pass compiled."""
    return {"jax": Way(lambda: _run(job), compiled=True, absent=_absent(job))}


def _absent(job: Job) -> str | None:
    if job.workload.jax is None:
        return "this workload is not written in jax"
    return missing("jax", "optax")


def missing(*packages: str) -> str | None:
    """Why a way that needs packages cannot be run, if so."""
    lacking = [name for name in packages if find_spec(name) is None]
    return f"{lacking[0]} is not installed: pip install 'funcnet[oracle]'" if lacking else None


def _trained(job: Job) -> Running:
    import jax
    import optax

    net, loss, params, state, inputs, target = _prepared(job)
    optimizer = optax.adam(job.workload.rate)

    def step(params: Any, state: Any, opt_state: Any) -> Any:
        def total(params: Any) -> Any:
            output, new = net.apply(_cast(params, job.autocast), state, *_cast(inputs, job.autocast), train=True)
            return loss(output.astype("float32"), target), new

        (value, new), grads = jax.value_and_grad(total, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), new, opt_state, value

    compiled: Any = jax.jit(step, donate_argnums=(0, 1, 2))
    held = params, state, optimizer.init(params)

    def advance() -> Any:
        nonlocal held
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Some donated buffers were not usable")
            *new, value = finished(compiled(*held))
        held = tuple(new)
        return value

    return Running(advance, lambda: bytes_of(jax.tree.leaves(held)))


def _run(job: Job) -> Running:
    import jax

    net, _, params, state, inputs, _ = _prepared(job)

    def run(params: Any, state: Any, inputs: Any) -> Any:
        return net.apply(_cast(params, job.autocast), state, *_cast(inputs, job.autocast), train=False)[0]

    compiled = jax.jit(run)
    return Running(
        lambda: finished(compiled(params, state, inputs)),
        lambda: bytes_of(jax.tree.leaves((params, state))),
    )


def finished(arrays: Any) -> Any:
    """The arrays when they are there: jax returns before."""
    import jax

    return jax.block_until_ready(arrays)  # type: ignore[no-untyped-call]  # jax's own


def _prepared(job: Job) -> Any:
    import jax

    net, loss = in_jax.load(job.workload)
    inputs, target = job.batch
    arrays = net.prepare(*(tree.map(_array, part) for part in (*job.start(), inputs)))
    return net, loss, *jax.tree.map(jax.numpy.array, (*arrays, _array(target)))


def _array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().cpu().numpy()


def _cast(values: Any, dtype: torch.dtype | None) -> Any:
    import jax

    if dtype is None:
        return values
    name = str(dtype).removeprefix("torch.")
    return jax.tree.map(lambda v: v.astype(name) if v.dtype == np.float32 else v, values)
