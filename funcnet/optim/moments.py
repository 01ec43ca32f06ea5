"""Running means: a transformation of its own, and the arithmetic for rules that you write yourself."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..tree import PyTree, check_like, map
from .arguments import stateful
from .base import GradientTransformation, chain, stateless
from .leafwise import abs_sq, each, moment_zeros, unbiased
from .values import Scalar, correction, decay_rate, increment, precise, scalar, zero_count

__all__ = [
    "EmaState",
    "bias_correction",
    "ema",
    "measure_with_ema",
    "update_infinity_moment",
    "update_moment",
    "update_moment_per_elem_norm",
]


class EmaState(NamedTuple):
    """How many updates were made, and their running mean."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""
    ema: PyTree
    """like the parameters"""


def ema(decay: Scalar, debias: bool = True, accumulator_dtype: torch.dtype | None = None) -> GradientTransformation:
    r"""The running mean of the updates, $m_t = d m_{t-1} + (1 - d) g_t$ and $u_t = m_t / (1 - d^t)$.

    With `debias=False`, $u_t = m_t$. The mean has `accumulator_dtype`, by default the parameter's, and float32 for
    half-precision parameters. `trace` is the sum in place of the mean.

    >>> rule = ema(0.9)
    >>> params = {"w": torch.ones(1)}
    >>> updates, state = rule.update({"w": torch.ones(1)}, rule.init(params), params)
    >>> updates["w"], state.ema["w"]
    (tensor([1.]), tensor([0.1000]))
    """
    decay_rate(decay, "decay")

    def init(params: PyTree) -> EmaState:
        return EmaState(count=zero_count(params), ema=moment_zeros(params, accumulator_dtype))

    def update(updates: PyTree, state: EmaState, params: PyTree = None, **extra: Any) -> tuple[PyTree, EmaState]:
        count = increment(state.count)
        mean = unbiased(decay, count, precise(state.ema))

        def leaf(g: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
            m = decay * m + (1 - decay) * g
            return (mean(m, g) if debias else m), m

        moved, means = each(leaf, updates, ema=state.ema)
        return moved, EmaState(count=count, ema=means)

    return stateful(EmaState, init, update)


def measure_with_ema(
    measure: Callable[[PyTree], PyTree],
    decay: Scalar,
    debias: bool = True,
    accumulator_dtype: torch.dtype | None = None,
) -> GradientTransformation:
    """The running mean of a function of the updates, as `ema` takes it: a measurement for `monitor`.

    Its updates are the mean, so it is no link of a chain.

    >>> lengths = measure_with_ema(lambda updates: torch.linalg.vector_norm(updates["w"]), 0.9)
    >>> params = {"w": torch.ones(2)}
    >>> lengths.update({"w": torch.tensor([3.0, 4.0])}, lengths.init(params), params)[0]
    tensor(5.)
    """

    def measured(updates: PyTree) -> PyTree:
        found = map(torch.as_tensor, measure(updates))
        return map(lambda t: t if t.is_floating_point() else t.float(), found)  # truth values, and counts

    mean = ema(decay, debias, accumulator_dtype)
    started = mean._replace(init=lambda params: mean.init(measured(params)))
    return chain(stateless(lambda updates, params: measured(updates)), started)


def bias_correction(moment: PyTree, decay: Scalar, count: int | Tensor) -> PyTree:
    r"""A running mean that began at zero, divided by $1 - d^t$ after $t$ = `count` steps.

    >>> bias_correction({"w": torch.tensor([0.1])}, 0.9, 1)
    {'w': tensor([1.])}
    """
    factor = correction(decay_rate(decay, "decay"), torch.as_tensor(count), precise(moment))
    return map(lambda m: (m / factor).to(m.dtype), moment)


def update_moment(updates: PyTree, moments: PyTree, decay: Scalar, order: int) -> PyTree:
    r"""The running mean of a power of the updates, $m \leftarrow d m + (1 - d) g^n$.

    >>> update_moment({"w": torch.tensor([2.0])}, {"w": torch.tensor([1.0])}, 0.5, 2)
    {'w': tensor([2.5000])}
    """
    return _moved(lambda g, m: (1 - decay) * g**order + decay * m, updates, moments, decay)


def update_moment_per_elem_norm(updates: PyTree, moments: PyTree, decay: Scalar, order: int) -> PyTree:
    r"""The running mean of a power of the updates' absolute values, $m \leftarrow d m + (1 - d) |g|^n$.

    It is real for complex updates; for real ones, as in Optax, it is `update_moment`.

    >>> update_moment_per_elem_norm({"w": torch.tensor([2j])}, {"w": torch.tensor([1.0])}, 0.5, 2)
    {'w': tensor([2.5000])}
    """

    def power(g: Tensor) -> Tensor:
        return abs_sq(g) ** (order / 2) if g.is_complex() else g**order

    return _moved(lambda g, m: (1 - decay) * power(g) + decay * m, updates, moments, decay)


def update_infinity_moment(updates: PyTree, moments: PyTree, decay: Scalar, eps: Scalar) -> PyTree:
    r"""The decaying maximum of the updates' absolute values, $m \leftarrow \max(|g| + \varepsilon, d m)$.

    >>> update_infinity_moment({"w": torch.tensor([-2.0])}, {"w": torch.tensor([3.0])}, 0.5, 0.0)
    {'w': tensor([2.])}
    """
    return _moved(lambda g, m: torch.maximum(torch.abs(g) + eps, decay * m), updates, moments, decay)


def _moved(rule: Callable[[Tensor, Tensor], Tensor], updates: PyTree, moments: PyTree, decay: Scalar) -> PyTree:
    scalar(decay, "decay")
    check_like(moments, updates, "moments", "updates")
    return map(rule, updates, moments)
