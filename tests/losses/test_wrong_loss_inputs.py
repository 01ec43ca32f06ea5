"""Losses say which argument was wrong, and what to write instead."""

import pytest
import torch

from funcnet import losses, random
from funcnet.transforms import vmap

LOGITS = random.normal(random.key(0), (2, 3))
CLASSES = torch.tensor([0, 2])
PAIRS = [
    "binary_cross_entropy",
    "binary_dice_loss",
    "cosine_similarity",
    "dice_loss",
    "distillation_loss",
    "generalized_kl_divergence",
    "hinge_embedding_loss",
    "hinge_loss",
    "kl_divergence",
    "l2_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "perceptron_loss",
    "poisson_nll_loss",
    "poly_loss_cross_entropy",
    "ranking_softmax_loss",
    "safe_softmax_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
    "softmax_cross_entropy",
    "sparsemax_loss",
    "squared_error",
]
OF_CLASSES = [
    "cross_entropy",
    "multi_margin_loss",
    "multiclass_hinge_loss",
    "multiclass_perceptron_loss",
    "multiclass_sparsemax_loss",
    "nll_loss",
    "softmax_cross_entropy_with_integer_labels",
]


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(
    "targets", [[[1.0, 2.0, 3.0]] * 2, "truth", 1.0, LOGITS * 1j], ids=["list", "str", "float", "j"]
)
def test_targets_that_are_no_real_tensors(name, targets):
    with pytest.raises(
        (TypeError, ValueError), match=rf"{name.replace('binary_dice', 'dice')} got .*(that is|of a|complex)"
    ):
        getattr(losses, name)(LOGITS, targets)


@pytest.mark.parametrize("name", OF_CLASSES)
class TestClassNumbers:
    @pytest.mark.parametrize("labels", [[0, 2], 0, None], ids=["list", "int", "None"])
    def test_no_tensor(self, name, labels):
        with pytest.raises(TypeError, match=rf"{name} got labels that are a .*: write torch.tensor\(labels\)"):
            getattr(losses, name)(LOGITS, labels)

    @pytest.mark.parametrize("labels", [[0, 3], [-1, 2]])
    def test_none_such(self, name, labels):
        with pytest.raises(ValueError, match=rf"(?s){name} got labels from .* for 3 classes, .*ignore_index="):
            getattr(losses, name)(LOGITS, torch.tensor(labels))

    def test_right_ones_pass_as_before(self, name):
        whole = getattr(losses, name)(LOGITS, CLASSES)
        rows = torch.stack([getattr(losses, name)(*row) for row in zip(LOGITS, CLASSES, strict=True)])
        torch.testing.assert_close(whole, rows)
        torch.testing.assert_close(whole, vmap(getattr(losses, name))(LOGITS, CLASSES))


def test_ignored_labels_are_no_errors():
    labels = torch.tensor([0, -100])
    assert losses.cross_entropy(LOGITS, labels)[1] == 0 == losses.nll_loss(LOGITS, labels)[1]
    assert losses.cross_entropy(LOGITS, torch.tensor([0, 7]), ignore_index=7)[1] == 0


def test_booleans_are_numbers_for_regression():
    truth = LOGITS > 0
    torch.testing.assert_close(losses.squared_error(LOGITS, truth), losses.squared_error(LOGITS, truth.float()))
    torch.testing.assert_close(
        losses.dice_loss(LOGITS[None], truth[None]), losses.dice_loss(LOGITS[None], truth[None] * 1.0)
    )


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: losses.cross_entropy(LOGITS, CLASSES, weight=torch.ones(1)), ValueError, r"weight of shape \(1,\)"),
        (lambda: losses.cross_entropy(LOGITS, CLASSES, weight=[1.0] * 3), TypeError, "weight that is a list"),
        (lambda: losses.cross_entropy(LOGITS, CLASSES, label_smoothing=2.0), ValueError, "label_smoothing=2.0"),
        (lambda: losses.cross_entropy(LOGITS, CLASSES, axis=5), ValueError, r"axis is 5 .* from -2 to 1"),
        (lambda: losses.nll_loss(LOGITS, CLASSES, weight=torch.ones(1)), ValueError, r"one a class, \(3,\)"),
        (lambda: losses.multi_margin_loss(LOGITS, CLASSES, weight=torch.ones(1)), ValueError, r"one a class, \(3,\)"),
        (
            lambda: losses.multilabel_soft_margin_loss(LOGITS, LOGITS, weight=torch.ones(1)),
            ValueError,
            r"one a class, \(3,\)",
        ),
        (lambda: losses.softmax_cross_entropy(LOGITS, LOGITS, axis=(0, 0)), ValueError, r"axis is \(0, 0\)"),
        (lambda: losses.softmax_cross_entropy(LOGITS, LOGITS, where=[True, False]), TypeError, "where that is a list"),
        (lambda: losses.huber_loss(LOGITS, delta="a"), TypeError, "delta that is a str"),
        (lambda: losses.huber_loss(LOGITS, delta=-1.0), ValueError, "delta=-1.0"),
        (lambda: losses.sigmoid_focal_loss(LOGITS, LOGITS, gamma="a"), TypeError, "gamma that is a str"),
        (lambda: losses.gaussian_nll_loss(LOGITS, LOGITS, 1.0), TypeError, "var that is a float"),
        (lambda: losses.distillation_loss(LOGITS, LOGITS, temperature=0.0), ValueError, "temperature=0.0"),
        (lambda: losses.smooth_labels(LOGITS, 2.0), ValueError, "alpha=2.0"),
        (lambda: losses.triplet_margin_loss(LOGITS, LOGITS, LOGITS, norm_degree=0), ValueError, "norm_degree=0"),
        (lambda: losses.triplet_margin_loss(LOGITS, LOGITS, LOGITS, axis=4), ValueError, "axis is 4"),
        (
            lambda: losses.triplet_margin_with_distance_loss(LOGITS, LOGITS, LOGITS, distance_function=3),
            TypeError,
            "distance_function is a int",
        ),
        (lambda: losses.ntxent(LOGITS, [0, 0]), TypeError, "labels that are a list"),
        (lambda: losses.ntxent(LOGITS, CLASSES, temperature=0.0), ValueError, "temperature=0.0"),
        (lambda: losses.cosine_embedding_loss(LOGITS[0, 0], LOGITS[0, 0], CLASSES[0]), ValueError, r"shape \(\)"),
        (lambda: losses.ranking_softmax_loss(LOGITS, LOGITS, reduce_fn="mean"), TypeError, "reduce_fn is a str"),
        (lambda: losses.make_fenchel_young_loss(3), TypeError, "max_fun is a int"),
        (lambda: losses.dice_loss(LOGITS[None], LOGITS[None], axis=7), ValueError, "axis is 7"),
        (lambda: losses.multilabel_margin_loss(LOGITS, LOGITS), TypeError, r"labels that are torch.float32"),
    ],
)
def test_errors(call, error, says):
    with pytest.raises(error, match=f"(?s){says}"):
        call()


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"blank_id": 5}, ValueError, "blank_id=5 for 2 classes"),
        ({"labels": torch.tensor([[7]])}, ValueError, "labels from 7 to 7 for 2 classes"),
        ({"labels": [[1]]}, TypeError, "labels that is a list"),
        ({"logits": torch.ones(1, 0, 2)}, ValueError, r"logits of shape \(1, 0, 2\)"),
        ({"log_epsilon": "a"}, TypeError, "log_epsilon that is a str"),
    ],
)
def test_ctc(change, error, says):
    logits = random.normal(random.key(1), (1, 3, 2))
    right = {"logits": logits, "logit_paddings": torch.zeros(1, 3), "labels": torch.tensor([[1]])}
    with pytest.raises(error, match=f"(?s)ctc_loss got {says}"):
        losses.ctc_loss(**{**right, "label_paddings": torch.zeros(1, 1), **change})
