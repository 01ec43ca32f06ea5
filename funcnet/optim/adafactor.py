"""Adafactor."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..tree import PyTree, leaves, map
from .arguments import check_floating, stateful
from .base import GradientTransformation, chain, needed
from .clipping import clip_by_block_rms
from .leafwise import abs_sq, each, wide
from .moments import ema
from .scaling import scale, scale_by_learning_rate
from .values import Scalar, ScalarOrSchedule, increment, precise, scalar, zero_count
from .weights import MaskOrFn, add_decayed_weights, scale_by_param_block_rms

__all__ = ["FactoredState", "adafactor", "scale_by_factored_rms"]


class FactoredState(NamedTuple):
    """How many updates were made, and the running means of the squares: whole, or of rows and columns.

    What a parameter does not use is a zero of shape (1,).
    """

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""
    v_row: PyTree
    """the parameter without its longest axis"""
    v_col: PyTree
    """the parameter without its second longest axis"""
    v: PyTree
    """like the parameter, where it is not factored"""


def _power(count: Tensor, exponent: Scalar) -> Tensor:
    return 1 - (count + 1) ** -exponent


def scale_by_factored_rms(
    factored: bool = True,
    decay_rate: Scalar = 0.8,
    step_offset: int | Tensor = 0,
    min_dim_size_to_factor: int = 128,
    epsilon: Scalar = 1e-30,
    decay_rate_fn: Callable[[Tensor, Scalar], Scalar] = _power,
) -> GradientTransformation:
    r"""Divide by the root of a mean of squares, kept as its rows' and columns' (Shazeer and Stern, arXiv:1804.04235).

    With $d_t = 1 - t^{-c}$, $c$ = `decay_rate`, and $s = |g|^2 + \varepsilon$,

    $$R_t = d_t R_{t-1} + (1 - d_t) \operatorname{mean}_j s_{ij}, \quad
    C_t = d_t C_{t-1} + (1 - d_t) \operatorname{mean}_i s_{ij}, \quad
    u_{ij} = g_{ij} / \sqrt{R_i C_j / \operatorname{mean}(R)}$$

    over the two longest axes, where the shorter of them has at least `min_dim_size_to_factor` elements; else the mean
    is kept whole. `step_offset` is subtracted from the step count, for a run that goes on with fresh means.
    `decay_rate_fn(count, decay_rate)` gives another $d_t$; counts begin at 0. Optax takes $d_t$ in float32 always.

    >>> rule = scale_by_factored_rms(min_dim_size_to_factor=2)
    >>> params = {"w": torch.zeros(2, 2)}
    >>> updates, state = rule.update({"w": torch.tensor([[1.0, 2.0], [2.0, 4.0]])}, rule.init(params), params)
    >>> updates["w"], state.v_row["w"]
    (tensor([[1., 1.],
            [1., 1.]]), tensor([ 2.5000, 10.0000]))
    """
    scalar(decay_rate, "decay_rate"), scalar(epsilon, "epsilon")

    def axes(shape: torch.Size) -> tuple[int, int] | None:
        """The second longest axis and the longest, where the leaf is factored."""
        if not factored or len(shape) < 2:
            return None
        second, longest = sorted(range(len(shape)), key=lambda axis: shape[axis])[-2:]
        return (second, longest) if shape[second] >= min_dim_size_to_factor else None

    def zeros(p: Tensor, part: str) -> Tensor:
        found, dtype = axes(p.shape), wide(p.dtype).to_real()
        if part == "v":
            return torch.zeros_like(p, dtype=dtype) if found is None else p.new_zeros(1, dtype=dtype)
        if found is None:
            return p.new_zeros(1, dtype=dtype)
        left_out = found[1] if part == "v_row" else found[0]
        return p.new_zeros([n for axis, n in enumerate(p.shape) if axis != left_out], dtype=dtype)

    def init(params: PyTree) -> FactoredState:
        check_floating(leaves(params), params, "params")
        v_row, v_col, v = (map(lambda p, part=part: zeros(p, part), params) for part in ("v_row", "v_col", "v"))
        return FactoredState(count=zero_count(params), v_row=v_row, v_col=v_col, v=v)

    def update(
        updates: PyTree, state: FactoredState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, FactoredState]:
        decay = decay_rate_fn(state.count.to(precise(state.v)) - step_offset, decay_rate)

        def leaf(g: Tensor, row: Tensor, col: Tensor, v: Tensor, p: Tensor) -> tuple[Tensor, ...]:
            square, found = abs_sq(g) + epsilon, axes(p.shape)
            if found is None:
                v = decay * v + (1 - decay) * square
                return g / torch.sqrt(v), row, col, v
            second, longest = found
            row = decay * row + (1 - decay) * torch.mean(square, longest)
            col = decay * col + (1 - decay) * torch.mean(square, second)
            mean = torch.mean(row, second - 1 if second > longest else second, keepdim=True)
            rows, cols = torch.sqrt(row / mean).unsqueeze(longest), torch.sqrt(col).unsqueeze(second)
            return g / (rows * cols), row, col, v

        own = {"v_row": state.v_row, "v_col": state.v_col, "v": state.v}
        moved, v_row, v_col, v = each(leaf, updates, needed(params, "scale_by_factored_rms"), own=own)
        return moved, FactoredState(count=increment(state.count), v_row=v_row, v_col=v_col, v=v)

    return stateful(FactoredState, init, update)


def adafactor(
    learning_rate: ScalarOrSchedule | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: Scalar = 0.8,
    decay_offset: int | Tensor = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Scalar | None = 1.0,
    momentum: Scalar | None = None,
    dtype_momentum: torch.dtype = torch.float32,
    weight_decay_rate: ScalarOrSchedule | None = None,
    eps: Scalar = 1e-30,
    factored: bool = True,
    weight_decay_mask: MaskOrFn = None,
) -> GradientTransformation:
    r"""Adafactor: `scale_by_factored_rms`, with a memory of rows and columns (Shazeer and Stern, arXiv:1804.04235).

    Then, each where it is asked for: `clip_by_block_rms(clipping_threshold)`, the learning rate,
    `scale_by_param_block_rms()`, `ema(momentum)` without correction, and weight decay, which as in Optax is not
    multiplied by the learning rate; and the sign. `torch.optim.Adafactor` has other defaults and a relative step size.

    >>> optimizer = adafactor(0.1)
    >>> params = {"w": torch.full((2,), 2.0)}
    >>> optimizer.update({"w": torch.tensor([3.0, -1.0])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.2000,  0.2000])}
    """
    links = [scale_by_factored_rms(factored, decay_rate, decay_offset, min_dim_size_to_factor, eps)]
    if clipping_threshold is not None:
        links.append(clip_by_block_rms(clipping_threshold))
    if learning_rate is not None:
        links.append(scale_by_learning_rate(learning_rate, flip_sign=False))
    if multiply_by_parameter_scale:
        links.append(scale_by_param_block_rms())
    if momentum is not None:
        links.append(ema(momentum, debias=False, accumulator_dtype=dtype_momentum))
    if weight_decay_rate is not None:
        links.append(add_decayed_weights(weight_decay_rate, weight_decay_mask))
    return chain(*links, scale(-1.0))
