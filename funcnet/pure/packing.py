"""Packed sequences, whose lengths are shapes that torch keeps in a tensor: read on the host, also while tracing."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from funcnet import _compat, tree

if TYPE_CHECKING:
    from funcnet.pure.mode import PureMode

__all__ = ["PACKING", "Known", "Packing"]

_METADATA = ("__get__", "size", "__len__", "dim", "numel")


class Known(Tensor):
    """An int64 tensor on the CPU whose values Python knows while everything around it is traced."""

    numbers: list[int]

    @classmethod
    def of(cls, values: Sequence[int]) -> "Known":
        """Make one of these values."""
        with _compat.untraced():
            known: Known = torch.tensor(values, dtype=torch.int64, device="cpu").as_subclass(cls)
        known.numbers = list(values)
        return known

    def constant(self) -> Tensor:
        """An ordinary tensor, which tracing takes for a constant."""
        return torch.tensor(self.numbers, dtype=torch.int64, device="cpu")

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """What torch's packing functions read is known; to all else this is a constant."""
        kwargs = kwargs or {}
        values = args[0].numbers if args and isinstance(args[0], Known) else None
        if values is not None and func is Tensor.tolist:
            return list(values)
        if values is not None and func is Tensor.__getitem__ and isinstance(args[1], int):
            return values[args[1]]
        if values is not None and func is torch.sort:
            order = sorted(range(len(values)), key=values.__getitem__, reverse=kwargs.get("descending", False))
            return Known.of([values[i] for i in order]), torch.tensor(order, device="cpu")
        if getattr(func, "__name__", "") in _METADATA:
            return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]  # torch's own
        args, kwargs = tree.map(lambda v: v.constant() if isinstance(v, Known) else v, (args, kwargs))
        return func(*args, **kwargs)


class Packing(NamedTuple):
    """Where the rows of a packed sequence stand among `(time, batch)`."""

    valid: Tensor  # bool (time, batch)
    rows: Tensor  # int64 (time, batch): the packed row, 0 where there is none
    places: Tensor  # int64 (rows,): the place of each packed row in time * batch

    @classmethod
    def of(cls, batch_sizes: Tensor, device: torch.device) -> "Packing":
        """Work it out from how many sequences have each time."""
        sizes = _host(batch_sizes)
        batch = sizes[0]
        places = [time * batch + i for time, size in enumerate(sizes) for i in range(size)]
        rows = [0] * (len(sizes) * batch)
        for row, place in enumerate(places):
            rows[place] = row
        return cls(
            torch.tensor([[i < size for i in range(batch)] for size in sizes], device=device),
            torch.tensor(rows, device=device).reshape(len(sizes), batch),
            torch.tensor(places, device=device),
        )

    def pad(self, packed: Tensor) -> Tensor:
        """`(rows, ...)` to `(time, batch, ...)`; what stands where nothing is valid is no matter."""
        return packed[self.rows]

    def pack(self, padded: Tensor) -> Tensor:
        """Back."""
        return padded.flatten(0, 1)[self.places]


def _host(sizes: Tensor) -> list[int]:
    if isinstance(sizes, Known):
        return sizes.numbers
    if _compat.tracing():
        raise TypeError(
            "the lengths of packed sequences are shapes, which a compiled function must know: pass a PackedSequence as "
            "an argument of the jitted function, or give pack_padded_sequence a list of numbers inside the module."
        )
    sizes = _compat.bare(sizes)
    if sizes.ndim != 1:
        raise TypeError(
            "the lengths of packed sequences are shapes, and vmap maps over them: map over the data alone, as in "
            "vmap(lambda data: model(params, state, packed._replace(data=data)))(many)."
        )
    numbers: list[int] = sizes.tolist()
    return numbers


def _pack(mode: "PureMode", input: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    """`torch.nn.utils.rnn.pack_padded_sequence`, of sorted lengths, by a gather that has every derivative."""
    asked = _compat.asked_of(input)
    tracing = _compat.tracing()
    if not (asked.transformed or asked.forward or tracing):
        packed: tuple[Tensor, Tensor] = _compat.pack_padded(input, lengths, batch_first)
        return packed
    padded, numbers = (input.transpose(0, 1) if batch_first else input), _host(lengths)
    with _compat.untraced():  # a dry run on the host, for its result and its errors
        empty = torch.zeros(*padded.shape[:2], 1, device="cpu")
        _, dry = _compat.pack_padded(empty, _compat.bare(torch.tensor(numbers)), False)
        batch_sizes = Known.of(_compat.bare(dry).tolist()) if tracing else _compat.bare(dry)
    return Packing.of(batch_sizes, input.device).pack(padded), batch_sizes


def _pad(
    mode: "PureMode", data: Tensor, batch_sizes: Tensor, batch_first: bool, padding_value: float, length: int
) -> tuple[Tensor, Tensor]:
    """`torch.nn.utils.rnn.pad_packed_sequence`, likewise."""
    asked = _compat.asked_of(data)
    if not (asked.transformed or asked.forward or _compat.tracing()):
        unpacked: tuple[Tensor, Tensor] = _compat.pad_packed(data, batch_sizes, batch_first, padding_value, length)
        return unpacked
    packing = Packing.of(batch_sizes, data.device)
    padded = packing.pad(data)
    valid = packing.valid.reshape(*packing.valid.shape, *(1,) * (data.ndim - 1))
    padded = torch.where(valid, padded, padding_value)
    if length > len(padded):
        rest = padded.new_full((length - len(padded), *padded.shape[1:]), padding_value)
        padded = torch.cat([padded, rest])
    lengths = packing.valid.sum(0).cpu()
    return (padded.transpose(0, 1) if batch_first else padded), lengths


def _as_tensor(mode: "PureMode", data: Any, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
    """`torch.as_tensor`; the list of lengths that is given to `pack_padded_sequence` stays known while tracing."""
    if _compat.tracing() and dtype == torch.int64 and device == "cpu" and all(type(n) is int for n in _list(data)):
        return Known.of(data)
    return torch.as_tensor(data, dtype=dtype, device=device)


def _list(data: Any) -> Sequence[Any]:
    return data if isinstance(data, list | tuple) else (None,)


def _scatter_(mode: "PureMode", input: Tensor, dim: int, index: Tensor, src: Any, **options: Any) -> Tensor:
    """`Tensor.scatter_`, by which torch inverts the order of sequences, and which has no batching rule."""
    if not isinstance(src, Tensor) or options or not _compat.asked_of(input, index, src).batched:
        return input.scatter_(dim, index, src, **options)
    return input.copy_(torch.scatter(input, dim, index, src))


PACKING: dict[Any, Any] = {
    _compat.pack_padded: _pack,
    _compat.pad_packed: _pad,
    torch.as_tensor: _as_tensor,
    Tensor.scatter_: _scatter_,
}
