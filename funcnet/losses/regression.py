"""Losses of real numbers, and of directions."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import Axis, check, check_floating, check_numbers, elements, over, rows, total

__all__ = [
    "cosine_distance",
    "cosine_similarity",
    "gaussian_nll_loss",
    "huber_loss",
    "l1_loss",
    "l2_loss",
    "log_cosh",
    "poisson_nll_loss",
    "smooth_l1_loss",
    "squared_error",
]


def _errors(rule: str, predictions: Tensor, targets: Tensor | None) -> Tensor:
    check_floating(rule, predictions=predictions)
    if targets is None:
        return predictions
    check(rule, predictions=predictions, targets=targets)
    return predictions - (targets.to(predictions.dtype) if targets.dtype == torch.bool else targets)


def squared_error(predictions: Tensor, targets: Tensor | None = None) -> Tensor:
    """The squares $(x - y)^2$, elementwise; without targets $x^2$. Their mean is the MSE.

    Raises `ValueError` where the shapes differ, as all losses here do.

    >>> squared_error(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 5.0]))
    tensor([1., 9.])
    """
    return _errors("squared_error", predictions, targets) ** 2


def l2_loss(predictions: Tensor, targets: Tensor | None = None) -> Tensor:
    r"""Half the squares, $\tfrac12 (x - y)^2$, whose slope is the error itself.

    >>> l2_loss(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 5.0]))
    tensor([0.5000, 4.5000])
    """
    return 0.5 * _errors("l2_loss", predictions, targets) ** 2


def l1_loss(predictions: Tensor, targets: Tensor | None = None) -> Tensor:
    """The absolute errors $|x - y|$, elementwise: `torch.nn.L1Loss`. Optax has none.

    >>> l1_loss(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 5.0]))
    tensor([1., 3.])
    """
    return _errors("l1_loss", predictions, targets).abs()


def huber_loss(predictions: Tensor, targets: Tensor | None = None, *, delta: float | Tensor = 1.0) -> Tensor:
    r"""Half the square up to $\delta$, beyond it the straight line $\delta (|e| - \delta / 2)$ (Huber 1964).

    >>> huber_loss(torch.tensor([0.5, 3.0]))
    tensor([0.1250, 2.5000])
    """
    check_numbers("huber_loss", delta=delta)
    if not isinstance(delta, Tensor) and not delta >= 0:
        raise ValueError(f"huber_loss got delta={delta}, and needs at least 0: where the parabola ends.")
    size = _errors("huber_loss", predictions, targets).abs()
    near = size.clamp(max=delta)
    return 0.5 * near**2 + delta * (size - near)


def smooth_l1_loss(predictions: Tensor, targets: Tensor | None = None, *, beta: float = 1.0) -> Tensor:
    r"""The Huber loss divided by its bend $\beta$: `torch.nn.SmoothL1Loss` (Girshick, arXiv:1504.08083).

    With a `beta` of 0 it is `l1_loss`. Raises `ValueError` for a negative one.

    >>> smooth_l1_loss(torch.tensor([0.5, 3.0]))
    tensor([0.1250, 2.5000])
    """
    check_numbers("smooth_l1_loss", beta=beta)
    if beta < 0:
        raise ValueError(f"smooth_l1_loss got beta={beta}, and needs at least 0: where the parabola ends.")
    errors = _errors("smooth_l1_loss", predictions, targets)
    return F.smooth_l1_loss(errors, torch.zeros_like(errors), reduction="none", beta=beta)


def log_cosh(predictions: Tensor, targets: Tensor | None = None) -> Tensor:
    r"""$\log \cosh(x - y)$: like $e^2 / 2$ near 0 and $|e| - \log 2$ far away, smooth everywhere.

    Chen et al. 2019, openreview.net/forum?id=rkglvsC9Ym.

    >>> log_cosh(torch.tensor([0.0, 1000.0]))
    tensor([  0.0000, 999.3068])
    """
    errors = _errors("log_cosh", predictions, targets)
    return errors + F.softplus(-2 * errors, threshold=40) - math.log(2)


def poisson_nll_loss(
    predictions: Tensor, targets: Tensor, *, log_input: bool = True, full: bool = False, eps: float = 1e-8
) -> Tensor:
    r"""Minus the log-likelihood of counts under a Poisson law, $e^x - y x$: `torch.nn.PoissonNLLLoss`.

    With `log_input=False` the predictions are rates, $x - y \log(x + \varepsilon)$; `full` adds Stirling's
    approximation of $\log y!$ where $y > 1$.

    >>> poisson_nll_loss(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0]))
    tensor([ 1.0000, -0.2817])
    """
    check("poisson_nll_loss", predictions=predictions, targets=targets)
    return F.poisson_nll_loss(predictions, targets, log_input=log_input, full=full, eps=eps, reduction="none")


def gaussian_nll_loss(
    predictions: Tensor, targets: Tensor, var: Tensor, *, full: bool = False, eps: float = 1e-6
) -> Tensor:
    r"""Minus the log-likelihood under a normal law of variance $v$, $\tfrac12 (\log v + (x - y)^2 / v)$.

    `torch.nn.GaussianNLLLoss` (Nix and Weigend 1994), but that it does not look whether variances are negative: they
    are `eps` where smaller, with the slope of a constant. `var` has the shape of the predictions, or 1 for its last
    axis. `full` adds the constant $\tfrac12 \log 2 \pi$.

    >>> gaussian_nll_loss(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0]))
    tensor([0.5000, 0.0000])
    """
    check("gaussian_nll_loss", predictions=predictions, targets=targets)
    check_floating("gaussian_nll_loss", var=var)
    if var.shape != (*predictions.shape[:-1], 1):
        check("gaussian_nll_loss", predictions=predictions, var=var)
    variance = var.clamp(min=eps)
    loss = 0.5 * (variance.log() + (predictions - targets) ** 2 / variance)
    return loss + 0.5 * math.log(2 * math.pi) if full else loss


def cosine_similarity(
    predictions: Tensor,
    targets: Tensor,
    *,
    epsilon: float | Tensor = 0.0,
    axis: Axis = -1,
    where: Tensor | None = None,
) -> Tensor:
    r"""The cosine of the angle between vectors, $\langle x, y \rangle / (|x| |y|)$.

    Args:
        predictions: vectors along `axis`, `(..., n)`.
        targets: of the same shape.
        epsilon: the least *squared* length to divide by, as in optax; at 0 a vector of zeros gives NaN.
        axis: one axis, several or None for all.
        where: which elements count.

    Returns:
        The cosines, of shape `(...)`.

    >>> cosine_similarity(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 3.0], [2.0, 2.0]]))
    tensor([0.0000, 1.0000])
    """
    check("cosine_similarity", predictions=predictions, targets=targets)
    check_floating("cosine_similarity", targets=targets)
    check_numbers("cosine_similarity", epsilon=epsilon)
    mask = elements("cosine_similarity", where, predictions, axis)
    x, y = over(mask, rows(predictions, axis)), over(mask, rows(targets, axis))
    lengths = [(v**2).sum(-1, keepdim=True).clamp(min=epsilon).sqrt() for v in (x, y)]
    return total(x / lengths[0] * (y / lengths[1]), None)


def cosine_distance(
    predictions: Tensor,
    targets: Tensor,
    *,
    epsilon: float | Tensor = 0.0,
    axis: Axis = -1,
    where: Tensor | None = None,
) -> Tensor:
    r"""One minus `cosine_similarity`, which tells the arguments.

    >>> cosine_distance(torch.tensor([1.0, 0.0]), torch.tensor([-2.0, 0.0]))
    tensor(2.)
    """
    return 1 - cosine_similarity(predictions, targets, epsilon=epsilon, axis=axis, where=where)
