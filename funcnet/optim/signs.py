"""Descent by the gradients' signs, plain and with momentum."""

import torch

from .base import GradientTransformation, chain, stateless
from .leafwise import each, sign
from .moments import ema
from .scaling import scale_by_learning_rate
from .values import Scalar, ScalarOrSchedule

__all__ = ["scale_by_sign", "sign_sgd", "signum"]


def scale_by_sign() -> GradientTransformation:
    r"""The sign of every element, $u = \operatorname{sign}(g)$, which is $g / |g|$ for complex ones; NaN stays NaN.

    >>> scale_by_sign().update({"w": torch.tensor([3.0, 0.0, -0.1])}, ())[0]
    {'w': tensor([ 1.,  0., -1.])}
    """
    return stateless(lambda updates, params: each(sign, updates)[0])


def sign_sgd(learning_rate: ScalarOrSchedule) -> GradientTransformation:
    r"""Sign descent, $u = -\eta \operatorname{sign}(g)$ (Bernstein et al., arXiv:1802.04434).

    >>> optimizer = sign_sgd(0.1)
    >>> params = {"w": torch.zeros(2)}
    >>> optimizer.update({"w": torch.tensor([3.0, -0.1])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.1000,  0.1000])}
    """
    return chain(scale_by_sign(), scale_by_learning_rate(learning_rate))


def signum(
    learning_rate: ScalarOrSchedule, beta: Scalar = 0.9, accumulator_dtype: torch.dtype | None = None
) -> GradientTransformation:
    r"""Sign descent on the running mean of the gradients, $u = -\eta \operatorname{sign}(m)$ (arXiv:1802.04434).

    $m \leftarrow \beta m + (1 - \beta) g$, in `accumulator_dtype`.

    >>> optimizer = signum(0.1)
    >>> params = {"w": torch.zeros(2)}
    >>> optimizer.update({"w": torch.tensor([3.0, -0.1])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.1000,  0.1000])}
    """
    return chain(
        ema(beta, debias=False, accumulator_dtype=accumulator_dtype),
        scale_by_sign(),
        scale_by_learning_rate(learning_rate),
    )
