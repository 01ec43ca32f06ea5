"""Losses of one class of many: cross entropies."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import (
    Axis,
    check,
    check_floating,
    check_numbers,
    check_range,
    check_weights,
    elements,
    log_probabilities,
    of_class,
    rows,
    total,
)
from .divergences import log_weighted

__all__ = [
    "cross_entropy",
    "distillation_loss",
    "nll_loss",
    "poly_loss_cross_entropy",
    "safe_softmax_cross_entropy",
    "smooth_labels",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
]


def softmax_cross_entropy(logits: Tensor, labels: Tensor, axis: Axis = -1, where: Tensor | None = None) -> Tensor:
    r"""Cross entropy of probabilities $y$ with a softmax, $-\sum_i y_i \log \mathrm{softmax}(x)_i$.

    Args:
        logits: `(..., n)`, the classes along `axis`.
        labels: probabilities of the same shape, such as `one_hot`; `ValueError` for another (optax broadcasts).
        axis: one axis, several or None for all.
        where: which elements count, of the logits' shape or of `(...)`.

    Returns:
        One loss an example, `(...)`. A logit of minus infinity gives NaN: see `safe_softmax_cross_entropy`.

    >>> softmax_cross_entropy(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([0.1269])
    """
    check("softmax_cross_entropy", logits=logits, labels=labels)
    mask = elements("softmax_cross_entropy", where, logits, axis)
    return -total(rows(labels, axis) * log_probabilities(rows(logits, axis), mask), mask)


def softmax_cross_entropy_with_integer_labels(
    logits: Tensor, labels: Tensor, axis: int | tuple[int, ...] = -1, where: Tensor | None = None
) -> Tensor:
    r"""Cross entropy of class numbers with a softmax, $\log \sum_i e^{x_i} - x_y$.

    Args:
        logits: `(..., n)`, the classes along `axis`.
        labels: integers `(...)`; with several axes, of the flat index along them.
        axis: one axis or several.
        where: which elements count, of the logits' shape or of `(...)`; where none does the loss is 0.

    Returns:
        One loss an example, `(...)`. See `cross_entropy` for class weights and labels to ignore.

    >>> softmax_cross_entropy_with_integer_labels(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
    tensor([0.1269])
    """
    rule = "softmax_cross_entropy_with_integer_labels"
    check_floating(rule, logits=logits)
    mask, flat = elements(rule, where, logits, axis), rows(logits, axis)
    own = of_class(rule, flat, labels)
    if mask is None:
        return flat.logsumexp(-1) - own
    some = mask.any(-1)
    return torch.where(some, torch.where(mask | ~some[..., None], flat, -torch.inf).logsumexp(-1) - own, 0)


def safe_softmax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    r"""`softmax_cross_entropy` with $0 \log 0 = 0$: a logit of minus infinity is a class that cannot be.

    >>> safe_softmax_cross_entropy(torch.tensor([0.0, 0.0, -torch.inf]), torch.tensor([1.0, 0.0, 0.0]))
    tensor(0.6931)
    """
    check("safe_softmax_cross_entropy", logits=logits, labels=labels)
    logs = F.log_softmax(logits, -1)
    return -(labels * torch.where((labels == 0) & (logs == -torch.inf), 0, logs)).sum(-1)


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Tensor:
    r"""`torch.nn.CrossEntropyLoss` without its mean: weights for classes, labels to ignore, smoothing.

    $-w_y \log \mathrm{softmax}(x)_y$; with smoothing $s$ the label is $1 - s + s / n$ and every other $s / n$.

    Args:
        logits: `(..., n)`, the classes along `axis`, by default the last; torch has them in axis 1.
        labels: class numbers `(...)`, or probabilities of the logits' shape.
        weight: one for each class, `(n,)`.
        ignore_index: the loss of class numbers equal to it is 0.
        label_smoothing: $s$, between 0 and 1.
        axis: that of the classes.

    Returns:
        One loss an example, `(...)`. Torch's mean divides by the weights of the labels:
        `loss.sum() / weight[labels].sum()`.

    >>> cross_entropy(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, -100]))
    tensor([0.1269, 0.0000])
    """
    check_floating("cross_entropy", logits=logits)
    check_numbers("cross_entropy", label_smoothing=label_smoothing)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy got label_smoothing={label_smoothing}, and needs a part, from 0 to 1.")
    flat = rows(logits, axis)
    check_weights("cross_entropy", "weight", weight, flat.shape[-1])
    if not isinstance(labels, Tensor):
        raise TypeError(f"cross_entropy got labels that are a {type(labels).__name__}: write torch.tensor(labels).")
    if labels.is_floating_point():
        check("cross_entropy", logits=logits, labels=labels)
        labels = rows(labels, axis).reshape(-1, flat.shape[-1])
    elif labels.shape != flat.shape[:-1]:
        raise ValueError(
            f"cross_entropy got labels of shape {tuple(labels.shape)} for logits of {tuple(logits.shape)}: class "
            f"numbers need {tuple(flat.shape[:-1])}, and probabilities a floating dtype and the logits' shape."
        )
    else:
        labels = labels.reshape(-1).long()
        check_range("cross_entropy", "labels", torch.where(labels == ignore_index, 0, labels), flat.shape[-1])
    loss = F.cross_entropy(
        flat.reshape(-1, flat.shape[-1]),
        labels,
        weight,
        ignore_index=ignore_index,
        reduction="none",
        label_smoothing=label_smoothing,
    )
    return loss.reshape(flat.shape[:-1])


def nll_loss(
    log_predictions: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    axis: int = -1,
) -> Tensor:
    r"""Minus the log-probability of the class, $-w_y \ell_y$: `torch.nn.NLLLoss`; arguments as in `cross_entropy`.

    >>> nll_loss(torch.tensor([[0.25, 0.75]]).log(), torch.tensor([1]))
    tensor([0.2877])
    """
    check_floating("nll_loss", log_predictions=log_predictions)
    if not isinstance(labels, Tensor):
        raise TypeError(f"nll_loss got labels that are a {type(labels).__name__}: write torch.tensor(labels).")
    # As int64, since a narrower type would turn the index round: uint8 makes 156 of -100.
    flat, ignored = rows(log_predictions, axis), (labels if labels.is_complex() else labels.long()) == ignore_index
    check_weights("nll_loss", "weight", weight, flat.shape[-1])
    known = torch.where(ignored, 0, labels)
    loss = -of_class("nll_loss", flat if weight is None else flat * weight, known)
    return torch.where(ignored, 0, loss)


def poly_loss_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    epsilon: float | Tensor = 2.0,
    axis: Axis = -1,
    where: Tensor | None = None,
) -> Tensor:
    r"""Cross entropy and its first polynomial once more, $-\log p_y + \varepsilon (1 - p_y)$.

    Leng et al., arXiv:2204.12511. Arguments as in `softmax_cross_entropy`; the paper's `epsilon` is 2 for ImageNet and
    -1 for detection.

    >>> poly_loss_cross_entropy(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([0.3653])
    """
    check("poly_loss_cross_entropy", logits=logits, labels=labels)
    check_floating("poly_loss_cross_entropy", labels=labels)
    check_numbers("poly_loss_cross_entropy", epsilon=epsilon)
    mask = elements("poly_loss_cross_entropy", where, logits, axis)
    logs, truth = log_probabilities(rows(logits, axis), mask), rows(labels, axis)
    return total(truth * (epsilon * (1 - logs.exp()) - logs), mask)


def distillation_loss(
    logits: Tensor, teacher_logits: Tensor, *, temperature: float | Tensor = 1.0, axis: Axis = -1
) -> Tensor:
    r"""How far a student is from its teacher, $T^2\, \mathrm{KL}(\mathrm{softmax}(t / T) \| \mathrm{softmax}(x / T))$.

    Hinton et al., arXiv:1503.02531: $T^2$ keeps the slopes of one size for every temperature. Mix it with the cross
    entropy of the labels as you like. Gradients go to the teacher too, unless you stop them. One loss an example.

    >>> distillation_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[2.0, 0.0]]), temperature=4.0)
    tensor([0.])
    """
    check("distillation_loss", logits=logits, teacher_logits=teacher_logits)
    check_numbers("distillation_loss", temperature=temperature)
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ValueError(f"distillation_loss got temperature={temperature}, and needs more than 0.")
    student, teacher = (F.log_softmax(rows(x, axis) / temperature, -1) for x in (logits, teacher_logits))
    return temperature**2 * log_weighted(teacher, student).sum(-1)


def smooth_labels(labels: Tensor, alpha: float | Tensor, *, axis: Axis = -1, where: Tensor | None = None) -> Tensor:
    r"""Probabilities mixed with equal ones, $(1 - \alpha) y + \alpha / n$ (Müller et al., arXiv:1906.02629).

    `where` tells which of the classes count in $n$. The shape stays.

    >>> smooth_labels(torch.tensor([0.0, 1.0]), 0.1)
    tensor([0.0500, 0.9500])
    """
    check_floating("smooth_labels", labels=labels)
    check_numbers("smooth_labels", alpha=alpha)
    if not isinstance(alpha, Tensor) and not 0 <= alpha <= 1:
        raise ValueError(f"smooth_labels got alpha={alpha}, and needs a part, from 0 to 1.")
    axes = tuple(range(labels.ndim)) if axis is None else axis
    if where is None:
        return (1 - alpha) * labels + alpha / rows(labels, axis).shape[-1]
    check("smooth_labels", labels=labels, where=where)
    return (1 - alpha) * labels + alpha / where.sum(axes, keepdim=True).to(labels.dtype)
