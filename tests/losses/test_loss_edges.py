"""Losses where a probability is 0, and where a count passes what half precision holds."""

import pytest
import torch
from torch.func import grad

from funcnet import losses

INF = float("inf")
LOGS = torch.tensor([0.5, 0.5, 0.0]).log()
P = torch.tensor([0.75, 0.25, 0.0])


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (losses.kl_divergence, P),
        (losses.generalized_kl_divergence, P),
        (losses.kl_divergence_with_log_targets, P.log()),
    ],
)
def test_what_neither_allows_costs_nothing(loss, target):
    want = loss(LOGS[:2], target[:2])
    torch.testing.assert_close(loss(LOGS, target), want)
    for place in (0, 1):
        slope = grad(loss, argnums=place)(LOGS, target)
        assert slope.isfinite().all()
        torch.testing.assert_close(slope[:2], grad(loss, argnums=place)(LOGS[:2], target[:2]))
    # What the target alone allows still costs everything, and what the prediction alone allows nothing.
    assert loss(torch.tensor([0.0, -INF]), loss_target(loss, [0.5, 0.5])) == INF
    assert loss(torch.tensor([0.5, 0.5]).log(), loss_target(loss, [1.0, 0.0])).isfinite()


def loss_target(loss, probabilities):
    p = torch.tensor(probabilities)
    return p.log() if loss is losses.kl_divergence_with_log_targets else p


def test_distillation_of_classes_that_cannot_be():
    student, teacher = torch.tensor([1.0, -1.0, -INF]), torch.tensor([0.5, 2.0, -INF])

    def loss(s, t):
        return losses.distillation_loss(s, t, temperature=2.0)

    torch.testing.assert_close(loss(student, teacher), loss(student[:2], teacher[:2]))
    for place in (0, 1):
        slope = grad(loss, argnums=place)(student, teacher)
        torch.testing.assert_close(slope[:2], grad(loss, argnums=place)(student[:2], teacher[:2]))
        assert slope[2] == 0


def test_ctc_counts_paddings_above_256():
    many, kept = 300, 3
    logits, labels = torch.zeros(1, 10, 4), torch.tensor([[1, 2, 3] + [1] * (many - kept)])
    paddings = (torch.arange(many) >= kept)[None]
    want = losses.ctc_loss(logits, torch.zeros(1, 10), labels, paddings.float())
    got = losses.ctc_loss(logits, torch.zeros(1, 10), labels, paddings.bfloat16())
    assert torch.equal(got, want)


def test_ignored_labels_of_bytes():
    logs, labels = torch.full((2, 200), 1 / 200).log(), torch.tensor([156, 3], dtype=torch.uint8)
    torch.testing.assert_close(losses.nll_loss(logs, labels), losses.nll_loss(logs, labels.long()))
    kept = losses.nll_loss(logs, labels, ignore_index=3)
    assert kept[1] == 0
    assert kept[0] > 0
