"""IDX files: torchvision's own reader as a reference, and only the documented error for anything else."""

import gzip
import struct

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import example, given, settings
from torchvision.datasets import MNIST

from funcnet import data, random
from funcnet.data import DataError

TYPES = {
    0x08: torch.uint8,
    0x09: torch.int8,
    0x0B: torch.int16,
    0x0C: torch.int32,
    0x0D: torch.float32,
    0x0E: torch.float64,
}


def idx(tensor: torch.Tensor) -> bytes:
    (code,) = [code for code, dtype in TYPES.items() if dtype == tensor.dtype]
    numbers = tensor.numpy().astype(tensor.numpy().dtype.newbyteorder(">"))
    return bytes([0, 0, code, tensor.ndim]) + struct.pack(f">{tensor.ndim}I", *tensor.shape) + numbers.tobytes()


@given(
    shape=st.lists(st.integers(0, 4), max_size=4),
    dtype=st.sampled_from(list(TYPES.values())),
    seed=st.integers(0, 2**31),
    packed=st.booleans(),
)
def test_what_was_written_is_read(tmp_path_factory, shape, dtype, seed, packed):
    tensor = (100 * random.normal(random.key(seed), tuple(shape))).clamp(0, 127).to(dtype)
    path = tmp_path_factory.mktemp("idx") / "x"
    path.write_bytes(gzip.compress(idx(tensor)) if packed else idx(tensor))
    found = data.read_idx(path)
    assert found.dtype == dtype
    assert torch.equal(found, tensor)


def test_torchvision_reads_the_same(tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    images = random.randint(random.key(0), (7, 5, 4), 0, 256).to(torch.uint8)
    labels = random.randint(random.key(1), (7,), 0, 10).to(torch.uint8)
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    reference = MNIST(str(tmp_path), train=True)
    assert torch.equal(data.read_idx(folder / "train-images-idx3-ubyte"), reference.data)
    assert torch.equal(data.read_idx(folder / "train-labels-idx1-ubyte").long(), reference.targets)


WHOLE = idx(torch.arange(6, dtype=torch.int16).reshape(2, 3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"no IDX file: it begins with the bytes of nothing"),
        (b"\x89PNG....", r"no IDX file: it begins with the bytes 89 50 4e 47"),
        (b"\0\0\x0a\1\0\0\0\1.", r"no IDX file: it begins with the bytes 00 00 0a 01"),
        (WHOLE[:9], r"ends at byte 9, inside its header of 2 axes"),
        (WHOLE[:-1], r"cut short.*shape \(2, 3\), which is 12 bytes after the first 12.*more than 23"),
        (WHOLE + b"\0", r"goes on after its end"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, r"cut short or no IDX file.*more than 16"),
        (gzip.compress(WHOLE, mtime=0)[:-9], r"broken gzip file.*Get it again"),
        (gzip.compress(WHOLE[:-1], mtime=0), r"cut short: .*and there are 11"),
        (gzip.compress(WHOLE + b"\0", mtime=0), r"goes on after its end"),
        (gzip.compress(bytes([0, 0, 8, 3]) + b"\xff" * 12, mtime=0), r"cut short or no IDX file"),
        (b"\x1f\x8b\x08garbage", r"broken gzip file"),
    ],
)
def test_broken_files_are_named(tmp_path, content, message):
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        data.read_idx(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere cannot be read: No such file"):
        data.read_idx(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"cannot be read: Is a directory"):
        data.read_idx(tmp_path)


def fuzz(folder, head, sizes, rest, packed):
    content = bytes(head) + b"".join(struct.pack(">I", size) for size in sizes) + rest
    path = folder / "fuzzed"
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    try:
        found = data.read_idx(path)
    except DataError:
        return
    assert idx(found) == content


HEADS = st.tuples(
    st.sampled_from([0, 0, 0, 1]), st.sampled_from([0, 0, 0, 31]), st.integers(7, 15), st.integers(0, 5)
) | st.tuples(*[st.integers(0, 255)] * 4)
SIZES = st.lists(st.integers(0, 4) | st.integers(0, 2**32 - 1), max_size=6)
CASES = {"head": HEADS, "sizes": SIZES, "rest": st.binary(max_size=40), "packed": st.booleans()}


@settings(max_examples=300)
@given(**CASES)
@example(head=(0, 0, 8, 255), sizes=[0] * 255, rest=b"", packed=False)
@example(head=(0, 0, 8, 3), sizes=[0, 2**32 - 1, 2**32 - 1], rest=b"", packed=False)
def test_any_header_is_read_or_refused(tmp_path_factory, head, sizes, rest, packed):
    fuzz(tmp_path_factory.getbasetemp(), head, sizes, rest, packed)


@pytest.mark.slow
@settings(max_examples=10_000)
@given(**CASES)
def test_ten_thousand_headers_are_read_or_refused(tmp_path_factory, head, sizes, rest, packed):
    fuzz(tmp_path_factory.getbasetemp(), head, sizes, rest, packed)
