"""How far one distribution is from another."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from .arguments import Axis, check, check_floating, elements, over, rows, total

__all__ = [
    "convex_kl_divergence",
    "generalized_kl_divergence",
    "kl_divergence",
    "kl_divergence_with_log_targets",
    "make_fenchel_young_loss",
]


def kl_divergence(log_predictions: Tensor, targets: Tensor, axis: Axis = -1, where: Tensor | None = None) -> Tensor:
    r"""Of predictions from a target distribution, $\sum_i p_i (\log p_i - \ell_i)$, with $0 \log 0 = 0$.

    Kullback and Leibler 1951. `torch.nn.KLDivLoss`, summed.

    Args:
        log_predictions: logarithms of probabilities $\ell$, `(..., n)` along `axis`.
        targets: probabilities $p$ of the same shape; `ValueError` for another.
        axis: one axis, several or None for all.
        where: which elements count, of the same shape or of `(...)`.

    Returns:
        One divergence an example, `(...)`.

    >>> kl_divergence(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[1.0, 0.0]]))
    tensor([0.6931])
    """
    logs, p, mask = _pair("kl_divergence", log_predictions, targets, axis, where)
    return total(_divergence(logs, p), mask)


def kl_divergence_with_log_targets(
    log_predictions: Tensor, log_targets: Tensor, axis: Axis = -1, where: Tensor | None = None
) -> Tensor:
    r"""`kl_divergence` from the logarithms of the target, $\sum_i e^{t_i} (t_i - \ell_i)$.

    >>> kl_divergence_with_log_targets(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.75, 0.25]).log())
    tensor(0.1308)
    """
    logs, target, mask = _pair("kl_divergence_with_log_targets", log_predictions, log_targets, axis, where)
    return total(log_weighted(target, logs), mask)


def generalized_kl_divergence(
    log_predictions: Tensor, targets: Tensor, axis: Axis = -1, where: Tensor | None = None
) -> Tensor:
    r"""`kl_divergence` for what need not sum to 1, $\sum_i p_i (\log p_i - \ell_i) + e^{\ell_i} - p_i$.

    The Bregman divergence of $x \log x - x$, never negative (Boyd and Vandenberghe, Convex Optimization, p. 90).

    >>> generalized_kl_divergence(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0]))
    tensor(0.)
    """
    logs, p, mask = _pair("generalized_kl_divergence", log_predictions, targets, axis, where)
    return total(_divergence(logs, p) + logs.exp() - p, mask)


convex_kl_divergence = generalized_kl_divergence
"""The name that optax had for it."""


def make_fenchel_young_loss(max_fun: Callable[..., Tensor]) -> Callable[..., Tensor]:
    r"""The loss of a function like a maximum, $\Omega^*(x) - \langle y, x \rangle$ (Blondel et al., arXiv:1901.02324).

    `max_fun` takes one vector of scores; the loss takes scores and targets `(..., n)` of one shape, with further
    arguments for `max_fun`, and gives `(...)`. It lacks $\Omega(y)$, which does not depend on the scores, and its slope
    is $\nabla \Omega^*(x) - y$.

    >>> loss = make_fenchel_young_loss(lambda scores: scores.logsumexp(-1))
    >>> loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([0.1269])
    """

    if not callable(max_fun):
        raise TypeError(f"max_fun is a {type(max_fun).__name__}, and must be a function of a vector.")

    def fenchel_young_loss(scores: Tensor, targets: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check("fenchel_young_loss", scores=scores, targets=targets)
        best: Callable[[Tensor], Tensor] = lambda vector: max_fun(vector, *args, **kwargs)  # noqa: E731 - wrapped below
        for _ in scores.shape[:-1]:
            best = vmap(best)
        return best(scores) - (targets * scores).sum(-1)

    return fenchel_young_loss


def _pair(
    rule: str, log_predictions: Tensor, targets: Tensor, axis: Axis, where: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    check(rule, log_predictions=log_predictions, targets=targets)
    check_floating(rule, targets=targets)
    mask = elements(rule, where, log_predictions, axis)
    return over(mask, rows(log_predictions, axis)), over(mask, rows(targets, axis)), mask


def _divergence(logs: Tensor, p: Tensor) -> Tensor:
    # Inside the product, so that the slope at 0 is finite, and 0 times minus infinity never formed.
    none = p == 0
    return p * (torch.where(none, 1, p).log() - torch.where(none & (logs == -torch.inf), 0, logs))


def log_weighted(target: Tensor, logs: Tensor) -> Tensor:
    """The terms of a divergence from logarithms, `exp(target) (target - logs)`, 0 where the target is impossible."""
    none = target == -torch.inf
    # Both sides, since their difference, infinity less infinity, would be NaN in the derivative as well.
    gap = torch.where(none, 0, target) - torch.where(none & (logs == -torch.inf), 0, logs)
    return target.exp() * gap
