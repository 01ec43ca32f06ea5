"""Every loss, with how to draw what it takes: an entry inherits every contract."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

BATCH, CLASSES, FRAMES, LABELS = 5, 4, 7, 3


class Draw:
    """Arrays from one seed, numbers of a given size."""

    def __init__(self, seed, scale=1.0, dtype=np.float64):
        self.generator, self.scale, self.dtype = np.random.default_rng(seed), scale, dtype

    def real(self, *shape):
        return (self.scale * self.generator.normal(size=shape)).astype(self.dtype)

    def positive(self, *shape):
        return self.generator.uniform(0.1, 2.0, size=shape).astype(self.dtype)

    def part(self, *shape):
        return self.generator.uniform(0.05, 0.95, size=shape).astype(self.dtype)

    def binary(self, *shape):
        return self.generator.integers(0, 2, size=shape)

    def sign(self, *shape):
        return (2 * self.binary(*shape) - 1).astype(self.dtype)

    def classes(self, *shape, n=CLASSES):
        return self.generator.integers(0, n, size=shape)

    def one_hot(self, *shape, n=CLASSES):
        return np.eye(n, dtype=self.dtype)[self.classes(*shape, n=n)]

    def probabilities(self, *shape):
        values = self.generator.exponential(size=shape)
        return (values / values.sum(-1, keepdims=True)).astype(self.dtype)

    def log_probabilities(self, *shape):
        x = self.real(*shape)
        x = x - x.max(-1, keepdims=True)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    def mask(self, *shape):
        return self.generator.uniform(size=shape) < 0.7


class Loss(NamedTuple):
    """One loss, with a way to draw its arguments.

    `smooth` are the places of those that it is differentiated in; `mapped` says that every argument has a batch axis in
    front, over which the loss may be vmapped.
    """

    name: str
    draw: Callable[[Draw], tuple[Any, ...]]
    kwargs: dict[str, Any] = {}  # noqa: RUF012 - never changed
    arrays: dict[str, Callable[[Draw], Any]] = {}  # noqa: RUF012
    smooth: tuple[int, ...] = (0,)
    mapped: bool = True
    optax: bool = True

    def __str__(self):
        text = ", ".join(
            [f"{key}={getattr(value, '__name__', value)}" for key, value in self.kwargs.items()] + list(self.arrays)
        )
        return f"{self.name}({text})"

    def arguments(self, draw):
        return self.draw(draw), self.kwargs | {key: make(draw) for key, make in self.arrays.items()}


def _pair(d):
    return d.real(BATCH, CLASSES), d.real(BATCH, CLASSES)


def _hot(d):
    return d.real(BATCH, CLASSES), d.one_hot(BATCH)


def _soft(d):
    return d.real(BATCH, CLASSES), d.probabilities(BATCH, CLASSES)


def _classes(d):
    return d.real(BATCH, CLASSES), d.classes(BATCH)


def _binary(d):
    return d.real(BATCH, CLASSES), d.binary(BATCH, CLASSES)


def _signs(d):
    return d.real(BATCH, CLASSES), d.sign(BATCH, CLASSES)


def _logs(d):
    return d.log_probabilities(BATCH, CLASSES), d.probabilities(BATCH, CLASSES)


def _both_logs(d):
    return d.log_probabilities(BATCH, CLASSES), d.log_probabilities(BATCH, CLASSES)


def _pixels(d):
    return d.real(BATCH, 3, 2, CLASSES), d.one_hot(BATCH, 3, 2)


def _whole(d):
    """A mask in which one example is left out, and no other."""
    mask = d.mask(BATCH, CLASSES)
    mask[:, 0] = True
    mask[-1] = False
    return mask


def _ctc(d):
    lengths, frames = d.classes(BATCH, n=LABELS + 1), FRAMES - d.classes(BATCH, n=2)
    paddings = (np.arange(LABELS) >= lengths[:, None]).astype(d.dtype)
    frame_paddings = (np.arange(FRAMES) >= frames[:, None]).astype(d.dtype)
    return d.real(BATCH, FRAMES, CLASSES), frame_paddings, 1 + d.classes(BATCH, LABELS, n=CLASSES - 1), paddings


MASK = {"where": _whole}

LOSSES = [
    Loss("squared_error", _pair, smooth=(0, 1)),
    Loss("squared_error", lambda d: (d.real(BATCH),)),
    Loss("l2_loss", _pair, smooth=(0, 1)),
    Loss("l1_loss", _pair, smooth=(0, 1), optax=False),
    Loss("huber_loss", _pair, smooth=(0, 1)),
    Loss("huber_loss", _pair, {"delta": 0.3}),
    Loss("smooth_l1_loss", _pair, {"beta": 0.7}, smooth=(0, 1), optax=False),
    Loss("log_cosh", _pair, smooth=(0, 1)),
    Loss("poisson_nll_loss", lambda d: (d.part(BATCH), d.positive(BATCH)), optax=False),
    Loss(
        "poisson_nll_loss",
        lambda d: (d.part(BATCH), d.positive(BATCH)),
        {"log_input": False, "full": True},
        optax=False,
    ),
    Loss("gaussian_nll_loss", lambda d: (*_pair(d), d.positive(BATCH, CLASSES)), smooth=(0, 1, 2), optax=False),
    Loss("gaussian_nll_loss", lambda d: (*_pair(d), d.positive(BATCH, 1)), {"full": True}, optax=False),
    Loss("cosine_similarity", _pair, smooth=(0, 1)),
    Loss("cosine_similarity", _pair, {"epsilon": 1e-3}, MASK, mapped=False),
    Loss("cosine_distance", lambda d: (d.real(2, 3, 4), d.real(2, 3, 4)), {"axis": (0, 2)}, mapped=False),
    Loss("cosine_distance", _pair, {"axis": None}, mapped=False),
    Loss("sigmoid_binary_cross_entropy", _binary),
    Loss("sigmoid_binary_cross_entropy", lambda d: (d.real(BATCH), d.part(BATCH)), smooth=(0, 1)),
    Loss("sigmoid_binary_cross_entropy", _binary, {"pos_weight": 3.0}, optax=False),
    Loss("binary_cross_entropy", lambda d: (d.part(BATCH), d.part(BATCH)), optax=False),
    Loss("sigmoid_focal_loss", _binary),
    Loss("sigmoid_focal_loss", _binary, {"alpha": 0.3, "gamma": 0.5}),
    Loss("sigmoid_focal_loss", lambda d: (d.real(BATCH), d.part(BATCH)), {"gamma": 3.0}, smooth=(0, 1)),
    Loss("hinge_loss", _signs),
    Loss("perceptron_loss", _signs),
    Loss("soft_margin_loss", _signs, optax=False),
    Loss("sparsemax_loss", _binary),
    Loss("softmax_cross_entropy", _hot),
    Loss("softmax_cross_entropy", _soft, smooth=(0, 1)),
    Loss("softmax_cross_entropy", _soft, arrays=MASK, smooth=(0, 1), mapped=False),
    Loss("softmax_cross_entropy", _soft, {"axis": 0}, mapped=False),
    Loss("softmax_cross_entropy", lambda d: (d.real(2, 3, 4), d.real(2, 3, 4)), {"axis": (0, 2)}, mapped=False),
    Loss("softmax_cross_entropy", _soft, {"axis": None}, mapped=False),
    Loss("softmax_cross_entropy", _soft, arrays={"where": lambda d: d.mask(BATCH)}, mapped=False),
    Loss("safe_softmax_cross_entropy", _soft, smooth=(0, 1)),
    Loss("safe_softmax_cross_entropy", _hot),
    Loss("softmax_cross_entropy_with_integer_labels", _classes),
    Loss("softmax_cross_entropy_with_integer_labels", _classes, arrays=MASK, mapped=False),
    Loss(
        "softmax_cross_entropy_with_integer_labels", _classes, arrays={"where": lambda d: d.mask(BATCH)}, mapped=False
    ),
    Loss(
        "softmax_cross_entropy_with_integer_labels",
        lambda d: (d.real(2, CLASSES, 3), d.classes(2, 3)),
        {"axis": 1},
    ),
    Loss(
        "softmax_cross_entropy_with_integer_labels",
        lambda d: (d.real(2, 3, BATCH, 4), d.classes(3, BATCH, n=8)),
        {"axis": (3, 0)},
        mapped=False,
    ),
    Loss("cross_entropy", _classes, optax=False),
    Loss("cross_entropy", _classes, {"label_smoothing": 0.2, "ignore_index": 1}, optax=False),
    Loss("cross_entropy", _soft, {"label_smoothing": 0.2}, smooth=(0, 1), optax=False),
    Loss("cross_entropy", _classes, arrays={"weight": lambda d: d.positive(CLASSES)}, mapped=False, optax=False),
    Loss(
        "nll_loss", lambda d: (d.log_probabilities(BATCH, CLASSES), d.classes(BATCH)), {"ignore_index": 2}, optax=False
    ),
    Loss("poly_loss_cross_entropy", _soft, smooth=(0, 1)),
    Loss("poly_loss_cross_entropy", _soft, {"epsilon": -0.5}, MASK, mapped=False),
    Loss("distillation_loss", _pair, {"temperature": 3.0}, smooth=(0, 1), optax=False),
    Loss("smooth_labels", lambda d: (d.one_hot(BATCH), 0.1), mapped=False),
    Loss("smooth_labels", lambda d: (d.one_hot(BATCH), 0.1), {"axis": None}, mapped=False),
    Loss(
        "smooth_labels",
        lambda d: (d.one_hot(BATCH), 0.1),
        arrays={
            "where": lambda d: (
                d.mask(BATCH, CLASSES) | np.eye(BATCH, CLASSES, dtype=bool) | (np.arange(BATCH) == 4)[:, None]
            )
        },
        mapped=False,
    ),
    Loss("multiclass_hinge_loss", _classes),
    Loss("multiclass_perceptron_loss", _classes),
    Loss("multiclass_sparsemax_loss", _classes),
    Loss("multi_margin_loss", _classes, optax=False),
    Loss(
        "multi_margin_loss",
        _classes,
        {"p": 2, "margin": 0.5},
        {"weight": lambda d: d.positive(CLASSES)},
        mapped=False,
        optax=False,
    ),
    Loss(
        "multilabel_margin_loss",
        lambda d: (d.real(BATCH, CLASSES), np.stack([d.generator.permutation(CLASSES) for _ in range(BATCH)]) - 1),
        optax=False,
    ),
    Loss("multilabel_soft_margin_loss", _binary, optax=False),
    Loss("kl_divergence", _logs, smooth=(0, 1)),
    Loss("kl_divergence", lambda d: (d.log_probabilities(BATCH, CLASSES), d.one_hot(BATCH)), arrays=MASK, mapped=False),
    Loss("kl_divergence", _logs, {"axis": None}, mapped=False),
    Loss("kl_divergence_with_log_targets", _both_logs, smooth=(0, 1)),
    Loss("kl_divergence_with_log_targets", _both_logs, arrays=MASK, mapped=False),
    Loss("generalized_kl_divergence", lambda d: (d.part(BATCH, CLASSES), d.positive(BATCH, CLASSES)), smooth=(0, 1)),
    Loss("generalized_kl_divergence", _logs, arrays=MASK, mapped=False),
    Loss("convex_kl_divergence", _logs),
    Loss("ctc_loss", _ctc),
    Loss("ctc_loss", lambda d: (*_ctc(d)[:2], d.classes(BATCH, LABELS, n=CLASSES - 1), _ctc(d)[3]), {"blank_id": 3}),
    Loss("dice_loss", _pixels, smooth=(0, 1), mapped=False),
    Loss(
        "dice_loss",
        _pixels,
        {"reduction": "sum", "alpha": 0.3, "beta": 0.8, "smooth": 0.1, "axis": (1, 2)},
        mapped=False,
    ),
    Loss(
        "dice_loss",
        _pixels,
        {"reduction": "none", "ignore_background": True},
        {"class_weights": lambda d: d.positive(CLASSES)},
        mapped=False,
    ),
    Loss(
        "dice_loss",
        lambda d: (d.probabilities(BATCH, 3, CLASSES), d.one_hot(BATCH, 3)),
        {"apply_softmax": False},
        mapped=False,
    ),
    Loss("dice_loss", _hot, mapped=False),
    Loss("dice_loss", lambda d: (d.real(BATCH, 3, 2, 1), d.binary(BATCH, 3, 2)), mapped=False),
    Loss("multiclass_generalized_dice_loss", _pixels, mapped=False),
    Loss("multiclass_generalized_dice_loss", _pixels, {"ignore_background": True, "smooth": 0.2}, mapped=False),
    Loss("binary_dice_loss", lambda d: (d.real(BATCH, 3, 2), d.binary(BATCH, 3, 2)), mapped=False),
    Loss("binary_dice_loss", lambda d: (d.real(BATCH, 3, 1), d.binary(BATCH, 3, 1)), {"smooth": 0.5}, mapped=False),
    Loss("triplet_margin_loss", lambda d: (*_pair(d), d.real(BATCH, CLASSES)), smooth=(0, 1, 2)),
    Loss(
        "triplet_margin_loss",
        lambda d: (*_pair(d), d.real(BATCH, CLASSES)),
        {"norm_degree": 4, "margin": 0.2, "axis": 0},
        mapped=False,
    ),
    Loss(
        "triplet_margin_with_distance_loss",
        lambda d: (*_pair(d), d.real(BATCH, CLASSES)),
        {"distance_function": lambda x, y: ((x - y) ** 2).sum(-1), "swap": True},
        optax=False,
    ),
    Loss("cosine_embedding_loss", lambda d: (*_pair(d), d.sign(BATCH)), {"margin": 0.1}, smooth=(0, 1), optax=False),
    Loss("hinge_embedding_loss", lambda d: (d.positive(BATCH), d.sign(BATCH)), {"margin": 1.1}, optax=False),
    Loss(
        "margin_ranking_loss",
        lambda d: (d.real(BATCH), d.real(BATCH), d.sign(BATCH)),
        {"margin": 0.3},
        smooth=(0, 1),
        optax=False,
    ),
    Loss("ntxent", lambda d: (d.real(6, 3), np.array([0, 1, 0, 2, 1, 0])), mapped=False),
    Loss("ntxent", lambda d: (d.real(4, 3), np.array([1, 1, 1, 1])), {"temperature": 0.5}, mapped=False),
    Loss(
        "ranking_softmax_loss",
        lambda d: (d.real(BATCH, CLASSES), d.positive(BATCH, CLASSES)),
        mapped=False,
        smooth=(0, 1),
    ),
    Loss("ranking_softmax_loss", _binary, {"reduce_fn": None}),
    Loss(
        "ranking_softmax_loss", _binary, arrays=MASK | {"weights": lambda d: d.positive(BATCH, CLASSES)}, mapped=False
    ),
]
