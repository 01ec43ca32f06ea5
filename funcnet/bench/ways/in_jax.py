"""jax: one jitted step with its memory donated, and optax for the optimizer."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from funcnet import tree
from funcnet.bench.subject import Running, Way, bytes_of
from funcnet.bench.ways.job import Job
from funcnet.bench.workloads import in_jax

__all__ = ["Jitted", "absent", "inference", "missing", "placed", "training"]


def training(job: Job) -> dict[str, Way]:
    """The whole step compiled, parameters and optimizer state donated; no way where the workload is not in jax."""
    if job.workload.jax is None:
        return {}
    return {"jax": Way(lambda: _trained(job), compiled=True, absent=absent(job.device, "optax"))}


def inference(job: Job) -> dict[str, Way]:
    """The forward pass compiled; no way where the workload is not in jax."""
    if job.workload.jax is None:
        return {}
    return {"jax": Way(lambda: _run(job), compiled=True, absent=absent(job.device))}


def absent(device: torch.device, *packages: str) -> str | None:
    """Why jax, with some packages beside it, cannot run on a device, if so."""
    # Asked before anything imports jax, which would take three quarters of a GPU's memory for itself, and torch none.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    lacking = missing("jax", *packages)
    if lacking or device.type == "cpu":
        return lacking
    try:
        with placed(device):
            return None
    except RuntimeError:
        return "jax sees no GPU: pip install 'jax[cuda13]'"


def missing(*packages: str) -> str | None:
    """Why a way that needs packages cannot be run, if so."""
    lacking = [name for name in packages if find_spec(name) is None]
    return f"{lacking[0]} is not installed: pip install 'funcnet[oracle]'" if lacking else None


@contextmanager
def placed(device: torch.device) -> Iterator[Any]:
    """A context in which jax makes its arrays on torch's device; gives jax's name of it."""
    import jax

    there = jax.devices(device.type)[device.index or 0]
    with jax.default_device(there):
        yield there


class Jitted:
    """A function under `jax.jit`, and what can be asked of it.

    Args:
        function: of arrays that are on a device.
        device: which one. Not only its arguments decide: layers are written in another form for each platform.
        donate: which arguments may be written over.
    """

    def __init__(self, function: Callable[..., Any], device: torch.device, donate: tuple[int, ...] = ()) -> None:
        """Nothing is compiled yet."""
        import jax

        # A function of its own: jax would take the trace of the same function for another platform.
        self._run: Any = jax.jit(lambda *args: function(*args), donate_argnums=donate)
        self._platform = "gpu" if device.type == "cuda" else "cpu"
        self._args: tuple[Any, ...] | None = None
        self._last: Any = None

    def __call__(self, *args: Any) -> Any:
        """What the function returns, perhaps before it is there."""
        if self._args is None:
            with self._tracing():
                self._last = self._run(*args)
            self._args = args
        else:
            self._last = self._run(*args)
        return self._last

    def wait(self) -> None:
        """Return when the last call's results are there."""
        import jax

        jax.block_until_ready(self._last)  # type: ignore[no-untyped-call]  # jax's own

    def taken(self) -> int | None:
        """The bytes that a call takes beyond its arguments, as XLA planned them: it has arenas of its own, unseen."""
        if self._args is None:
            return None
        with self._tracing():  # what the first call compiled is found again
            planned = self._run.lower(*self._args).compile().memory_analysis()
        if planned is None:
            return None
        written: int = planned.output_size_in_bytes - planned.alias_size_in_bytes
        return written + int(planned.temp_size_in_bytes)

    @contextmanager
    def _tracing(self) -> Iterator[None]:
        from funcnet.bench.workloads.in_jax.layers import written_for

        with written_for(self._platform), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Some donated buffers were not usable")
            yield


def _trained(job: Job) -> Running:
    import jax
    import optax

    optimizer = optax.adam(job.workload.rate)
    with placed(job.device) as there:
        net, loss, params, state, inputs, target = _prepared(job, there)
        held = params, state, jax.device_put(optimizer.init(params), there)

    def step(params: Any, state: Any, opt_state: Any, inputs: Any, target: Any) -> Any:
        def total(params: Any) -> Any:
            output, new = net.apply(_cast(params, job.autocast), state, *_cast(inputs, job.autocast), train=True)
            return loss(output.astype("float32"), target), new

        (value, new), grads = jax.value_and_grad(total, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), new, opt_state, value

    compiled = Jitted(step, job.device, (0, 1, 2))

    def advance() -> Any:
        nonlocal held
        *new, value = compiled(*held, inputs, target)
        held = tuple(new)
        return value

    return Running(advance, lambda: bytes_of(jax.tree.leaves(held)), compiled.wait, compiled.taken)


def _run(job: Job) -> Running:
    import jax

    with placed(job.device) as there:
        net, _, params, state, inputs, _ = _prepared(job, there)

    def run(params: Any, state: Any, inputs: Any) -> Any:
        return net.apply(_cast(params, job.autocast), state, *_cast(inputs, job.autocast), train=False)[0]

    compiled = Jitted(run, job.device)
    held = bytes_of(jax.tree.leaves((params, state)))
    return Running(lambda: compiled(params, state, inputs), lambda: held, compiled.wait, compiled.taken)


def _prepared(job: Job, there: Any) -> Any:
    import jax

    net, loss = in_jax.load(job.workload)
    inputs, target = job.batch
    arrays = net.prepare(*(tree.map(_array, part) for part in (*job.start(), inputs)))
    return net, loss, *jax.device_put(jax.tree.map(jax.numpy.array, (*arrays, _array(target))), there)


def _array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().cpu().numpy()


def _cast(values: Any, dtype: torch.dtype | None) -> Any:
    import jax

    if dtype is None:
        return values
    name = str(dtype).removeprefix("torch.")
    return jax.tree.map(lambda v: v.astype(name) if v.dtype == np.float32 else v, values)
