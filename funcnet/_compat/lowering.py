"""What Inductor makes of our own operators."""

import sys
from collections.abc import Callable
from typing import Any

import torch

from funcnet._compat.products import PRODUCT, lower_product


@torch.library.custom_op("funcnet::keep", mutates_args=())
def _keep(x: torch.Tensor) -> torch.Tensor:
    """The same values, which Inductor computes and stores instead of fusing them into what reads them."""
    return x.clone()


@_keep.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


KEEP = torch.ops.funcnet.keep.default


def _lower_keep(x: Any) -> Any:
    x.realize()
    return x


@torch.library.custom_op("funcnet::later", mutates_args=())
def _later(x: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """The same values, computed after those of `after`, from which the compiler cannot tell that they are the same."""
    return x.clone()


@_later.register_fake
def _(x: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@_later.register_vmap
def _(info: Any, dims: tuple[int | None, ...], x: torch.Tensor, after: torch.Tensor) -> tuple[torch.Tensor, Any]:
    return LATER(x, after), dims[0]


LATER = torch.ops.funcnet.later.default


def _lower_later(x: Any, after: Any) -> Any:
    """A copy that reads an element of `after`: the order that Inductor keeps is that of reads and writes."""
    from torch._inductor import ir
    from torch._inductor.virtualized import ops

    load, load_after = x.make_loader(), after.make_loader()
    if not all(int(n) for n in after.get_size()):
        return _lower_keep(x)

    def element(index: Any) -> Any:
        gate = load_after([0] * len(after.get_size()))
        value = load(index)
        return ops.where(ops.eq(gate, gate), value, value)

    copy = ir.Pointwise.create(device=x.get_device(), dtype=x.get_dtype(), inner_fn=element, ranges=list(x.get_size()))
    copy.realize()
    return copy


_LOWERINGS: dict[str, Callable[..., tuple[Any, ...]]] = {}


def lower_elementwise(operator: str, body: Callable[..., tuple[Any, ...]]) -> None:
    """Let Inductor inline an operator of ours: `body(ops, *values)` computes one element of each result.

    Without it the operator would be called as it is: the same result, more slowly.
    """
    _LOWERINGS[operator] = body


def meet_inductor() -> None:
    """Register the lowerings if Inductor is at work, which then is imported."""
    if _LOWERINGS and "torch._inductor.lowering" in sys.modules:
        install_lowerings()


def install_lowerings() -> None:
    """Register the lowerings, once Inductor is imported anyhow. Checked on 2.15.0."""
    from torch._inductor import ir, lowering
    from torch._inductor.virtualized import ops

    if _LOWERINGS:
        lowering.register_lowering(KEEP, type_promotion_kind=None)(_lower_keep)
        lowering.register_lowering(LATER, type_promotion_kind=None)(_lower_later)
        lowering.register_lowering(PRODUCT, type_promotion_kind=None)(lower_product)
    while _LOWERINGS:
        name, body = _LOWERINGS.popitem()
        namespace, _, short = name.partition("::")
        overload = getattr(getattr(torch.ops, namespace), short).default
        results = len(overload._schema.returns)
        lowering.register_lowering(overload, type_promotion_kind=None)(_elementwise(ir, lowering, ops, body, results))


def _elementwise(
    ir: Any, lowering: Any, ops: Any, body: Callable[..., tuple[Any, ...]], results: int
) -> Callable[..., Any]:
    def lower(*inputs: Any) -> tuple[Any, ...]:
        inputs = tuple(lowering.broadcast_tensors(*inputs))
        loaders = [x.make_loader() for x in inputs]
        size, device, dtype = inputs[0].get_size(), inputs[0].get_device(), inputs[0].get_dtype()

        def result(n: int) -> Any:
            def element(index: Any) -> Any:
                return body(ops, *(load(index) for load in loaders))[n]

            made = ir.Pointwise.create(device=device, dtype=dtype, inner_fn=element, ranges=list(size))
            if not size:
                made.realize()  # a key is computed once, not again in every loop that draws from it
            return made

        return tuple(result(n) for n in range(results))

    return lower
