"""Kernels that torch's public functions do not reach."""

from collections.abc import Callable
from typing import Any, cast

import torch


def fused_adam(
    updates: list[torch.Tensor],
    grads: list[torch.Tensor],
    mu: list[torch.Tensor],
    nu: list[torch.Tensor],
    step: torch.Tensor,
    lr: float | torch.Tensor,
    b1: float,
    b2: float,
    eps: float,
) -> bool:
    """Adam's moments and step in one kernel: `mu`, `nu` and `updates` are written, the last by `-lr * mu_hat / (...)`.

    All lists have one device and dtype, and hold contiguous tensors; `step` is a float32 count that starts at 1.
    False, with nothing written, where this torch has no such kernel for the device. The kernel is what
    `torch.optim.Adam(fused=True)` runs. Checked on 2.15.0, CPU.
    """
    kernel = getattr(torch, "_fused_adam_", None)
    if kernel is None or grads[0].device.type not in ("cpu", "cuda"):
        return False
    kernel(
        updates,
        grads,
        mu,
        nu,
        [],
        [step] * len(grads),
        lr=lr,
        beta1=b1,
        beta2=b2,
        weight_decay=0.0,
        eps=eps,
        amsgrad=False,
        maximize=False,
    )
    return True


_Leaves = list[torch.Tensor] | tuple[torch.Tensor, ...]


def foreach(name: str) -> Callable[..., Any] | None:
    """The kernel that does an operation to every tensor of a list, or None where this torch has none.

    Checked on 2.15.0.
    """
    return getattr(torch, f"_foreach_{name}", None)


def foreach_add(left: _Leaves, right: _Leaves, alpha: float = 1.0) -> _Leaves:
    """`left + alpha * right`, leaf by leaf in as few kernels as the device can. Checked on 2.15.0."""
    if not hasattr(torch, "_foreach_add"):
        return [torch.add(a, b, alpha=alpha) for a, b in zip(left, right, strict=True)]
    return torch._foreach_add(left, right, alpha=alpha)


def foreach_add_(left: _Leaves, right: _Leaves, alpha: float = 1.0) -> None:
    """`left += alpha * right`, for lists that the caller has just made. Checked on 2.15.0."""
    if hasattr(torch, "_foreach_add_"):
        torch._foreach_add_(left, right, alpha=alpha)
        return
    for a, b in zip(left, right, strict=True):
        a.add_(b, alpha=alpha)


def foreach_mul(values: _Leaves, factor: float | torch.Tensor) -> _Leaves:
    """Every leaf times one number or 0-dim tensor. Checked on 2.15.0."""
    if not hasattr(torch, "_foreach_mul"):
        return [value * factor for value in values]
    return torch._foreach_mul(values, cast(Any, factor))  # its number and its tensor are two overloads


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
