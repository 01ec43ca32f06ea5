"""Adadelta."""

from typing import Any, NamedTuple

from torch import Tensor

from ..tree import PyTree
from .arguments import stateful
from .base import GradientTransformation, chain
from .leafwise import abs_sq, each, root, square_zeros
from .scaling import scale_by_learning_rate
from .values import Scalar, ScalarOrSchedule, decay_rate, scalar
from .weights import MaskOrFn, add_decayed_weights

__all__ = ["ScaleByAdaDeltaState", "adadelta", "scale_by_adadelta"]


class ScaleByAdaDeltaState(NamedTuple):
    """The running means of the squared gradients and of the squared updates; real for complex parameters."""

    e_g: PyTree
    """like the parameters"""
    e_x: PyTree
    """like the parameters"""


def scale_by_adadelta(rho: Scalar = 0.9, eps: Scalar = 1e-6) -> GradientTransformation:
    r"""Give the gradients the length of recent updates (Zeiler, arXiv:1212.5701).

    $$G_t = \rho G_{t-1} + (1 - \rho) |g_t|^2, \quad
    u_t = \sqrt{X_{t-1} + \varepsilon} / \sqrt{G_t + \varepsilon}\, g_t, \quad
    X_t = \rho X_{t-1} + (1 - \rho) |u_t|^2$$

    >>> import torch
    >>> rule = scale_by_adadelta(eps=0.01)
    >>> params = {"w": torch.ones(1)}
    >>> rule.update({"w": torch.tensor([3.0])}, rule.init(params), params)[0]
    {'w': tensor([0.3145])}
    """
    decay_rate(rho, "rho"), scalar(eps, "eps")

    def init(params: PyTree) -> ScaleByAdaDeltaState:
        return ScaleByAdaDeltaState(e_g=square_zeros(params), e_x=square_zeros(params))

    def update(
        updates: PyTree, state: ScaleByAdaDeltaState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaleByAdaDeltaState]:
        def leaf(g: Tensor, e_g: Tensor, e_x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            e_g = rho * e_g + (1 - rho) * abs_sq(g)
            u = root(e_x + eps) / root(e_g + eps) * g
            return u, e_g, rho * e_x + (1 - rho) * abs_sq(u)

        moved, e_g, e_x = each(leaf, updates, e_g=state.e_g, e_x=state.e_x)
        return moved, ScaleByAdaDeltaState(e_g=e_g, e_x=e_x)

    return stateful(ScaleByAdaDeltaState, init, update)


def adadelta(
    learning_rate: ScalarOrSchedule | None = None,
    rho: Scalar = 0.9,
    eps: Scalar = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: MaskOrFn = None,
) -> GradientTransformation:
    r"""Adadelta, $u = -\eta\, \mathrm{adadelta}(g + \lambda \theta)$ (arXiv:1212.5701; see `scale_by_adadelta`).

    Equals `torch.optim.Adadelta`. As in Optax the updates are those of ascent where no `learning_rate` is given.

    >>> import torch
    >>> optimizer = adadelta(1.0, eps=0.01)
    >>> params = {"w": torch.ones(1)}
    >>> optimizer.update({"w": torch.tensor([3.0])}, optimizer.init(params), params)[0]
    {'w': tensor([-0.3145])}
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_adadelta(rho, eps),
        scale_by_learning_rate(learning_rate),
    )
