"""Losses of regions: Dice."""

import torch
from torch import Tensor

from .arguments import check, check_floating, check_weights, rows

__all__ = ["binary_dice_loss", "dice_loss", "multiclass_generalized_dice_loss"]


def dice_loss(
    predictions: Tensor,
    targets: Tensor,
    *,
    class_weights: Tensor | None = None,
    smooth: float | Tensor = 1.0,
    alpha: float | Tensor = 0.5,
    beta: float | Tensor = 0.5,
    apply_softmax: bool = True,
    reduction: str = "mean",
    ignore_background: bool = False,
    axis: int | tuple[int, ...] | None = None,
) -> Tensor:
    r"""How little two regions overlap, $1 - (I + s) / (I + \alpha (P - I) + \beta (T - I) + s)$ for each class.

    $I = \sum_i p_i t_i$, $P = \sum_i p_i$ and $T = \sum_i t_i$ over the pixels. Both weights at one half give Dice
    (Milletari et al., arXiv:1606.04797), others Tversky (Salehi et al., arXiv:1706.05721).

    Args:
        predictions: logits `(batch, ..., classes)`; with one class, their sigmoid is taken, else their softmax. The
            last axis may be missing where the other argument has it.
        targets: one-hot, of the same shape.
        class_weights: `(classes,)`.
        smooth: $s$, which keeps the quotient from 0 / 0.
        alpha: the weight of what is predicted and not there.
        beta: the weight of what is there and not predicted.
        apply_softmax: False where the predictions are probabilities. Optax then looks whether they sum to 1.
        reduction: over the classes: "mean", "sum" or "none".
        ignore_background: leave out class 0.
        axis: that of the pixels; by default all but the first and the last.

    Returns:
        `(batch,)`, or `(batch, classes)` for "none".

    >>> logits, truth = torch.tensor([[[9.0, -9.0], [9.0, -9.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> dice_loss(logits, truth)
    tensor([0.2667])
    """
    targets = _checked("dice_loss", predictions, targets)
    if predictions.ndim == targets.ndim - 1:
        predictions = predictions[..., None]
    if targets.ndim == predictions.ndim - 1:
        targets = targets[..., None]
    check("dice_loss", predictions=predictions, targets=targets)
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'dice_loss got reduction={reduction!r}: write "mean", "sum" or "none".')
    classes = predictions.shape[-1]
    check_weights("dice_loss", "class_weights", class_weights, classes)
    p = predictions
    if apply_softmax:
        p = torch.sigmoid(p) if classes == 1 else torch.softmax(p, -1)
    axes = tuple(range(1, p.ndim - 1)) if axis is None else axis
    if axes != ():  # to torch an empty tuple means all axes
        rows(p, axes)  # which looks at the axes
        overlap, predicted, true = (x.sum(axes) for x in (p * targets, p, targets))
    else:
        overlap, predicted, true = p * targets, p, targets
    loss = 1 - (overlap + smooth) / (overlap + alpha * (predicted - overlap) + beta * (true - overlap) + smooth)
    if class_weights is not None:
        loss = loss * class_weights
    if ignore_background and classes > 1:
        loss = loss[..., 1:]
    return loss if reduction == "none" else loss.mean(-1) if reduction == "mean" else loss.sum(-1)


def multiclass_generalized_dice_loss(
    predictions: Tensor,
    targets: Tensor,
    *,
    smooth: float | Tensor = 1.0,
    apply_softmax: bool = True,
    ignore_background: bool = False,
) -> Tensor:
    r"""`dice_loss` with each class weighted by $1 / T^2$, rare ones most: one number (Sudre et al., arXiv:1707.03237).

    The weights come from the whole batch and are scaled to a mean of 1; the loss is the mean over batch and classes.

    >>> logits, truth = torch.tensor([[[9.0, -9.0], [9.0, -9.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> multiclass_generalized_dice_loss(logits, truth)
    tensor(0.2667)
    """
    targets = _checked("multiclass_generalized_dice_loss", predictions, targets)
    check("multiclass_generalized_dice_loss", predictions=predictions, targets=targets)
    weights = 1 / (targets.reshape(-1, targets.shape[-1]).sum(0) ** 2 + 1e-7)
    weights = weights / weights.mean()
    return dice_loss(
        predictions,
        targets,
        class_weights=weights,
        smooth=smooth,
        apply_softmax=apply_softmax,
        reduction="none",
        ignore_background=ignore_background,
    ).mean()


def binary_dice_loss(
    predictions: Tensor, targets: Tensor, *, smooth: float | Tensor = 1.0, apply_sigmoid: bool = True
) -> Tensor:
    """`dice_loss` of one class; the last axis of 1 may be missing in both.

    Predictions are logits, or with `apply_sigmoid=False` probabilities, which optax refuses unless all are 1.

    >>> binary_dice_loss(torch.tensor([[9.0, 9.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([0.2000])
    """
    targets = _checked("binary_dice_loss", predictions, targets)
    if predictions.ndim == targets.ndim and predictions.shape[-1] != 1:
        predictions, targets = predictions[..., None], targets[..., None]
    return dice_loss(predictions, targets, smooth=smooth, apply_softmax=apply_sigmoid)


def _checked(rule: str, predictions: Tensor, targets: Tensor) -> Tensor:
    """The targets, of the predictions' dtype where they are booleans; both must be tensors with axes."""
    check_floating(rule, predictions=predictions)
    if not isinstance(targets, Tensor) or not targets.ndim or not predictions.ndim:
        kind = f"shape {tuple(targets.shape)}" if isinstance(targets, Tensor) else f"a {type(targets).__name__}"
        raise ValueError(
            f"{rule} got targets of {kind} for predictions of {tuple(predictions.shape)}, and needs (batch, ...)."
        )
    return targets.to(predictions.dtype) if targets.dtype == torch.bool else targets
