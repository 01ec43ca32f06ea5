"""Gradients made comparable: centred, or of one length."""

import torch
from torch import Tensor

from ..tree import PyTree, global_norm, leaves, map
from .arguments import check_floating
from .base import GradientTransformation, stateless
from .leafwise import each
from .values import Scalar, scalar

__all__ = ["centralize", "normalize_by_update_norm"]


def centralize() -> GradientTransformation:
    r"""Subtract the mean over all axes but the first, of leaves that have two or more (Yong et al., arXiv:2004.01461).

    That is every output's own mean for torch's weights, whose first axis is the output.

    >>> updates = {"w": torch.tensor([[1.0, 3.0], [5.0, 5.0]]), "b": torch.tensor([1.0, 2.0])}
    >>> centralize().update(updates, ())[0]
    {'w': tensor([[-1.,  1.],
            [ 0.,  0.]]), 'b': tensor([1., 2.])}
    """

    def leaf(g: Tensor) -> Tensor:
        return g - torch.mean(g, tuple(range(1, g.ndim)), keepdim=True) if g.ndim > 1 else g

    return stateless(lambda updates, params: each(leaf, updates, alone=True)[0])


def normalize_by_update_norm(scale_factor: Scalar = 1.0, eps: Scalar = 1e-6) -> GradientTransformation:
    r"""Give the updates, taken as one vector, one length: $u \leftarrow s u / (\lVert u \rVert + \varepsilon)$.

    >>> normalize_by_update_norm(eps=0.0).update({"w": torch.tensor([3.0, 4.0])}, ())[0]
    {'w': tensor([0.6000, 0.8000])}
    """
    scalar(scale_factor, "scale_factor"), scalar(eps, "eps")

    def normalized(updates: PyTree, params: PyTree) -> PyTree:
        check_floating(leaves(updates), updates, "updates")
        length = (global_norm(updates) + eps) / scale_factor
        return map(lambda u: (u / length).to(u.dtype), updates)

    return stateless(normalized)
