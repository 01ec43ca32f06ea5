"""IDX files, the format of MNIST: a big-endian header of a type and sizes, then the numbers, plain or gzipped."""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from funcnet.data.errors import DataError

__all__ = ["read_idx"]

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_DEFLATE = 1032  # deflate never makes a file smaller than by this factor
_CHUNK = 1 << 20


def read_idx(path: str | os.PathLike[str]) -> Tensor:
    """The tensor in an IDX file.

    Args:
        path: the file; one that begins as gzip does is unpacked on the way, whatever its name.

    Returns: uint8, int8, int16, int32, float32 or float64, of the sizes that its header names.

    Raises:
        DataError: the file cannot be read, is no IDX file, or has not the length that its header promises, which is
            compared with the file before memory is asked for.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 3, 7, 8, 9])), file.flush()
    ...     read_idx(file.name)
    tensor([[7, 8, 9]], dtype=torch.uint8)
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            room = os.fstat(file.fileno()).st_size
            if file.read(2) != b"\x1f\x8b":
                file.seek(0)
                return _read(path, file, room)
            file.seek(0)
            with gzip.open(file) as unpacked:
                return _read(path, unpacked, room * _DEFLATE)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a broken gzip file: {error}. Get it again.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _read(path: Path, file: IO[bytes] | gzip.GzipFile, room: int) -> Tensor:
    """The tensor, from a file that holds at most `room` bytes."""
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _DTYPES:
        raise DataError(
            f"{path} is no IDX file: it begins with the bytes {head.hex(' ') or 'of nothing'}, and one begins with "
            f"00 00, a type (08 09 0b 0c 0d 0e) and the number of axes."
        )
    dtype, axes = np.dtype(_DTYPES[head[2]]), head[3]
    sizes = file.read(4 * axes)
    if len(sizes) < 4 * axes:
        raise DataError(f"{path} ends at byte {4 + len(sizes)}, inside its header of {axes} axes. Get it again.")
    shape = struct.unpack(f">{axes}I", sizes)
    start, length = 4 + 4 * axes, math.prod(shape) * dtype.itemsize
    told = f"its header names {dtype.name} of shape {shape}, which is {length} bytes after the first {start}"
    # numpy and torch refuse sizes whose product is beyond 64 bits, even beside a zero.
    if start + length > room or axes > 32 or math.prod(size or 1 for size in shape) > 1 << 59:
        raise DataError(f"{path} is cut short or no IDX file: {told}, and the whole file cannot hold more than {room}.")
    # In parts, so that a gzip file which promises more than it has costs no more than it has.
    content = bytearray()
    while len(content) < length and (part := file.read(min(_CHUNK, length - len(content)))):
        content += part
    if len(content) < length:
        raise DataError(f"{path} is cut short: {told}, and there are {len(content)}. Get it again.")
    if file.read(1):
        raise DataError(f"{path} goes on after its end: {told}, and there are more.")
    array = np.frombuffer(content, dtype).reshape(shape)
    return torch.from_numpy(array.astype(dtype.newbyteorder("="), copy=False))
