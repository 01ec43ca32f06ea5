"""Keyed forms of the torch functions that return random tensors."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcnet import _compat
from funcnet.random.arguments import broadcast, parameters
from funcnet.random.arrays import draw_permutation
from funcnet.random.continuous import draw_gumbel, draw_normal
from funcnet.random.counting import draw_binomial, draw_poisson
from funcnet.random.discrete import draw_integers
from funcnet.random.gammas import draw_gamma
from funcnet.random.halves import normal_in, unit_in, wide
from funcnet.random.uniform import draw_unit

__all__ = ["FACTORIES", "draw_key", "draw_range", "refuse_generator"]

# Arguments of a factory that say where and how the result is stored, beside its dtype and device.
_Draw = Callable[[Tensor, tuple[int, ...], torch.dtype], Tensor]


def refuse_generator(generator: torch.Generator | None) -> None:
    """An explicit generator is hidden state, whose draws no key could repeat."""
    if generator is not None:
        raise TypeError(
            "Inside random.seeded (or a pure call) every draw comes from the key, and this one was given generator=. "
            "Leave the argument out, or make this draw outside."
        )


def draw_key(mode: Any, device: torch.device | str | None) -> Tensor:
    """The next key, on the device that torch would draw on."""
    key: Tensor = mode.next_key()
    if device is None:
        # The compiler cannot ask for the default device, but knows where a tensor would be made.
        device = torch.zeros(()).device if torch.compiler.is_compiling() else torch.get_default_device()
    return key.to(device)


def draw_range(key: Tensor, shape: tuple[int, ...], low: int, high: int) -> Tensor:
    """int64 numbers in [low, high), from words of the narrower type where that holds the bounds."""
    lower, upper = parameters(key, torch.int64, low, high)
    dtype = torch.int32 if low >= -(2**31) and high <= 2**31 else torch.int64
    return draw_integers(key, shape, lower, upper, dtype).to(torch.int64)


def _size(args: tuple[Any, ...], size: Any) -> tuple[int, ...]:
    if size is not None:
        return tuple(size)
    return tuple(args[0]) if len(args) == 1 and not isinstance(args[0], int) else args


def _finish(value: Tensor, out: Tensor | None, requires_grad: bool) -> Tensor:
    if out is not None:
        return out.resize_(value.shape).copy_(value)
    return value.requires_grad_() if requires_grad else value


def _factory(draw: _Draw) -> Any:
    def replacement(
        mode: Any,
        *args: Any,
        size: Any = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        out: Tensor | None = None,
        requires_grad: bool = False,
        **storage: Any,
    ) -> Tensor:
        refuse_generator(generator)
        if out is not None:
            dtype, device = out.dtype, out.device
        key = draw_key(mode, device)
        return _finish(draw(key, _size(args, size), dtype or torch.get_default_dtype()), out, requires_grad)

    return replacement


def _like(draw: _Draw) -> Any:
    def replacement(
        mode: Any,
        input: Tensor,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        requires_grad: bool = False,
        **storage: Any,
    ) -> Tensor:
        refuse_generator(generator)
        key = draw_key(mode, device or input.device)
        return _finish(draw(key, tuple(input.shape), dtype or input.dtype), None, requires_grad)

    return replacement


def _randint(
    mode: Any,
    *args: Any,
    low: int = 0,
    high: int | None = None,
    size: Any = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    out: Tensor | None = None,
    requires_grad: bool = False,
    **storage: Any,
) -> Tensor:
    refuse_generator(generator)
    numbers = [a for a in args if isinstance(a, int)]
    sizes = [a for a in args if not isinstance(a, int)]
    if high is None:
        low, high = (0, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])
    elif numbers:
        low = numbers[0]
    if out is not None:
        dtype, device = out.dtype, out.device
    value = draw_range(draw_key(mode, device), tuple(sizes[0] if sizes else size), low, high)
    return _finish(value.to(dtype or torch.int64), out, requires_grad)


def _randint_like(
    mode: Any,
    input: Tensor,
    *args: Any,
    low: int = 0,
    high: int | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
    requires_grad: bool = False,
    **storage: Any,
) -> Tensor:
    refuse_generator(generator)
    if args:
        low, high = (args[0], args[1]) if len(args) == 2 else (low, args[0])
    assert high is not None, "torch.randint_like needs high"
    value = draw_range(draw_key(mode, device or input.device), tuple(input.shape), low, high)
    return _finish(value.to(dtype or input.dtype), None, requires_grad)


def _randperm(
    mode: Any,
    n: int,
    *,
    generator: torch.Generator | None = None,
    out: Tensor | None = None,
    dtype: torch.dtype = torch.int64,
    device: torch.device | str | None = None,
    requires_grad: bool = False,
    **storage: Any,
) -> Tensor:
    refuse_generator(generator)
    return _finish(draw_permutation(draw_key(mode, device), n).to(dtype), out, requires_grad)


def _normal(
    mode: Any,
    mean: Any = 0.0,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: torch.Generator | None = None,
    out: Tensor | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    requires_grad: bool = False,
    **storage: Any,
) -> Tensor:
    refuse_generator(generator)
    given = [x for x in (mean, std) if isinstance(x, Tensor)]
    if given:
        key = draw_key(mode, given[0].device)
        shape, dtype = broadcast("normal", None, *given), given[0].dtype
    else:
        key, shape = draw_key(mode, device), tuple(size)
    dtype = dtype or torch.get_default_dtype()
    return _finish((draw_normal(key, shape, wide(dtype)) * std + mean).to(dtype), out, requires_grad)


def _bernoulli(
    mode: Any,
    input: Tensor,
    p: float | None = None,
    *,
    generator: torch.Generator | None = None,
    out: Tensor | None = None,
) -> Tensor:
    refuse_generator(generator)
    floats = input.dtype if input.is_floating_point() else torch.get_default_dtype()
    u = draw_unit(draw_key(mode, input.device), tuple(input.shape), wide(floats))
    return _finish((u < (input if p is None else p)).to(input.dtype), out, False)


def _poisson(mode: Any, input: Tensor, generator: torch.Generator | None = None) -> Tensor:
    refuse_generator(generator)
    return draw_poisson(draw_key(mode, input.device), input.detach().double()).to(input.dtype)


def _binomial(mode: Any, count: Tensor, prob: Tensor, generator: torch.Generator | None = None) -> Tensor:
    refuse_generator(generator)
    n, p = count.detach().double(), prob.detach().double()
    shape = broadcast("binomial", None, n, p)
    n, p = n.expand(shape), p.expand(shape)
    return draw_binomial(draw_key(mode, count.device), n, p).to(count.dtype)


def _standard_gamma(mode: Any, alpha: Tensor, generator: torch.Generator | None = None) -> Tensor:
    refuse_generator(generator)
    return draw_gamma(draw_key(mode, alpha.device), alpha, tuple(alpha.shape), log=False)


def _dirichlet(mode: Any, alpha: Tensor, generator: torch.Generator | None = None) -> Tensor:
    refuse_generator(generator)
    return torch.softmax(draw_gamma(draw_key(mode, alpha.device), alpha, tuple(alpha.shape), log=True), -1)


def _multinomial(
    mode: Any,
    input: Tensor,
    num_samples: int,
    replacement: bool = False,
    *,
    generator: torch.Generator | None = None,
    out: Tensor | None = None,
) -> Tensor:
    refuse_generator(generator)
    key, input = draw_key(mode, input.device), input.to(wide(input.dtype))
    if replacement:
        total = torch.cumsum(input, -1)
        u = draw_unit(key, (*input.shape[:-1], num_samples), input.dtype) * total[..., -1:]
        # On the right of equal values, so that an element of no weight is never drawn.
        index = torch.searchsorted(total, u, right=True).clamp(max=input.shape[-1] - 1)
    else:
        noise = draw_gumbel(key, tuple(input.shape), input.dtype, "high")
        index = torch.topk(noise + torch.log(input), num_samples, dim=-1).indices
    return _finish(index, out, False)


def _joined(mode: Any, value: Tensor) -> Tensor:
    # A fill writes a batch of numbers, one row a key, into this: under vmap over keys it needs the keys' batch.
    key = mode.key
    return value + (key[0] * 0).to(value) if key is not None and _compat.batched(key) else value


def _empty(mode: Any, *args: Any, memory_format: torch.memory_format | None = None, **kwargs: Any) -> Tensor:
    value = _joined(mode, torch.zeros(*args, **kwargs))
    return value if memory_format is None else value.contiguous(memory_format=memory_format)


def _empty_like(mode: Any, input: Tensor, **kwargs: Any) -> Tensor:
    return _joined(mode, torch.zeros_like(input, **kwargs))


def _new_empty(mode: Any, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return _joined(mode, input.new_zeros(*args, **kwargs))


FACTORIES: dict[Any, Any] = {
    torch.rand: _factory(unit_in),
    torch.randn: _factory(normal_in),
    torch.rand_like: _like(unit_in),
    torch.randn_like: _like(normal_in),
    torch.randint: _randint,
    torch.randint_like: _randint_like,
    torch.randperm: _randperm,
    torch.normal: _normal,
    torch.bernoulli: _bernoulli,
    Tensor.bernoulli: _bernoulli,
    torch.poisson: _poisson,
    torch.binomial: _binomial,
    torch.multinomial: _multinomial,
    Tensor.multinomial: _multinomial,
    torch.empty: _empty,
    torch.empty_like: _empty_like,
    Tensor.new_empty: _new_empty,
}
for _name, _function in _compat.samplers().items():
    FACTORIES[_function] = {"_standard_gamma": _standard_gamma, "_sample_dirichlet": _dirichlet}[_name]
