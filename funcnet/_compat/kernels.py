"""Kernels that torch's public functions do not reach."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

_Leaves = list[torch.Tensor] | tuple[torch.Tensor, ...]


def fused_adam(
    params: _Leaves,
    grads: _Leaves,
    mu: _Leaves,
    nu: _Leaves,
    step: torch.Tensor,
    lr: float | torch.Tensor,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
) -> bool:
    """A step of AdamW in one kernel, which writes `params`, `mu` and `nu`.

    All lists have one device and dtype, and hold contiguous tensors; `step` is a float32 count that starts at 1.
    False, with nothing written, where this torch has no such kernel for the device. The kernel is what
    `torch.optim.AdamW(fused=True)` runs. Checked on 2.15.0, CPU.
    """
    kernel = _fused("adamw", grads[0].device)
    if kernel is None:
        return False
    kernel(
        params,
        grads,
        mu,
        nu,
        [],
        [step] * len(grads),
        lr=lr,
        beta1=b1,
        beta2=b2,
        weight_decay=weight_decay,
        eps=eps,
        amsgrad=False,
        maximize=False,
    )
    return True


def fused_sgd(
    params: _Leaves, grads: _Leaves, sums: _Leaves, lr: float | torch.Tensor, momentum: float, nesterov: bool
) -> bool:
    """A step of gradient descent with momentum in one kernel, which writes `params` and `sums`.

    As `fused_adam`; the kernel is what `torch.optim.SGD(fused=True)` runs. Checked on 2.15.0, CPU.
    """
    kernel = _fused("sgd", grads[0].device)
    if kernel is None:
        return False
    kernel(
        params,
        grads,
        sums,
        weight_decay=0.0,
        momentum=momentum,
        lr=lr,
        dampening=0.0,
        nesterov=nesterov,
        maximize=False,
        is_first_step=False,
    )
    return True


def _fused(name: str, device: torch.device) -> Callable[..., Any] | None:
    return getattr(torch, f"_fused_{name}_", None) if device.type in ("cpu", "cuda") else None


def foreach(name: str) -> Callable[..., Any]:
    """The kernel that does an operation to every tensor of a list in as few launches as the device can.

    Where this torch has none, the operation leaf by leaf. A name that ends in `_` writes in place, into the list that
    comes first. Checked on 2.15.0.
    """
    kernel: Callable[..., Any] | None = getattr(torch, f"_foreach_{name}", None)
    return kernel if kernel is not None else partial(_leaf_by_leaf, name)


def _leaf_by_leaf(name: str, leaves: _Leaves, *rest: Any, **kwargs: Any) -> list[torch.Tensor]:
    columns = [value if isinstance(value, list | tuple) else [value] * len(leaves) for value in rest]
    return [getattr(leaf, name)(*row, **kwargs) for leaf, *row in zip(leaves, *columns, strict=True)]


def joined(leaves: _Leaves) -> torch.Tensor:
    """All elements of some tensors, of one dtype and device, as one new vector. Checked on 2.15.0."""
    kernel = getattr(torch._C._nn, "flatten_dense_tensors", None)
    if kernel is None:
        return torch.cat([leaf.reshape(-1) for leaf in leaves])
    vector: torch.Tensor = kernel(leaves)
    return vector


@torch.library.custom_op("funcnet::gamma_grad", mutates_args=())
def gamma_grad(alpha: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
    """The derivative of a Gamma(alpha) sample with respect to alpha, at a fixed quantile. Same shapes and dtypes.

    `torch._standard_gamma_grad` is what `torch.distributions.Gamma.rsample` differentiates with; no public name gives
    it, and torch has no derivative of `gammainc` with respect to its first argument. An operator of our own, because
    torch's has no batching rule and warns of a slow loop under `vmap`. Checked on 2.15.0.
    """
    return torch._standard_gamma_grad(alpha.contiguous(), sample.contiguous())


@gamma_grad.register_fake
def _(alpha: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
    return torch.empty(alpha.shape, dtype=alpha.dtype, device=alpha.device)


def _gamma_grad_vmap(info: Any, dims: tuple[int | None, ...], *args: torch.Tensor) -> tuple[torch.Tensor, int]:
    front = [
        x.unsqueeze(0).expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
        for x, dim in zip(args, dims, strict=True)
    ]
    return gamma_grad(*front), 0


gamma_grad.register_vmap(_gamma_grad_vmap)


# Batch normalization without running statistics. Checked on 2.15.0.
BATCH_NORM = torch.ops.aten._native_batch_norm_legit.no_stats


def batch_norm_statistics(
    input: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Batch normalization without running statistics: the output, the batch's mean and its biased variance.

    The fused kernel hands out `1 / sqrt(var + eps)`, which saves a pass over the input. Checked on 2.15.0.
    """
    output, mean, scale = BATCH_NORM(input, weight, bias, True, 0.0, eps)
    return output, mean, (scale**-2 - eps).clamp_min(0)


def samplers() -> dict[str, Callable[..., torch.Tensor]]:
    """The private functions that `torch.distributions` samples with, by name; those this torch lacks are left out.

    Replaced by keyed draws inside `random.seeded`. Checked on 2.15.0.
    """
    names = ("_standard_gamma", "_sample_dirichlet")
    return {name: getattr(torch, name) for name in names if hasattr(torch, name)}
