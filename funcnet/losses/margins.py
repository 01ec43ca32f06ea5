"""Losses of one class of many that ask for a margin, or reach zero."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import check, check_floating, check_range, check_weights, of_class
from .simplex import unit_simplex

__all__ = [
    "multi_margin_loss",
    "multiclass_hinge_loss",
    "multiclass_perceptron_loss",
    "multiclass_sparsemax_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
]


def multiclass_hinge_loss(scores: Tensor, labels: Tensor) -> Tensor:
    r"""The best score, others with a head start of 1, minus that of the class: $\max_i (x_i + [i \ne y]) - x_y$.

    Crammer and Singer 2001. Scores are `(..., n)`, labels class numbers `(...)`, and so are the losses.

    >>> multiclass_hinge_loss(torch.tensor([[2.0, 1.5, 0.0]]), torch.tensor([0]))
    tensor([0.5000])
    """
    check_floating("multiclass_hinge_loss", scores=scores)
    own = of_class("multiclass_hinge_loss", scores, labels)
    return (scores + _others(scores, labels)).amax(-1) - own


def multiclass_perceptron_loss(scores: Tensor, labels: Tensor) -> Tensor:
    r"""The best score minus that of the class, $\max_i x_i - x_y$ (Collins 2002); shapes as in `multiclass_hinge_loss`.

    >>> multiclass_perceptron_loss(torch.tensor([[2.0, 1.5, 0.0]]), torch.tensor([1]))
    tensor([0.5000])
    """
    check_floating("multiclass_perceptron_loss", scores=scores)
    return scores.amax(-1) - of_class("multiclass_perceptron_loss", scores, labels)


def multiclass_sparsemax_loss(scores: Tensor, labels: Tensor) -> Tensor:
    r"""The loss of sparsemax probabilities $p$, $\langle p, x - x_y \rangle + \tfrac12 (1 - |p|^2)$.

    It is zero where the class leads by 1 (Martins and Astudillo, arXiv:1602.02068). Shapes as in
    `multiclass_hinge_loss`; optax takes one batch axis.

    >>> multiclass_sparsemax_loss(torch.tensor([[2.0, 0.5, 0.0], [0.0, 0.0, -9.0]]), torch.tensor([0, 0]))
    tensor([0.0000, 0.2500])
    """
    check_floating("multiclass_sparsemax_loss", scores=scores)
    ahead = scores - of_class("multiclass_sparsemax_loss", scores, labels)[..., None]
    p = unit_simplex(scores)
    # A score of minus infinity has no part in it.
    return (p * torch.where(p > 0, ahead, 0)).sum(-1) + 0.5 * (1 - (p**2).sum(-1))


def multi_margin_loss(
    scores: Tensor, labels: Tensor, *, p: int = 1, margin: float | Tensor = 1.0, weight: Tensor | None = None
) -> Tensor:
    r"""Every other class that comes too near, $\sum_{i \ne y} w_y \max(0, m - x_y + x_i)^p / n$: `nn.MultiMarginLoss`.

    Shapes as in `multiclass_hinge_loss`; `weight` is `(n,)`. Raises `ValueError` for a `p` that is neither 1 nor 2.

    >>> multi_margin_loss(torch.tensor([[2.0, 1.5, 0.0]]), torch.tensor([0]))
    tensor([0.1667])
    """
    check_floating("multi_margin_loss", scores=scores)
    if p not in (1, 2):
        raise ValueError(f"multi_margin_loss got p={p}: write 1 or 2.")
    own = of_class("multi_margin_loss", scores, labels)[..., None]
    check_weights("multi_margin_loss", "weight", weight, scores.shape[-1])
    loss = (torch.relu(margin - own + scores) ** p * _others(scores, labels)).sum(-1) / scores.shape[-1]
    return loss if weight is None else loss * of_class("multi_margin_loss", weight.expand(scores.shape), labels)


def multilabel_margin_loss(scores: Tensor, labels: Tensor) -> Tensor:
    r"""Each class that is right above each that is not, $\sum_{j \in Y, i \notin Y} \max(0, 1 - x_j + x_i) / n$.

    `torch.nn.MultiLabelMarginLoss`: labels are class numbers of the scores' shape `(..., n)`, and count up to the first
    negative one. One loss an example.

    >>> multilabel_margin_loss(torch.tensor([[0.1, 0.2, 0.4, 0.8]]), torch.tensor([[3, 0, -1, 1]]))
    tensor([0.8500])
    """
    check("multilabel_margin_loss", scores=scores, labels=labels)
    if not scores.ndim:
        raise ValueError("multilabel_margin_loss got scores of shape (), and needs one a class, (..., n).")
    if labels.is_floating_point():
        raise TypeError(f"multilabel_margin_loss got labels that are {labels.dtype}: write labels.long().")
    counted = (labels >= 0).cumprod(-1)
    numbers = torch.where(counted > 0, labels, 0).long()
    check_range("multilabel_margin_loss", "labels", numbers, scores.shape[-1])
    right = torch.zeros_like(scores).scatter_add(-1, numbers, counted.to(scores.dtype)) > 0
    own = scores.gather(-1, numbers)
    gaps = torch.relu(1 - own[..., :, None] + scores[..., None, :])
    pairs = (counted > 0)[..., :, None] & ~right[..., None, :]
    return torch.where(pairs, gaps, 0).sum((-2, -1)) / scores.shape[-1]


def multilabel_soft_margin_loss(logits: Tensor, labels: Tensor, *, weight: Tensor | None = None) -> Tensor:
    r"""The mean over classes of binary cross entropies: `torch.nn.MultiLabelSoftMarginLoss`.

    Labels are 0 or 1, of the logits' shape `(..., n)`; `weight` is `(n,)`. One loss an example.

    >>> multilabel_soft_margin_loss(torch.tensor([[0.0, 2.0]]), torch.tensor([[1, 1]]))
    tensor([0.4100])
    """
    check("multilabel_soft_margin_loss", logits=logits, labels=labels)
    if not logits.ndim:
        raise ValueError("multilabel_soft_margin_loss got logits of shape (), and needs one a class, (..., n).")
    check_weights("multilabel_soft_margin_loss", "weight", weight, logits.shape[-1])
    loss = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
    return (loss if weight is None else loss * weight).mean(-1)


def _others(scores: Tensor, labels: Tensor) -> Tensor:
    """1 for every class but that of the label."""
    return (torch.arange(scores.shape[-1], device=scores.device) != labels[..., None]).to(scores.dtype)
