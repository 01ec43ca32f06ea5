"""What the tests of optimizers share: a tree, a run of steps, a comparison."""

import torch

from funcnet import optim, random, tree

SHAPES = [(2, 3), (3,), ()]


def example(seed=0, dtype=torch.float32):
    """A small tree of drawn numbers."""
    first, second, third = (random.normal(random.fold_in(random.key(seed), i), s) for i, s in enumerate(SHAPES))
    return tree.map(lambda leaf: leaf.to(dtype), {"a": first, "b": {"c": second, "d": third}})


def steps(rule, params, gradients, state=None, case=None):
    """The parameters and the state after some updates."""
    state = rule.init(params) if state is None else state
    for step, gradient in enumerate(gradients):
        keywords = case.keywords(step) if case is not None else {}
        updates, state = rule.update(gradient, state, params, **keywords)
        params = optim.apply_updates(params, updates)
    return params, state


def close(got, want, **tolerances):
    """Equal trees, dtypes included."""
    tree.check_like(got, want, dtype=True)
    for (path, g), w in zip(tree.leaves_with_path(got), tree.leaves(want), strict=True):
        torch.testing.assert_close(g, w, msg=lambda text, path=path: f"{path}: {text}", **tolerances)
