"""The safetensors format: written as a stream that is hashed as it goes, read into tensors that own their memory.

The safetensors package holds a file twice in memory to write it, refuses tensors that share memory, and writes its
metadata in an order that changes. A donating step needs leaves that own what they hold.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import torch
from torch import Tensor

from .errors import CheckpointError
from .text import parsed

__all__ = ["CODES", "DTYPES", "Entry", "chunks", "read_header", "read_tensors", "stored", "written"]

# In the order in which the safetensors package lays tensors out: the last first, so that each lies aligned.
CODES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "C64": torch.complex64,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}
_RANK = {code: rank for rank, code in enumerate(CODES)}
_CODE_OF = {dtype: code for code, dtype in CODES.items()}

DTYPES = {str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
"""Every dtype by the name that torch gives it."""

_HALVES = {"complex128": "F64", "complex32": "F16", "bcomplex32": "BF16"}
_METADATA = "__metadata__"
_LONGEST_HEADER = 100_000_000  # as in the safetensors package: far more than any model's names
_CHUNK = 1 << 22


class Entry(NamedTuple):
    """What a header says of a tensor: the format's code of its dtype, its shape, and its bytes after the header."""

    code: str
    shape: tuple[int, ...]
    begin: int
    end: int

    def plain(self) -> tuple[torch.dtype, tuple[int, ...]]:
        """The dtype and shape of the tensor, taken for what the format says it is."""
        return CODES[self.code], self.shape


class _Hash(Protocol):
    def update(self, data: Any, /) -> None: ...


def stored(dtype: torch.dtype, shape: Iterable[int]) -> tuple[str, tuple[int, ...]] | None:
    """The code and shape under which a tensor lies in a file, or None where it cannot.

    A dtype that the format lacks is kept as its parts: complex128 as pairs of float64, complex32 of float16; packed
    and small ones as unsigned integers of their width. Quantized ones, whose scales lie elsewhere, cannot.

    >>> stored(torch.bfloat16, (3,)), stored(torch.complex128, (3,)), stored(torch.qint8, (3,))
    (('BF16', (3,)), ('F64', (3, 2)), None)
    """
    name = str(dtype).removeprefix("torch.")
    if dtype in _CODE_OF:
        return _CODE_OF[dtype], tuple(shape)
    if name in _HALVES:
        return _HALVES[name], (*shape, 2)
    if name.startswith(("qint", "quint")) or dtype.itemsize not in (1, 2):
        return None
    return ("U8" if dtype.itemsize == 1 else "U16"), tuple(shape)


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a dense tensor, to read from or to write to."""
    if not tensor.numel():
        return memoryview(b"")  # torch views no empty tensor as bytes
    flat: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)


def chunks(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, the same for the same content: join them, or write one after the other.

    Tensors may lie on any device and in any layout, and share memory: their values are written.

    >>> from safetensors.torch import load
    >>> load(b"".join(chunks({"w": torch.ones(2).expand(3, 2)})))["w"].shape
    torch.Size([3, 2])
    """
    places: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, tensor in tensors.items():
        place = stored(tensor.dtype, tensor.shape)
        if place is None or name == _METADATA:
            what = f"the name {name!r} is the format's own" if place is not None else f"{name!r} is {tensor.dtype}"
            raise TypeError(f"a safetensors file cannot hold this: {what}.")
        places[name] = place
    header: dict[str, Any] = {_METADATA: dict(sorted(metadata.items()))} if metadata else {}
    order = sorted(places, key=lambda name: (-_RANK[places[name][0]], name))
    end = 0
    for name in order:
        code, shape = places[name]
        begin, end = end, end + tensors[name].numel() * tensors[name].element_size()
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        # One at a time: on a device, the host never holds more than one copy.
        yield _bytes_of(tensors[name].detach().cpu().resolve_conj().resolve_neg().contiguous())


def read_header(stream: BinaryIO, path: Path, digest: _Hash | None = None) -> dict[str, Entry]:
    """The entries of a safetensors file by name, in the order of their bytes; the stream is left at the first.

    Raises `CheckpointError` unless the entries fill the file without gap or overlap.
    """
    stream.seek(0, 2)
    size = stream.tell()
    stream.seek(0)
    first = stream.read(8)
    length = int.from_bytes(first, "little")
    if len(first) < 8 or length > min(size - 8, _LONGEST_HEADER):
        raise CheckpointError(
            f"{path} is no safetensors file, or was cut short: of {size} bytes its header should take {length}."
        )
    text = stream.read(length)
    header = parsed(text, path, "the header of")
    if digest is not None:
        digest.update(first + text)
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is no JSON object.")
    header.pop(_METADATA, None)
    entries = {name: _entry(name, value, path) for name, value in header.items()}
    end = 0
    ordered = dict(sorted(entries.items(), key=lambda item: item[1][2:]))
    for name, entry in ordered.items():
        if entry.begin != end:
            raise CheckpointError(f"{path}: {name!r} begins at byte {entry.begin}, where the one before ends at {end}.")
        end = entry.end
    if end != size - 8 - length:
        raise CheckpointError(f"{path}: its tensors should take {end} bytes, and it holds {size - 8 - length}.")
    return ordered


def _entry(name: str, value: Any, path: Path) -> Entry:
    match value:
        case {"dtype": str(code), "shape": [*shape], "data_offsets": [begin, end]} if len(value) == 3:
            pass
        case _:
            raise CheckpointError(f"{path}: the entry of {name!r} is none of dtype, shape and data_offsets.")
    if code not in CODES:
        raise CheckpointError(f"{path}: {name!r} has the dtype {code!r}, which torch {torch.__version__} lacks.")
    if not all(type(number) is int and 0 <= number < 2**63 for number in (*shape, begin, end)):
        raise CheckpointError(f"{path}: {name!r} has the shape {shape} at bytes {begin} to {end}.")
    width = CODES[code].itemsize
    # Zero-sized ones too: torch multiplies the other sizes for the strides.
    if math.prod(max(n, 1) for n in shape) * width >= 2**63 or math.prod(shape) * width != end - begin:
        raise CheckpointError(f"{path}: {name!r}, {code} of shape {shape}, does not fill bytes {begin} to {end}.")
    return Entry(code, tuple(shape), begin, end)


def read_tensors(
    stream: BinaryIO,
    path: Path,
    entries: Mapping[str, Entry],
    into: Mapping[str, tuple[torch.dtype, tuple[int, ...]]] | None = None,
    digest: _Hash | None = None,
) -> dict[str, Tensor]:
    """The tensors of a stream that `read_header` left at the first; only those in `into`, which may be views.

    What is not wanted is passed over, and still hashed where there is a digest.
    """
    found: dict[str, Tensor] = {}
    for name, entry in entries.items():
        wanted = entry.plain() if into is None else into.get(name)
        size = entry.end - entry.begin
        if wanted is not None:
            dtype, shape = wanted
            found[name] = torch.empty(shape, dtype=dtype, device="cpu")
            _fill(_bytes_of(found[name]), stream, path, name, digest)
        elif digest is None:
            stream.seek(size, 1)
        else:
            spare = memoryview(bytearray(min(size, _CHUNK)))
            for begin in range(0, size, _CHUNK):
                _fill(spare[: size - begin], stream, path, name, digest)
    return found


def _fill(memory: memoryview, stream: BinaryIO, path: Path, name: str, digest: _Hash | None) -> None:
    for begin in range(0, len(memory), _CHUNK):
        part = memory[begin : begin + _CHUNK]
        if stream.readinto(part) != len(part):  # type: ignore[attr-defined]  # typeshed's BinaryIO lacks it
            raise CheckpointError(f"{path} ends within {name!r}: it was cut short.")
        if digest is not None:
            digest.update(part)


def written(stream: BinaryIO, pieces: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Write the pieces of a file, and return its size and sha256."""
    digest = hashlib.sha256()
    size = 0
    for piece in pieces:
        for begin in range(0, len(piece), _CHUNK):
            part = piece[begin : begin + _CHUNK]
            stream.write(part)
            digest.update(part)
            size += len(part)
    return size, digest.hexdigest()
