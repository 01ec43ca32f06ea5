"""Losses of orders."""

from collections.abc import Callable

import torch
from torch import Tensor

from .arguments import check, elements, log_probabilities, over

__all__ = ["margin_ranking_loss", "ranking_softmax_loss"]


def ranking_softmax_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduce_fn: Callable[[Tensor], Tensor] | None = torch.mean,
) -> Tensor:
    r"""Relevances against a softmax of scores, $-\sum_i w_i y_i \log \mathrm{softmax}(x)_i$ (Cao et al. 2007, ListNet).

    Args:
        logits: scores `(..., n)` of the items of a list.
        labels: how relevant they are, of the same shape.
        where: which items there are, of the same shape.
        weights: of items, of the same shape.
        reduce_fn: what becomes of one loss a list: by default the mean over lists that have items, as in optax; any
            other function is given all losses, 0 for lists without items; None leaves them, `(...)`.

    Raises:
        ValueError: the shapes differ.

    >>> ranking_softmax_loss(torch.tensor([2.0, 1.0, 3.0]), torch.tensor([1.0, 0.0, 0.0]))
    tensor(1.4076)
    """
    given = {"labels": labels} | ({} if weights is None else {"weights": weights})
    check("ranking_softmax_loss", logits=logits, **given)
    mask = elements("ranking_softmax_loss", where, logits, -1)
    relevances = labels.to(logits.dtype) if weights is None else labels.to(logits.dtype) * weights
    losses = -(over(mask, relevances) * log_probabilities(logits, mask)).sum(-1)
    if reduce_fn is not None and not callable(reduce_fn):
        raise TypeError(f"reduce_fn is a {type(reduce_fn).__name__}, and must be a function, as torch.mean, or None.")
    if reduce_fn is None:
        return losses
    if reduce_fn is torch.mean and mask is not None:
        return losses.sum() / mask.any(-1).sum().clamp(min=1)
    return reduce_fn(losses)


def margin_ranking_loss(x1: Tensor, x2: Tensor, targets: Tensor, *, margin: float | Tensor = 0.0) -> Tensor:
    r"""The first should be above the second, target 1, or below, target -1: $\max(0, -y (x_1 - x_2) + m)$.

    `torch.nn.MarginRankingLoss`, elementwise.

    >>> margin_ranking_loss(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 0.5]), torch.tensor([1, -1]))
    tensor([0.0000, 0.5000])
    """
    check("margin_ranking_loss", x1=x1, x2=x2, targets=targets)
    return torch.relu(margin - targets * (x1 - x2))
