"""Write golden.json: what optax computes for every entry of the registry. Run: python tests/optim/make_golden.py."""

import json
from pathlib import Path

import numpy as np
from registry import LINKS, OPTIMIZERS, SCHEDULES

STEPS = 4
FILE = Path(__file__).with_name("golden.json")


def problem():
    """Parameters and gradients by a formula, so that no generator's bits are needed; one gradient is all zero."""

    def wave(shape, shift):
        return np.sin(np.arange(np.prod(shape)) * 1.7 + shift).reshape(shape)

    def params(shift):
        return {"a": wave((2, 3), shift), "b": {"c": wave((3,), shift + 1), "d": wave((), shift + 2)}}

    gradients = [params(10.0 + step) for step in range(STEPS)]
    gradients[2]["b"]["c"] = np.zeros(3)
    return params(0.0), gradients


def run(rule, params, gradients, apply_updates):
    """The updates of every step, each applied to the parameters."""
    state, seen = rule.init(params), []
    for gradient in gradients:
        updates, state = rule.update(gradient, state, params)
        params = apply_updates(params, updates)
        seen.append(updates)
    return seen


def main():
    """Record optax's updates and schedule values in double precision."""
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    params, gradients = jax.tree.map(jax.numpy.asarray, problem())
    golden = {"optax": optax.__version__, "jax": jax.__version__, "updates": {}, "schedules": {}}
    for case in OPTIMIZERS + LINKS:
        updates = run(case.build(optax), params, gradients, optax.apply_updates)
        golden["updates"][str(case)] = jax.tree.map(lambda x: np.asarray(x).tolist(), updates)
    for case in SCHEDULES:
        schedule = case.build(optax)
        golden["schedules"][str(case)] = [float(schedule(step)) for step in range(14)]
    FILE.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
