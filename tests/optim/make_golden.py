"""Write golden/: what optax computes for every entry of the registry.

python tests/optim/make_golden.py [ROOM ...]
"""

import json
import sys
from pathlib import Path

import numpy as np
from registry import ROOMS, SCHEDULES

STEPS = 25
RECORDED = (0, 1, 2, 24)
FOLDER = Path(__file__).with_name("golden")


def problem():
    """Parameters and gradients by a formula, so that no generator's bits are needed; one gradient is all zero."""

    def wave(shape, shift):
        return np.sin(np.arange(np.prod(shape)) * 1.7 + shift).reshape(shape)

    def params(shift):
        return {"a": wave((2, 3), shift), "b": {"c": wave((3,), shift + 1), "d": wave((), shift + 2)}}

    gradients = [params(10.0 + step) for step in range(STEPS)]
    gradients[2]["b"]["c"] = np.zeros(3)
    return params(0.0), gradients


def run(case, library, params, gradients, **overrides):
    """The updates of every step, each applied to the parameters."""
    rule = case.build(library, **overrides)
    update = rule.update
    if library.__name__ == "optax":
        import jax

        update = jax.jit(update)  # else optax's conditions would be compiled anew at every step
    state, seen = rule.init(params), []
    for step, gradient in enumerate(gradients):
        updates, state = update(gradient, state, params, **case.keywords(step))
        params = library.apply_updates(params, updates)
        seen.append(updates)
    return seen


def write(name, entries):
    """One file, with the versions of what computed it."""
    import jax
    import optax

    text = json.dumps({"optax": optax.__version__, "jax": jax.__version__, "entries": entries}, indent=1)
    (FOLDER / f"{name}.json").write_text(text + "\n")


def main(names):
    """Record optax's updates and schedule values in double precision."""
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    FOLDER.mkdir(exist_ok=True)
    params, gradients = jax.tree.map(jax.numpy.asarray, problem())
    for name in set(names) & set(ROOMS) if names else ROOMS:
        entries = {}
        for case in ROOMS[name].OPTIMIZERS + ROOMS[name].LINKS:
            seen = run(case, optax, params, gradients)
            kept = [[np.asarray(leaf).tolist() for leaf in jax.tree.leaves(seen[step])] for step in RECORDED]
            entries[str(case)] = kept
        write(name, entries)
    if not names or "schedules" in names:
        write("schedules", {str(c): [float(c.build(optax)(step)) for step in range(14)] for c in SCHEDULES})


if __name__ == "__main__":
    main(sys.argv[1:])
