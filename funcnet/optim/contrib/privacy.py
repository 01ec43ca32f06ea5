"""Differential privacy: gradients clipped one example at a time, and noise."""

from typing import Any, NamedTuple

from torch import Tensor

from ... import random
from ...tree import PyTree, flatten, unflatten
from ..arguments import nonnegative, stateful
from ..base import GradientTransformation, chain, identity
from ..clipping import clipped_sums
from ..scaling import scale_by_learning_rate
from ..sgd import trace
from ..values import Scalar, ScalarOrSchedule

__all__ = ["DifferentiallyPrivateAggregateState", "differentially_private_aggregate", "dpsgd"]


class DifferentiallyPrivateAggregateState(NamedTuple):
    """The key that the next noise is drawn from."""

    rng_key: Tensor


def differentially_private_aggregate(
    l2_norm_clip: Scalar, noise_multiplier: Scalar, key: Tensor | int | None = None, *, seed: int | None = None
) -> GradientTransformation:
    r"""The mean of clipped per-example gradients, with noise (Abadi et al., arXiv:1607.00133).

    $$u = \frac1n \left( \sum_{i=1}^n g_i \min\left(1, \frac{C}{\lVert g_i \rVert}\right) + \sigma C \epsilon \right),
    \quad \epsilon \sim N(0, 1)$$

    Must be first in its chain: its updates are gradients of single examples, with an axis for them in front, as
    `per_example_grad` gives. `l2_norm_clip` is $C$, `noise_multiplier` $\sigma$. `key` (a key or an integer; optax
    calls it `seed` too) must be given: noise that all the world knows hides nothing.

    Raises `ValueError` for no key or two, or gradients without one leading axis.

    >>> import torch
    >>> rule = differentially_private_aggregate(1.0, 0.0, key=0)
    >>> params = {"w": torch.zeros(2)}
    >>> rule.update({"w": torch.tensor([[3.0, 4.0], [0.0, 0.2]])}, rule.init(params), params)[0]
    {'w': tensor([0.3000, 0.5000])}
    """
    nonnegative(l2_norm_clip, "l2_norm_clip"), nonnegative(noise_multiplier, "noise_multiplier")
    if (key is None) == (seed is None):
        raise ValueError("differentially_private_aggregate needs one key: write key=0, or better one from your own.")
    given: Any = seed if key is None else key
    first = given if isinstance(given, Tensor) else random.key(given)

    def init(params: PyTree) -> DifferentiallyPrivateAggregateState:
        return DifferentiallyPrivateAggregateState(rng_key=first.clone())

    def update(
        updates: PyTree, state: DifferentiallyPrivateAggregateState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, DifferentiallyPrivateAggregateState]:
        sums, _ = clipped_sums(updates, l2_norm_clip)
        values, treedef = flatten(sums)
        examples = flatten(updates)[0]
        size = len(examples[0])
        new, *keys = random.split(state.rng_key, len(values) + 1)
        deviation = l2_norm_clip * noise_multiplier
        # Sums and noise are in float32 at least and rounded once: bfloat16 has 128 normal numbers, and the guarantee is
        # one for noise of the normal law.
        noisy = [
            ((value + deviation * random.normal(k, value.shape, value.dtype)) / size).to(g.dtype)
            for k, value, g in zip(keys, values, examples, strict=True)
        ]
        return unflatten(treedef, noisy), DifferentiallyPrivateAggregateState(rng_key=new)

    return stateful(DifferentiallyPrivateAggregateState, init, update)


def dpsgd(
    learning_rate: ScalarOrSchedule,
    l2_norm_clip: Scalar,
    noise_multiplier: Scalar,
    seed: int,
    momentum: Scalar | None = None,
    nesterov: bool = False,
) -> GradientTransformation:
    r"""Differentially private gradient descent: `sgd` of `differentially_private_aggregate` (arXiv:1607.00133).

    Its gradients are those of single examples, with an axis for them in front.

    >>> import torch
    >>> optimizer = dpsgd(0.1, 1.0, 0.0, seed=0)
    >>> params = {"w": torch.zeros(2)}
    >>> optimizer.update({"w": torch.tensor([[3.0, 4.0], [0.0, 0.2]])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.0300, -0.0500])}
    """
    return chain(
        differentially_private_aggregate(l2_norm_clip, noise_multiplier, seed=seed),
        identity() if momentum is None else trace(momentum, nesterov),
        scale_by_learning_rate(learning_rate),
    )
