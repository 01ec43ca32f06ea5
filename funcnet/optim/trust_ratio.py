"""Updates as long as the parameters: LARS, LAMB and Fromage."""

import torch
from torch import Tensor

from .adam import scale_by_adam
from .base import EmptyState, GradientTransformation, chain, needed, stateless
from .leafwise import each
from .numerics import safe_norm
from .scaling import scale_by_learning_rate
from .sgd import trace
from .values import Scalar, ScalarOrSchedule, is_schedule, scalar
from .weights import MaskOrFn, add_decayed_weights
from .wrappers.masking import masked

__all__ = ["ScaleByTrustRatioState", "fromage", "lamb", "lars", "scale_by_trust_ratio"]

ScaleByTrustRatioState = EmptyState


def scale_by_trust_ratio(
    min_norm: Scalar = 0.0, trust_coefficient: Scalar = 1.0, eps: Scalar = 0.0
) -> GradientTransformation:
    r"""Give each leaf's update the leaf's own length (You et al., arXiv:1708.03888).

    $u = c\, g\, \lVert \theta \rVert / (\lVert g \rVert + \varepsilon)$, with lengths of at least `min_norm`; and
    $u = g$ where one of them is 0. Complex leaves have the length of their absolute values.

    >>> rule = scale_by_trust_ratio()
    >>> params = {"w": torch.tensor([6.0, 8.0])}
    >>> rule.update({"w": torch.tensor([0.3, 0.4])}, (), params)[0]
    {'w': tensor([6., 8.])}
    """
    scalar(min_norm, "min_norm"), scalar(trust_coefficient, "trust_coefficient"), scalar(eps, "eps")

    def leaf(g: Tensor, p: Tensor) -> Tensor:
        length, own = safe_norm(p, min_norm), safe_norm(g, min_norm)
        moves = (length != 0) & (own != 0)
        # The inner `where` keeps the gradient of what is not used finite.
        return g * torch.where(moves, trust_coefficient * length / torch.where(moves, own + eps, 1.0), 1.0)

    return stateless(lambda updates, params: each(leaf, updates, needed(params, "scale_by_trust_ratio"), alone=True)[0])


def lars(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: MaskOrFn = True,
    trust_coefficient: Scalar = 0.001,
    eps: Scalar = 0.0,
    trust_ratio_mask: MaskOrFn = True,
    momentum: Scalar = 0.9,
    nesterov: bool = False,
) -> GradientTransformation:
    r"""LARS, for large batches: momentum over $-\eta$ times `scale_by_trust_ratio` of $g + \lambda \theta$.

    You et al., arXiv:1708.03888. The masks tell which leaves decay and which are scaled; biases and norms commonly are
    neither.

    >>> optimizer = lars(1.0)
    >>> params = {"w": torch.tensor([6.0, 8.0])}
    >>> optimizer.update({"w": torch.tensor([0.3, 0.4])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.0060, -0.0080])}
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        masked(
            scale_by_trust_ratio(trust_coefficient=trust_coefficient, eps=eps), trust_ratio_mask, outside="unchanged"
        ),
        scale_by_learning_rate(learning_rate),
        trace(momentum, nesterov),
    )


def lamb(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    eps_root: Scalar = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn = None,
) -> GradientTransformation:
    r"""LAMB, for large batches: $-\eta$ times `scale_by_trust_ratio` of $\mathrm{adam}(g) + \lambda \theta$.

    You et al., arXiv:1904.00962. `mask` tells which leaves decay.

    >>> optimizer = lamb(0.1)
    >>> params = {"w": torch.tensor([3.0, 4.0])}
    >>> optimizer.update({"w": torch.tensor([0.3, 0.4])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.3536, -0.3536])}
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_trust_ratio(),
        scale_by_learning_rate(learning_rate),
    )


def fromage(learning_rate: ScalarOrSchedule, min_norm: Scalar = 1e-6) -> GradientTransformation:
    r"""Fromage, the same relative step for every leaf (Bernstein et al., arXiv:2002.03432).

    $$\theta \leftarrow \frac{1}{\sqrt{1 + \eta^2}}
    \left(\theta - \eta\, g\, \lVert \theta \rVert / \lVert g \rVert\right)$$

    with lengths of at least `min_norm`.

    >>> optimizer = fromage(0.75)
    >>> params = {"w": torch.tensor([6.0, 8.0])}
    >>> optimizer.update({"w": torch.tensor([0.0, 1.0])}, optimizer.init(params), params)[0]
    {'w': tensor([-1.2000, -7.6000])}
    """

    def shrinking(rate: Scalar) -> Scalar:
        return 1 / (1 + rate**2) ** 0.5

    if is_schedule(learning_rate, "learning_rate"):
        schedule = learning_rate
        step: ScalarOrSchedule = lambda count: schedule(count) * shrinking(schedule(count))  # noqa: E731
        decay: ScalarOrSchedule = lambda count: shrinking(schedule(count)) - 1  # noqa: E731
    else:
        step, decay = learning_rate * shrinking(learning_rate), shrinking(learning_rate) - 1
    return chain(scale_by_trust_ratio(min_norm), scale_by_learning_rate(step), add_decayed_weights(decay))
