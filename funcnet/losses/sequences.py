"""Losses of sequences whose alignment is unknown: CTC."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..control.scan import scan
from .arguments import check_floating, check_numbers, check_range

__all__ = ["ctc_loss", "ctc_loss_with_forward_probs"]


def ctc_loss_with_forward_probs(
    logits: Tensor,
    logit_paddings: Tensor,
    labels: Tensor,
    label_paddings: Tensor,
    *,
    blank_id: int = 0,
    log_epsilon: float = -1e5,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Connectionist temporal classification, and the forward probabilities it is computed from (Graves et al. 2006).

    Minus the log-probability that the frames, one class each, read as the labels once repetitions are merged and blanks
    dropped (doi.org/10.1145/1143844.1143891). With $n$ labels read after frame $t$, $B$ is the probability that it is a
    blank and $L$ that it is the label:

    $$L_t(n) = p_t(y_n) (L_{t-1}(n) + B_{t-1}(n-1) + [y_n \ne y_{n-1}] L_{t-1}(n-1)), \quad
    B_t(n) = p_t(\phi) (B_{t-1}(n) + L_{t-1}(n))$$

    Args:
        logits: `(..., T, K)`, of T frames and K classes.
        logit_paddings: `(..., T)`, 1 for frames to leave out, 0 for others.
        labels: integers `(..., N)`.
        label_paddings: `(..., N)`, zeros, then ones for what follows the last label.
        blank_id: the class of the blank.
        log_epsilon: what stands for $\log 0$; a sequence that cannot be read costs about as much.

    Returns:
        `(loss, log_blank, log_label)`: the loss `(...)`, and the logarithms `(T, ..., N + 1)` and `(T, ..., N)`. As in
        optax they are those before the merge of a label with the blank after it, but in the last frame. All are
        float32 for half-precision logits.

    Raises:
        ValueError: the shapes do not fit together.

    >>> logits, paddings = torch.zeros(1, 3, 2), torch.zeros(1, 3)
    >>> loss, blank, label = ctc_loss_with_forward_probs(logits, paddings, torch.tensor([[1]]), torch.zeros(1, 1))
    >>> loss.exp()  # six of the eight sequences read as the label
    tensor([1.3333])
    >>> blank.shape, label.shape
    (torch.Size([3, 1, 2]), torch.Size([3, 1, 1]))
    """
    check_floating("ctc_loss", logits=logits)
    check_numbers("ctc_loss", log_epsilon=log_epsilon)
    if logits.ndim < 2 or not logits.shape[-2]:
        raise ValueError(f"ctc_loss got logits of shape {tuple(logits.shape)}, and needs (..., T, K), T above 0.")
    if not 0 <= blank_id < logits.shape[-1]:
        raise ValueError(f"ctc_loss got blank_id={blank_id} for {logits.shape[-1]} classes.")
    for name, value, wanted in (
        ("logit_paddings", logit_paddings, logits.shape[:-1]),
        ("labels", labels, (*logits.shape[:-2], *getattr(labels, "shape", ())[-1:])),
        ("label_paddings", label_paddings, getattr(labels, "shape", ())),
    ):
        if not isinstance(value, Tensor):
            raise TypeError(f"ctc_loss got {name} that is a {type(value).__name__}, and needs a tensor.")
        if value.shape != wanted:
            raise ValueError(
                f"ctc_loss got {name} of shape {tuple(value.shape)} for logits of {tuple(logits.shape)}, and needs "
                f"{tuple(wanted)}: logits (..., T, K), logit_paddings (..., T), labels and label_paddings (..., N)."
            )
    batch, frames, many = logits.shape[:-2], logits.shape[-2], labels.shape[-1]
    # In half precision the sums over frames, and log_epsilon itself, would be lost.
    logs = F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), -1)
    labels = labels.long()
    check_range("ctc_loss", "labels", labels, logits.shape[-1])
    repeats = F.pad((labels[..., :-1] == labels[..., 1:]).to(logs.dtype), (0, min(1, many)))
    emitted = logs.gather(-1, labels[..., None, :].expand(*batch, frames, many)).movedim(-2, 0)
    blanks = logs[..., blank_id].movedim(-1, 0)[..., None]
    padded = logit_paddings.to(logs.dtype).movedim(-1, 0)[..., None]

    def merged(blank: Tensor, added: Tensor) -> Tensor:
        return torch.cat([blank[..., :1], _log_add(blank[..., 1:], added)], -1)

    def step(carry: tuple[Tensor, Tensor], frame: tuple[Tensor, Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], Any]:
        before, label = carry
        emits, empty, pad = frame
        # From label to label without a blank between, unless they are the same.
        blank = merged(before, label + log_epsilon * repeats)
        new_label = _log_add(blank[..., :-1] + emits, label + emits)
        new_blank = merged(blank + empty, label + empty + log_epsilon * (1 - repeats))
        after = (pad * before + (1 - pad) * new_blank, pad * label + (1 - pad) * new_label)
        return after, after

    never = torch.full((*batch, many + 1), log_epsilon, dtype=logs.dtype, device=logs.device)
    start = (torch.cat([torch.zeros_like(never[..., :1]), never[..., 1:]], -1), never[..., 1:])
    _, (blank, label) = scan(step, start, (emitted, blanks, padded))
    last = merged(blank[-1], label[-1])
    # In the logarithms' type: bfloat16 counts to 256.
    lengths = many - label_paddings.sum(-1, dtype=logs.dtype).long()
    loss = -last.gather(-1, lengths[..., None])[..., 0]
    return loss, torch.cat([blank[:-1], last[None]]), label


def ctc_loss(
    logits: Tensor,
    logit_paddings: Tensor,
    labels: Tensor,
    label_paddings: Tensor,
    *,
    blank_id: int = 0,
    log_epsilon: float = -1e5,
) -> Tensor:
    """The first of what `ctc_loss_with_forward_probs` returns, which tells the arguments: one loss a sequence.

    It equals `torch.nn.functional.ctc_loss` of the log-softmax, which has the frames in front, lengths in place of
    paddings, infinity for what cannot be read, and neither vmap nor second derivatives.

    >>> ctc_loss(torch.zeros(1, 3, 2), torch.zeros(1, 3), torch.tensor([[1]]), torch.zeros(1, 1))
    tensor([0.2877])
    """
    return ctc_loss_with_forward_probs(
        logits, logit_paddings, labels, label_paddings, blank_id=blank_id, log_epsilon=log_epsilon
    )[0]


def _log_add(a: Tensor, b: Tensor) -> Tensor:
    """`torch.logaddexp`, whose second derivatives are NaN where the two are far apart."""
    return torch.stack([a, b]).logsumexp(0)
