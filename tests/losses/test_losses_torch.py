"""The losses that torch.nn has, against it; references by hand; errors."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, hessian

from funcnet import jit, losses, optim, random

DOUBLE = torch.float64


def normal(seed, *shape, scale=1.0):
    return scale * random.normal(random.key(seed), shape, dtype=DOUBLE)


def integers(seed, high, *shape):
    return random.randint(random.key(seed), shape, 0, high).long()


def signs(seed, *shape):
    return 2 * integers(seed, 2, *shape) - 1


def part(seed, *shape):
    return random.uniform(random.key(seed), shape, dtype=DOUBLE, minval=0.05, maxval=0.95)


seeds = pytest.mark.parametrize(("seed", "scale"), [(1, 1.0), (2, 5.0), (3, 300.0)])


@seeds
def test_regression_equals_torch(seed, scale):
    x, y, v = normal(seed, 5, 3, scale=scale), normal(seed + 50, 5, 3, scale=scale), part(seed, 5, 3)
    same = torch.testing.assert_close
    same(losses.squared_error(x, y), F.mse_loss(x, y, reduction="none"))
    same(losses.l1_loss(x, y), F.l1_loss(x, y, reduction="none"))
    same(losses.huber_loss(x, y, delta=0.7), F.huber_loss(x, y, reduction="none", delta=0.7))
    same(losses.smooth_l1_loss(x, y, beta=0.4), F.smooth_l1_loss(x, y, reduction="none", beta=0.4))
    same(losses.smooth_l1_loss(x, y, beta=0), F.l1_loss(x, y, reduction="none"))
    for full in (False, True):
        same(losses.gaussian_nll_loss(x, y, v, full=full), F.gaussian_nll_loss(x, y, v, full=full, reduction="none"))
        got = losses.poisson_nll_loss(x.clamp(max=9), v, full=full)
        same(got, F.poisson_nll_loss(x.clamp(max=9), v, full=full, reduction="none"))
    same(losses.gaussian_nll_loss(x, y, v[:, :1]), F.gaussian_nll_loss(x, y, v[:, :1], reduction="none"))
    same(losses.cosine_similarity(x, y), F.cosine_similarity(x, y, dim=-1))
    same(losses.log_cosh(x / scale), torch.cosh(x / scale).log())


@seeds
def test_binary_losses_equal_torch(seed, scale):
    x, y, p = normal(seed, 5, 3, scale=scale), integers(seed, 2, 5, 3), part(seed, 5, 3)
    same = torch.testing.assert_close
    bce = F.binary_cross_entropy_with_logits
    same(losses.sigmoid_binary_cross_entropy(x, y), bce(x, y.double(), reduction="none"))
    weight = part(seed + 1, 3) * 3
    got = losses.sigmoid_binary_cross_entropy(x, y, pos_weight=weight)
    same(got, bce(x, y.double(), pos_weight=weight, reduction="none"))
    same(losses.binary_cross_entropy(p, y), F.binary_cross_entropy(p, y.double(), reduction="none"))
    same(losses.soft_margin_loss(x / 10, 2 * y - 1), F.soft_margin_loss(x / 10, 2 * y - 1, reduction="none"))


@seeds
def test_classes_equal_torch(seed, scale):
    x, y, weight = normal(seed, 6, 4, scale=scale), integers(seed, 4, 6), part(seed, 4)
    same = torch.testing.assert_close
    same(losses.softmax_cross_entropy_with_integer_labels(x, y), F.cross_entropy(x, y, reduction="none"))
    for kwargs in ({}, {"weight": weight}, {"label_smoothing": 0.3, "weight": weight}, {"ignore_index": 2}):
        same(losses.cross_entropy(x, y, **kwargs), F.cross_entropy(x, y, reduction="none", **kwargs))
    mean = losses.cross_entropy(x, y, weight=weight).sum() / weight[y].sum()
    same(mean, F.cross_entropy(x, y, weight))
    soft = torch.softmax(normal(seed + 9, 6, 4), -1)
    same(
        losses.cross_entropy(x, soft, label_smoothing=0.1),
        F.cross_entropy(x, soft, reduction="none", label_smoothing=0.1),
    )
    image, labels = normal(seed, 2, 4, 3, 5), integers(seed, 4, 2, 3, 5)
    same(losses.cross_entropy(image, labels, axis=1), F.cross_entropy(image, labels, reduction="none"))
    logs = x.log_softmax(-1)
    for kwargs in ({}, {"weight": weight}, {"ignore_index": 1, "weight": weight}):
        same(losses.nll_loss(logs, y, **kwargs), F.nll_loss(logs, y, reduction="none", **kwargs))
    for kwargs in ({}, {"p": 2, "margin": 0.6}, {"weight": weight}):
        same(losses.multi_margin_loss(x, y, **kwargs), F.multi_margin_loss(x, y, reduction="none", **kwargs))
    several = torch.stack([random.permutation(random.key(seed + i), 4) for i in range(6)]) - 1
    same(losses.multilabel_margin_loss(x, several), F.multilabel_margin_loss(x, several, reduction="none"))
    hot = integers(seed + 3, 2, 6, 4).double()
    got = losses.multilabel_soft_margin_loss(x, hot, weight=weight)
    same(got, F.multilabel_soft_margin_loss(x, hot, weight=weight, reduction="none"))
    same(losses.kl_divergence(logs, soft), F.kl_div(logs, soft, reduction="none").sum(-1))
    got = losses.kl_divergence_with_log_targets(logs, soft.log())
    same(got, F.kl_div(logs, soft.log(), reduction="none", log_target=True).sum(-1))


@seeds
def test_vectors_equal_torch(seed, scale):
    a, b, c = (normal(seed + i, 5, 3, scale=scale) for i in (0, 10, 20))
    y = signs(seed, 5)
    same = torch.testing.assert_close
    for swap in (False, True):
        far = lambda x, y: F.pairwise_distance(x, y)  # noqa: E731
        kwargs = {"distance_function": far, "margin": 0.4, "swap": swap}
        want = F.triplet_margin_with_distance_loss(a, b, c, reduction="none", **kwargs)
        same(losses.triplet_margin_with_distance_loss(a, b, c, **kwargs), want)
    for degree in (1, 2, 3):  # the epsilon lies elsewhere
        want = F.triplet_margin_loss(a, b, c, p=degree, eps=0.0, reduction="none")
        same(losses.triplet_margin_loss(a, b, c, norm_degree=degree, eps=0.0), want)
    same(
        losses.cosine_embedding_loss(a, b, y, margin=0.2),
        F.cosine_embedding_loss(a, b, y, margin=0.2, reduction="none"),
    )
    d = part(seed, 5) * 2
    same(losses.hinge_embedding_loss(d, y, margin=0.9), F.hinge_embedding_loss(d, y, margin=0.9, reduction="none"))
    first, second = a[:, 0], b[:, 0]
    want = F.margin_ranking_loss(first, second, y, margin=0.1, reduction="none")
    same(losses.margin_ranking_loss(first, second, y, margin=0.1), want)


def test_safe_softmax_cross_entropy_of_impossible_classes():
    logits = torch.tensor([1.0, -torch.inf, 0.5, -torch.inf], dtype=DOUBLE, requires_grad=True)
    labels = torch.tensor([0.7, 0.0, 0.3, 0.0], dtype=DOUBLE, requires_grad=True)
    loss = losses.safe_softmax_cross_entropy(logits, labels)
    kept = torch.tensor([0, 2])
    torch.testing.assert_close(loss, losses.softmax_cross_entropy(logits[kept], labels[kept]))
    slope, of_labels = torch.autograd.grad(loss, (logits, labels))
    torch.testing.assert_close(slope, logits.detach().softmax(-1) - labels.detach())
    assert of_labels.isfinite().all()
    assert losses.softmax_cross_entropy(logits, labels).isnan()  # as optax's


def test_multiclass_sparsemax_slope_is_projection_minus_label():
    scores = normal(8, 4, 5)
    labels = integers(9, 5, 4)
    slope = grad(lambda s: losses.multiclass_sparsemax_loss(s, labels).sum())(scores)
    hot = F.one_hot(labels.long(), 5).double()
    want = torch.stack([optim.projections.projection_simplex(row) for row in scores]) - hot
    torch.testing.assert_close(slope, want)


def test_fenchel_young_of_logsumexp_is_cross_entropy_less_entropy():
    loss = losses.make_fenchel_young_loss(torch.logsumexp)
    scores, targets = normal(10, 2, 3, 5), torch.softmax(normal(11, 2, 3, 5), -1)
    got = loss(scores, targets, dim=-1)
    torch.testing.assert_close(got, losses.softmax_cross_entropy(scores, targets))
    torch.testing.assert_close(loss(scores[0, 0], targets[0, 0], -1), got[0, 0])
    slope = grad(lambda s: loss(s, targets, dim=-1).sum())(scores)
    torch.testing.assert_close(slope, scores.softmax(-1) - targets)
    torch.testing.assert_close(jit(lambda s, t: loss(s, t, dim=-1), backend="aot_eager")(scores, targets), got)


def test_fenchel_young_equals_optax():
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    scores, targets = normal(10, 2, 3, 5), torch.softmax(normal(11, 2, 3, 5), -1)
    with jax.enable_x64(True):
        theirs = optax.losses.make_fenchel_young_loss(max_fun=jax.scipy.special.logsumexp)
        want = np.asarray(theirs(jax.numpy.asarray(scores.numpy()), jax.numpy.asarray(targets.numpy())))
    mine = losses.make_fenchel_young_loss(max_fun=lambda s: s.logsumexp(0))
    np.testing.assert_allclose(mine(scores, targets).numpy(), want, rtol=1e-9)


def test_log_cosh_is_smooth_everywhere():
    for x in (0.0, 1e-5, 3.0, 50.0, -800.0):
        x = torch.tensor(x, dtype=DOUBLE)
        torch.testing.assert_close(grad(losses.log_cosh)(x), torch.tanh(x))
        torch.testing.assert_close(hessian(losses.log_cosh)(x), 1 - torch.tanh(x) ** 2)


def test_distillation_is_a_divergence():
    student, teacher = normal(12, 4, 6), normal(13, 4, 6)
    want = 9.0 * losses.kl_divergence((student / 3).log_softmax(-1), (teacher / 3).softmax(-1))
    torch.testing.assert_close(losses.distillation_loss(student, teacher, temperature=3.0), want)
    torch.testing.assert_close(losses.distillation_loss(student.T, teacher.T, temperature=3.0, axis=0), want)
    slope = grad(lambda s: losses.distillation_loss(s, teacher, temperature=3.0).sum())(teacher)
    torch.testing.assert_close(slope, torch.zeros_like(slope))


def test_gaussian_nll_takes_what_torch_refuses():
    x = normal(14, 3)
    loss = losses.gaussian_nll_loss(x, -x, torch.tensor([-1.0, 0.0, 1.0], dtype=DOUBLE))
    assert loss.isfinite().all()


def test_ranking_reductions():
    x, y = normal(15, 4, 3), integers(16, 2, 4, 3)
    mask = torch.ones(4, 3, dtype=torch.bool)
    mask[2] = False
    each = losses.ranking_softmax_loss(x, y, where=mask, reduce_fn=None)
    assert each[2] == 0
    torch.testing.assert_close(losses.ranking_softmax_loss(x, y, where=mask), each.sum() / 3)
    torch.testing.assert_close(losses.ranking_softmax_loss(x, y, where=mask, reduce_fn=torch.sum), each.sum())
    assert losses.ranking_softmax_loss(x, y, where=torch.zeros_like(mask)) == 0


def test_unmatched_pairs_of_ntxent_are_nan_and_slopes_without_negatives_finite():
    x = normal(17, 4, 3)
    assert losses.ntxent(x, torch.arange(4)).isnan()
    slope = grad(lambda x: losses.ntxent(x, torch.zeros(4)))(x)
    assert slope.isfinite().all()


X, Y, CLASS = torch.ones(2, 3), torch.ones(3, 2), torch.tensor([0, 1])
PAIRS = [
    "squared_error l2_loss l1_loss huber_loss smooth_l1_loss log_cosh poisson_nll_loss cosine_similarity",
    "sigmoid_binary_cross_entropy binary_cross_entropy sigmoid_focal_loss hinge_loss perceptron_loss soft_margin_loss",
    "cosine_distance sparsemax_loss softmax_cross_entropy safe_softmax_cross_entropy poly_loss_cross_entropy",
    "distillation_loss multilabel_margin_loss multilabel_soft_margin_loss kl_divergence kl_divergence_with_log_targets",
    "generalized_kl_divergence dice_loss multiclass_generalized_dice_loss hinge_embedding_loss ranking_softmax_loss",
]


@pytest.mark.parametrize("name", " ".join(PAIRS).split())
@pytest.mark.parametrize("shape", [(3, 2), (1, 3), (2, 1)])
def test_nothing_is_broadcast(name, shape):
    with pytest.raises(ValueError, match=r"the shapes must be equal"):
        getattr(losses, name)(X, torch.ones(shape))


@pytest.mark.parametrize(
    "name",
    [
        "softmax_cross_entropy_with_integer_labels",
        "cross_entropy",
        "nll_loss",
        "multiclass_hinge_loss",
        "multiclass_perceptron_loss",
        "multiclass_sparsemax_loss",
        "multi_margin_loss",
    ],
)
def test_class_numbers_are_one_an_example(name):
    with pytest.raises(ValueError, match=r"labels of shape \(3,\)"):
        getattr(losses, name)(X, torch.tensor([0, 1, 0]))
    with pytest.raises((TypeError, ValueError), match=rf"{name} got"):
        getattr(losses, name)(X, CLASS.float())
    with pytest.raises(TypeError, match=r"needs a floating tensor"):
        getattr(losses, name)(X.int(), CLASS)


ERRORS = [
    (lambda: losses.hinge_loss(X.int(), X), TypeError, "hinge_loss got predictor_outputs that is torch.int32"),
    (lambda: losses.squared_error(X.int()), TypeError, "squared_error got predictions that is torch.int32"),
    (lambda: losses.squared_error([1.0]), TypeError, "predictions that is a list"),
    (lambda: losses.smooth_l1_loss(X, beta=-1.0), ValueError, "beta=-1.0"),
    (lambda: losses.gaussian_nll_loss(X, X, torch.ones(2)), ValueError, r"var of shape \(2,\)"),
    (lambda: losses.sigmoid_binary_cross_entropy(X, X, pos_weight=torch.ones(2)), ValueError, r"pos_weight of shape"),
    (lambda: losses.softmax_cross_entropy(X, X, where=torch.ones(3)), ValueError, r"where of shape \(3,\)"),
    (lambda: losses.multi_margin_loss(X, CLASS, p=3), ValueError, "p=3"),
    (lambda: losses.smooth_labels(X, 0.1, where=CLASS), ValueError, r"where of shape \(2,\)"),
    (lambda: losses.ctc_loss(X[None], X, CLASS[None], CLASS[None]), ValueError, r"logit_paddings of shape \(2, 3\)"),
    (lambda: losses.ctc_loss(X[None], X[:1, :2], CLASS, CLASS), ValueError, r"labels of shape \(2,\)"),
    (lambda: losses.ctc_loss(X[None], X[:1, :2], CLASS[None], X[:1]), ValueError, r"label_paddings of shape \(1, 3\)"),
    (lambda: losses.dice_loss(X, X, reduction="max"), ValueError, "reduction='max'"),
    (lambda: losses.dice_loss(X, X, class_weights=torch.ones(2)), ValueError, r"class_weights of shape \(2,\)"),
    (lambda: losses.triplet_margin_loss(X, X, Y), ValueError, r"negatives of shape \(3, 2\)"),
    (lambda: losses.cosine_embedding_loss(X, X, torch.ones(3)), ValueError, r"targets of shape \(3,\)"),
    (lambda: losses.margin_ranking_loss(X, X, CLASS), ValueError, r"targets of shape \(2,\)"),
    (lambda: losses.ntxent(X, torch.arange(3)), ValueError, r"labels of \(3,\)"),
]


@pytest.mark.parametrize(("call", "error", "match"), ERRORS, ids=[match for _, _, match in ERRORS])
def test_errors_name_the_argument(call, error, match):
    with pytest.raises(error, match=match):
        call()
