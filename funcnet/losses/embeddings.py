"""Losses of vectors that should be near or far: triplets, pairs, contrast."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import check, check_floating, check_numbers, rows
from .regression import cosine_similarity

__all__ = [
    "cosine_embedding_loss",
    "hinge_embedding_loss",
    "ntxent",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]


def triplet_margin_loss(
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    axis: int = -1,
    norm_degree: float | Tensor = 2,
    margin: float | Tensor = 1.0,
    eps: float | Tensor = 1e-6,
) -> Tensor:
    r"""A positive should be nearer than a negative by a margin, $\max(0, d(a, p) - d(a, n) + m)$.

    $d(x, y) = (\sum_i |x_i - y_i|^q + \varepsilon)^{1/q}$ along `axis` (Balntas et al. 2016). Optax forgets the
    absolute values, so that its odd degrees are no distances; torch's `TripletMarginLoss` adds $\varepsilon$ to the
    differences. One loss an example.

    >>> triplet_margin_loss(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]), torch.tensor([[1.5, 0.0]]))
    tensor([0.5000])
    """

    check_floating("triplet_margin_loss", anchors=anchors)
    check_numbers("triplet_margin_loss", norm_degree=norm_degree, eps=eps)
    rows(anchors, axis)
    if not isinstance(norm_degree, Tensor) and not norm_degree > 0:
        raise ValueError(f"triplet_margin_loss got norm_degree={norm_degree}, and needs more than 0.")

    def distance(x: Tensor, y: Tensor) -> Tensor:
        return ((x - y).abs() ** norm_degree).sum(axis).add(eps) ** (1 / norm_degree)

    return triplet_margin_with_distance_loss(anchors, positives, negatives, distance_function=distance, margin=margin)


def triplet_margin_with_distance_loss(
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor],
    margin: float | Tensor = 1.0,
    swap: bool = False,
) -> Tensor:
    r"""`triplet_margin_loss` with a distance of your own: `torch.nn.TripletMarginWithDistanceLoss`.

    With `swap=True` the negative counts by its distance to the positive where that is the smaller one.

    >>> far = lambda x, y: (x - y).abs().amax(-1)
    >>> points = torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]), torch.tensor([[1.5, 0.0]])
    >>> triplet_margin_with_distance_loss(*points, distance_function=far)
    tensor([0.5000])
    """
    check("triplet_margin_loss", anchors=anchors, positives=positives, negatives=negatives)
    if not callable(distance_function):
        raise TypeError(
            f"distance_function is a {type(distance_function).__name__}, and must be a function of two tensors."
        )
    check_numbers("triplet_margin_loss", margin=margin)
    near, far = distance_function(anchors, positives), distance_function(anchors, negatives)
    if swap:
        far = torch.minimum(far, distance_function(positives, negatives))
    return torch.relu(near - far + margin)


def cosine_embedding_loss(x1: Tensor, x2: Tensor, targets: Tensor, *, margin: float | Tensor = 0.0) -> Tensor:
    r"""$1 - \cos(x, y)$ for pairs that belong together, target 1, else $\max(0, \cos(x, y) - m)$, target -1.

    `torch.nn.CosineEmbeddingLoss`. Vectors `(..., n)`, targets and losses `(...)`.

    >>> cosine_embedding_loss(torch.ones(2, 2), torch.tensor([[0.0, 2.0], [-1.0, -1.0]]), torch.tensor([1, -1]))
    tensor([0.2929, 0.0000])
    """
    check("cosine_embedding_loss", x1=x1, x2=x2)
    if not x1.ndim:
        raise ValueError("cosine_embedding_loss got x1 of shape (), and needs vectors, (..., n).")
    check("cosine_embedding_loss", x1=x1[..., 0], targets=targets)
    epsilon = 1e-12  # torch's
    cosine = (x1 * x2).sum(-1) / (((x1**2).sum(-1) + epsilon) * ((x2**2).sum(-1) + epsilon)).sqrt()
    return torch.where(targets == 1, 1 - cosine, torch.relu(cosine - margin))


def hinge_embedding_loss(distances: Tensor, targets: Tensor, *, margin: float | Tensor = 1.0) -> Tensor:
    r"""The distance itself for pairs that belong together, target 1, else $\max(0, m - d)$, target -1.

    `torch.nn.HingeEmbeddingLoss`, elementwise.

    >>> hinge_embedding_loss(torch.tensor([0.3, 0.3]), torch.tensor([1, -1]))
    tensor([0.3000, 0.7000])
    """
    check("hinge_embedding_loss", distances=distances, targets=targets)
    return torch.where(targets == 1, distances, torch.relu(margin - distances))


def ntxent(embeddings: Tensor, labels: Tensor, temperature: float | Tensor = 0.07) -> Tensor:
    r"""Cross entropy among cosines: positives against all negatives (NT-Xent; Chen et al., arXiv:2002.05709).

    For each pair $i \ne j$ of one label, $-\log \frac{e^{c_{ij} / T}}{e^{c_{ij} / T} + \sum_k e^{c_{ik} / T}}$ with $k$
    over the other labels; the mean over pairs.

    Args:
        embeddings: `(batch, n)`.
        labels: `(batch,)`, equal for what belongs together; `ValueError` for another shape.
        temperature: $T$.

    Returns:
        One number; NaN where no two labels are equal.

    >>> ntxent(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1]), temperature=1.0)
    tensor(0.3133)
    """
    check_floating("ntxent", embeddings=embeddings)
    check_numbers("ntxent", temperature=temperature)
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ValueError(f"ntxent got temperature={temperature}, and needs more than 0.")
    if not isinstance(labels, Tensor):
        raise TypeError(f"ntxent got labels that are a {type(labels).__name__}: write torch.tensor(labels).")
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"ntxent got embeddings of shape {tuple(embeddings.shape)} and labels of {tuple(labels.shape)}, and needs "
            "(batch, n) and (batch,)."
        )
    shape = (len(labels), *embeddings.shape)
    first, second = embeddings[:, None].expand(shape), embeddings[None].expand(shape)
    cosines = cosine_similarity(first, second, epsilon=torch.finfo(embeddings.dtype).eps) / temperature
    same = labels[:, None] == labels[None]
    # The least number rather than minus infinity, whose slopes are NaN in a row without negatives.
    against = torch.where(same, torch.finfo(cosines.dtype).min, cosines).logsumexp(1, keepdim=True)
    pairs = same & ~torch.eye(len(labels), dtype=torch.bool, device=same.device)
    return torch.where(pairs, F.softplus(against - cosines, threshold=40), 0).sum() / pairs.sum()
