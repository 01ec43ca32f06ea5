"""Data under a default device: what is read stays on the host. The device here is one that holds no numbers."""

import pytest
import torch
from PIL import Image

from funcnet import data, random
from funcnet.data import Position

# jax, where a test has imported it in this process, warns of every fork.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*")


@pytest.fixture
def elsewhere():
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@pytest.fixture
def names(tmp_path):
    for i in range(8):
        path = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.randint(random.key(i), (6, 5, 3), 0, 256).to(torch.uint8)
        Image.fromarray(pixels.numpy()).save(path)
    lines = [f"{i},{'red' if i % 3 else 'blue'},{0.5 * i}" for i in range(20)]
    (tmp_path / "table.csv").write_text("\n".join(["size,colour,y", *lines]))
    (tmp_path / "text.txt").write_text("to be or not to be")
    synthetic = [f"synthetic:{kind}?n=30" for kind in ("classification", "regression", "images")]
    table = f"csv:{tmp_path}/table.csv#"
    return ["digits", f"folder:{tmp_path}/pictures", f"{table}y", f"{table}y?kind=classification", f"{table}colour",
            f"text:{tmp_path}/text.txt", *synthetic]  # fmt: skip


def test_what_is_read_lies_on_the_host(names, request):
    expected = [data.load(name) for name in names]
    request.getfixturevalue("elsewhere")
    for name, before in zip(names, expected, strict=True):
        found = data.load(name)
        for part, other in ((found.train, before.train), (found.test, before.test)):
            assert all(torch.equal(part[leaf], other[leaf]) for leaf in other), name
        assert found.statistics is None or torch.equal(found.statistics.mean, before.statistics.mean)


def test_readers_by_themselves(names, request, tmp_path):
    def found():
        table = data.read_table(tmp_path / "table.csv")
        images = data.read_images(tmp_path / "pictures")
        return [*table.columns.values(), images.x, images.label, *data.statistics(images.x)]

    expected = found()
    request.getfixturevalue("elsewhere")
    assert all(torch.equal(a, b) for a, b in zip(found(), expected, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffle", [False, True])
def test_loaders_load(elsewhere, workers, shuffle):
    rows = torch.arange(10, device="cpu")
    made = data.loader(rows, 4, key=random.key(1), workers=workers, shuffle=shuffle, epochs=2)
    found = list(made)
    assert [after for after, _ in found] == [Position(0, 1), Position(1, 0), Position(1, 1), Position(2, 0)]
    order = random.permutation(random.fold_in(random.key(1), 1), 10) if shuffle else rows
    assert torch.equal(found[2][1], order[:4])


def test_the_rows_of_a_batch_are_told(elsewhere):
    rows = torch.arange(10, device="cpu")
    assert data.batches(None, rows, 4).rows(1).tolist() == [4, 5, 6, 7]
