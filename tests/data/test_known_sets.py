"""MNIST, Fashion-MNIST and CIFAR-10 from small files in their formats: layouts, downloads, and what is broken."""

import gzip
import hashlib
import io
import struct
import tarfile

import pytest
import torch
from torchvision.datasets import MNIST

from funcnet import data, random
from funcnet.data import DataError, known

NAMES = ["mnist", "fashion-mnist"]


def idx(tensor):
    return bytes([0, 0, 8, tensor.ndim]) + struct.pack(f">{tensor.ndim}I", *tensor.shape) + tensor.numpy().tobytes()


def contents(n=12, seed=0):
    """The four files of a small set, by name."""
    found = {}
    for (part, what), file in known.FILES.items():
        key = random.fold_in(random.key(seed), len(found))
        count = n if part == "train" else n // 2
        shape, high = ((count, 6, 5), 256) if what == "x" else ((count,), 10)
        found[file] = idx(random.randint(key, shape, 0, high).to(torch.uint8))
    return found


def write(folder, files, packed):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("layout", ["{}/raw", "{}", "raw", "."])
def test_every_layout_is_found(tmp_path, name, packed, layout, monkeypatch):
    write(tmp_path / layout.format(known.IDX[name].folder), contents(), packed)
    monkeypatch.setenv("FUNCNET_DATA", str(tmp_path))
    for root in (tmp_path, None):
        found = data.load(name, root=root)
        assert found.train["x"].shape == (12, 1, 6, 5)
        assert found.test["label"].shape == (6,)
        assert found.kind == "classification"
        assert found.classes == known.IDX[name].classes
    torch.testing.assert_close(found.statistics.mean, found.train["x"].double().div(255).mean((0, 2, 3)).float())
    torch.testing.assert_close(
        found.statistics.std, found.train["x"].double().div(255).std((0, 2, 3), correction=0).float()
    )


def test_torchvision_reads_the_same_files(tmp_path):
    write(tmp_path / "MNIST" / "raw", contents(), packed=False)
    found = data.load("mnist", root=tmp_path)
    for part, rows in (("train", found.train), ("test", found.test)):
        reference = MNIST(str(tmp_path), train=part == "train")
        assert torch.equal(rows["x"][:, 0], reference.data)
        assert torch.equal(rows["label"], reference.targets)


def test_files_are_fetched_only_when_asked(tmp_path, monkeypatch):
    files = {name: gzip.compress(content) for name, content in contents().items()}
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for name, content in files.items():
        (mirror / f"{name}.gz").write_bytes(content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    small = known.IDX["mnist"]._replace(mirrors=(f"{mirror.as_uri()}/",), sha256=digests)
    monkeypatch.setitem(known.IDX, "mnist", small)
    root = tmp_path / "root"
    with pytest.raises(
        DataError,
        match=r"mnist is not there: no file train-images-idx3-ubyte\.gz or .*root/MNIST/raw.*"
        r"download=True.*--download.*FUNCNET_DATA",
    ):
        data.load("mnist", root=root)
    assert not root.exists()
    found = data.load("mnist", root=root, download=True)
    assert len(list((root / "MNIST" / "raw").iterdir())) == 4
    again = data.load("mnist", root=root)
    assert torch.equal(found.train["x"], again.train["x"])

    wrong = small._replace(sha256=digests | {"t10k-labels-idx1-ubyte": "0" * 64})
    monkeypatch.setitem(known.IDX, "mnist", wrong)
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz could not be fetched.*sha256.*should be 0000"):
        data.load("mnist", root=tmp_path / "other", download=True)
    assert len(list((tmp_path / "other" / "MNIST" / "raw").iterdir())) == 3


def test_one_set_is_not_taken_for_another(tmp_path, monkeypatch):
    files = contents()
    labels = hashlib.sha256(files["train-labels-idx1-ubyte"][8:]).hexdigest()
    monkeypatch.setitem(known.IDX, "mnist", known.IDX["mnist"]._replace(labels=labels))
    write(tmp_path, files, packed=False)
    data.load("mnist", root=tmp_path)
    with pytest.raises(DataError, match=r"is a file of mnist, and fashion-mnist was asked for.*a folder of its own"):
        data.load("fashion-mnist", root=tmp_path)


@pytest.mark.parametrize(
    ("file", "tensor", "message"),
    [
        (
            "train-labels-idx1-ubyte",
            torch.arange(12),
            r"train-labels-idx1-ubyte: row 10 has the label 10, .* 10 classes",
        ),
        ("train-labels-idx1-ubyte", torch.arange(11), r"of shape \(11,\); pictures are"),
        ("t10k-images-idx3-ubyte", torch.arange(6), r"t10k-images-idx3-ubyte is torch.uint8 of shape \(6,\)"),
        ("t10k-images-idx3-ubyte", torch.arange(24).reshape(6, 2, 2), r"pictures of different sizes"),
    ],
)
def test_files_that_do_not_go_together_are_named(tmp_path, file, tensor, message):
    write(tmp_path, contents() | {file: idx(tensor.to(torch.uint8))}, packed=False)
    with pytest.raises(DataError, match=message):
        data.load("mnist", root=tmp_path)


def records(n, seed):
    keys = random.split(random.key(seed))
    labels = random.randint(keys[0], (n, 1), 0, 10)
    return torch.cat([labels, random.randint(keys[1], (n, 3072), 0, 256)], 1).to(torch.uint8)


def cifar():
    return {name: records(4, i) for i, name in enumerate((*known.CIFAR.train, *known.CIFAR.test))}


def test_cifar10_is_read_from_its_folder_or_its_archive(tmp_path, monkeypatch):
    files = cifar()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in {f"{known.CIFAR.folder}/{n}": r.numpy().tobytes() for n, r in files.items()}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        escape = tarfile.TarInfo("../escaped")
        tar.addfile(escape, io.BytesIO())
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / known.CIFAR.archive).write_bytes(archive.getvalue())
    small = known.CIFAR._replace(
        mirrors=(f"{mirror.as_uri()}/",), sha256=hashlib.sha256(archive.getvalue()).hexdigest()
    )
    monkeypatch.setattr(known, "CIFAR", small)
    root = tmp_path / "root"
    with pytest.raises(
        DataError, match=r"cifar10 is not there: no file .*data_batch_1\.bin or cifar-10-binary\.tar\.gz"
    ):
        data.load("cifar10", root=root)
    for download in (True, False):
        found = data.load("cifar10", root=root, download=download)
        whole = torch.cat(list(files.values())[:5])
        assert torch.equal(found.train["label"], whole[:, 0].long())
        assert torch.equal(found.train["x"], whole[:, 1:].reshape(20, 3, 32, 32))
        assert found.test["x"].shape == (4, 3, 32, 32)
    assert {path.name for path in root.iterdir()} == {small.archive, small.folder}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mirror", "root"]


def test_a_broken_cifar10_is_named(tmp_path):
    folder = tmp_path / known.CIFAR.folder
    folder.mkdir()
    for name, rows in cifar().items():
        (folder / name).write_bytes(rows.numpy().tobytes())
    batch = folder / "data_batch_3.bin"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_3\.bin has 12291 bytes.*records of 3073"):
        data.load("cifar10", root=tmp_path)
    batch.write_bytes(b"\x0a" + batch.read_bytes()[1:] + b"\0")
    with pytest.raises(DataError, match=r"data_batch_3\.bin: row 0 has the label 10"):
        data.load("cifar10", root=tmp_path)
    batch.unlink()
    with pytest.raises(DataError, match=r"data_batch_3\.bin cannot be read: No such file"):
        data.load("cifar10", root=tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / known.CIFAR.archive).write_bytes(gzip.compress(b"no archive"))
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz cannot be unpacked.*get it again"):
        data.load("cifar10", root=other)
    assert [path.name for path in other.iterdir()] == [known.CIFAR.archive]


def test_every_mirror_is_https_and_every_file_has_a_digest():
    for mirrors in (*(those.mirrors for those in known.IDX.values()), known.CIFAR.mirrors):
        assert mirrors
        assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in mirrors)
    for those in known.IDX.values():
        assert set(those.sha256) == set(known.FILES.values())
        assert all(len(digest) == 64 for digest in (*those.sha256.values(), those.labels))
