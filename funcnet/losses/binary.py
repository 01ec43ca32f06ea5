"""Losses of yes and no: a score for each label."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import check, check_numbers

__all__ = [
    "binary_cross_entropy",
    "hinge_loss",
    "perceptron_loss",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "soft_margin_loss",
    "sparsemax_loss",
]


def sigmoid_binary_cross_entropy(logits: Tensor, labels: Tensor, *, pos_weight: float | Tensor | None = None) -> Tensor:
    r"""Minus the log-likelihood of labels under $p = \sigma(x)$, $-w y \log p - (1 - y) \log(1 - p)$.

    `torch.nn.BCEWithLogitsLoss`, elementwise. Labels are 0 or 1, or probabilities. `pos_weight` is $w$: a number, or
    one for each class along the last axis. Raises `ValueError` where shapes differ: optax broadcasts.

    >>> sigmoid_binary_cross_entropy(torch.tensor([0.0, 1000.0]), torch.tensor([1, 0]))
    tensor([6.9315e-01, 1.0000e+03])
    """
    check("sigmoid_binary_cross_entropy", logits=logits, labels=labels)
    check_numbers("sigmoid_binary_cross_entropy", pos_weight=pos_weight)
    if pos_weight is not None:
        pos_weight = torch.as_tensor(pos_weight, dtype=logits.dtype, device=logits.device)
        if pos_weight.ndim and pos_weight.shape != logits.shape[-1:]:
            raise ValueError(
                f"sigmoid_binary_cross_entropy got pos_weight of shape {tuple(pos_weight.shape)}, and needs a "
                f"number or one for each class, {tuple(logits.shape[-1:])}."
            )
    labels = labels.to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, labels, pos_weight=pos_weight, reduction="none")


def binary_cross_entropy(predictions: Tensor, labels: Tensor) -> Tensor:
    r"""Minus the log-likelihood of labels under probabilities, $-y \log p - (1 - y) \log(1 - p)$: `torch.nn.BCELoss`.

    Logarithms stop at -100, as torch's do. With the logits at hand `sigmoid_binary_cross_entropy` is exact.

    >>> binary_cross_entropy(torch.tensor([0.5, 0.0]), torch.tensor([1.0, 1.0]))
    tensor([  0.6931, 100.0000])
    """
    check("binary_cross_entropy", predictions=predictions, labels=labels)
    return F.binary_cross_entropy(predictions, labels.to(predictions.dtype), reduction="none")


def sigmoid_focal_loss(
    logits: Tensor, labels: Tensor, *, alpha: float | Tensor | None = None, gamma: float | Tensor = 2.0
) -> Tensor:
    r"""Cross entropy that fades where the prediction is right, $-\alpha_t (1 - p_t)^\gamma \log p_t$.

    $p_t$ is the probability of the label, $\alpha_t$ is $\alpha$ for 1 and $1 - \alpha$ for 0 (Lin et al.,
    arXiv:1708.02002). Labels may lie between. Elementwise; raises `ValueError` where shapes differ.

    >>> sigmoid_focal_loss(torch.tensor([0.0, 5.0]), torch.tensor([1, 1]))
    tensor([1.7329e-01, 3.0081e-07])
    """
    check("sigmoid_focal_loss", logits=logits, labels=labels)
    check_numbers("sigmoid_focal_loss", alpha=alpha, gamma=gamma)
    labels = labels.to(logits.dtype)
    loss = sigmoid_binary_cross_entropy(logits, labels)
    # log((1 - y) p + y (1 - p)), with what has no weight left out, so that its exponential cannot overflow.
    wrong_if_no = torch.where(labels == 1, -torch.inf, F.logsigmoid(logits))
    wrong_if_yes = torch.where(labels == 0, -torch.inf, F.logsigmoid(-logits))
    largest = torch.maximum(wrong_if_no, wrong_if_yes).detach()
    parts = (1 - labels) * torch.exp(wrong_if_no - largest) + labels * torch.exp(wrong_if_yes - largest)
    loss = loss * torch.exp(gamma * (largest + torch.log(parts)))
    return loss if alpha is None else (alpha * labels + (1 - alpha) * (1 - labels)) * loss


def hinge_loss(predictor_outputs: Tensor, targets: Tensor) -> Tensor:
    r"""$\max(0, 1 - x y)$ for targets of -1 and 1, elementwise.

    Raises `ValueError` where shapes differ: optax broadcasts.

    >>> hinge_loss(torch.tensor([0.5, 2.0]), torch.tensor([1.0, -1.0]))
    tensor([0.5000, 3.0000])
    """
    check("hinge_loss", predictor_outputs=predictor_outputs, targets=targets)
    return torch.relu(1 - predictor_outputs * targets)


def perceptron_loss(predictor_outputs: Tensor, targets: Tensor) -> Tensor:
    r"""$\max(0, -x y)$ for targets of -1 and 1, elementwise (Rosenblatt 1958).

    >>> perceptron_loss(torch.tensor([0.5, 2.0]), torch.tensor([1.0, -1.0]))
    tensor([0., 2.])
    """
    check("perceptron_loss", predictor_outputs=predictor_outputs, targets=targets)
    return torch.relu(-predictor_outputs * targets)


def soft_margin_loss(predictor_outputs: Tensor, targets: Tensor) -> Tensor:
    r"""$\log(1 + e^{-x y})$ for targets of -1 and 1: `torch.nn.SoftMarginLoss`, which overflows far from 0.

    >>> soft_margin_loss(torch.tensor([0.0, 1000.0]), torch.tensor([1.0, -1.0]))
    tensor([6.9315e-01, 1.0000e+03])
    """
    check("soft_margin_loss", predictor_outputs=predictor_outputs, targets=targets)
    return F.softplus(-predictor_outputs * targets, threshold=40)


def sparsemax_loss(logits: Tensor, labels: Tensor) -> Tensor:
    r"""The binary loss that reaches zero, at a margin of 1: $0$, $(z + 1)^2 / 4$ for $|z| < 1$, $z$.

    $z$ is the logit, negated for the label 1 (Blondel et al., arXiv:1901.02324, section 4.4). Elementwise.

    >>> sparsemax_loss(torch.tensor([0.0, 2.0, 2.0]), torch.tensor([1, 1, 0]))
    tensor([0.2500, 0.0000, 2.0000])
    """
    check("sparsemax_loss", logits=logits, labels=labels)
    wrong = torch.where(labels != 0, -logits, logits)
    return torch.where(wrong >= 1, wrong, (wrong.clamp(-1, 1) + 1) ** 2 / 4)
